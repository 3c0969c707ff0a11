"""``farrier gpu reset``, ``diag`` and ``bundle`` on a fleet under load (15 min).

NVML, nvidia-smi, dcgmi and NVIDIA's report are stand-ins (tests/fakes/nvidia_tools).
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.driver_fleet.changing import as_it_was, latest
from tests.driver_fleet.conftest import site
from tests.driver_fleet.site import DriverSite
from tests.fakes import nvidia_tools
from tests.fakes.nvidia_module import RUN
from tests.fleet.accounts import busy
from tests.fleet.rolling import here, load, nothing_lost, rollout, runs, warmed_up
from tests.roles.fleet import until

__all__ = ["here", "site"]

HOST, GPU = "gpu02", 3
UUID = f"GPU-fa4e0000-0000-4000-8000-{GPU:012x}"
PCI = f"PCI:0000:{0x18 + 8 * GPU:02x}:00.0"
XID = f"NVRM: Xid ({PCI}): 64, pid=1, name=x, Row Remapper Error"
OF_A_PROGRAM = f"NVRM: Xid ({PCI}): 31, pid=1, name=x, MMU Fault"
"""Told, and nobody is drained for it."""
TOOLS = "/opt/standin-tools"
SICK = (f"{GPU}.remapped.pending 1", f"{GPU}.recovery 1")
SHORTLY = ("-y", "--measure", "3", "--tolerance", "50%")


pytestmark = pytest.mark.usefixtures(as_it_was.__name__)


@pytest.fixture(autouse=True)
def programs(site: DriverSite) -> Iterator[None]:
    """NVIDIA's programs are on :data:`HOST`; afterwards its NVML says what it said before."""
    there = Path(nvidia_tools.__file__).parent
    for script in ("state.py", *nvidia_tools.PROGRAMS.values()):
        site.put(HOST, f"{TOOLS}/{script}", (there / script).read_bytes())
    listing = (there.parent / "nvidia_module/nvidia-smi").read_bytes()
    site.put(HOST, f"{TOOLS}/query", listing, "755")
    run = f"FAKE_NVML_STATE={RUN}/state exec /usr/bin/python3 -I {TOOLS}"
    for name, script in nvidia_tools.PROGRAMS.items():
        site.put(HOST, f"/usr/local/bin/{name}", _program(name, f"{run}/{script}"), "755")
    before = site.root(HOST, f"cat {RUN}/state")
    yield
    site.put(HOST, f"{RUN}/state", before.encode())
    site.root(HOST, f"rm -rf {TOOLS} /usr/local/bin/dcgmi /usr/local/bin/nvidia-bug-report.sh")
    site.put(HOST, "/usr/local/bin/nvidia-smi", listing, "755")
    until(lambda: site.ready(HOST), 120, f"{HOST} serves")


def _program(name: str, command: str) -> bytes:
    """What lies in the PATH; the driver's own stand-in answers what the tools' does not."""
    query = f'case $1 in --query*) exec {TOOLS}/query "$@";; esac\n'
    return f'#!/bin/sh\n{query if name == "nvidia-smi" else ""}{command} "$@"\n'.encode()


def says(site: DriverSite, *lines: str) -> None:
    """NVML and its tools on :data:`HOST` say *lines* besides, from now on."""
    more = "".join(f"{line}\\n" for line in lines)
    site.root(HOST, f"printf '{more}' >> {RUN}/state")


def no_longer(site: DriverSite, key: str) -> None:
    site.root(HOST, f"sed -i '/^{key} /d' {RUN}/state")


def test_a_sick_gpu_is_drained_reset_and_taken_back(site: DriverSite, here: Path) -> None:
    before = runs(site)
    with load(site) as it:
        warmed_up(it)
        says(site, *SICK)
        site.root(HOST, f"echo '{XID}' >> {RUN}/dev/kmsg")
        until(lambda: site.phase(HOST) == "drained", 60, "the agent drains it for its GPU")
        done = site.farrier("gpu", "reset", f"{HOST}/{GPU}", *SHORTLY, cwd=here, timeout=400)
        until(lambda: site.ready(HOST), 60, f"{HOST} serves")
        busy(it)
        nothing_lost(site, it)
    print(done.stdout, done.stderr)
    ledger = latest(here)
    assert ledger["outcome"] == "done"
    assert "lost: 0" in done.stdout
    assert "was successfully reset" in ledger["hosts"][0]["output"]
    assert [one["name"] for one in ledger["hosts"][0]["gates"] if one["ok"] is False] == []
    after = runs(site)
    assert after[HOST] != before[HOST]
    assert {**after, HOST: ""} == {**before, HOST: ""}, "no other replica was touched"
    assert "resets 1" in site.root(HOST, f"cat {RUN}/state")


def test_a_reset_that_is_refused_stays_closed_and_is_gone_on_with(
    site: DriverSite, here: Path
) -> None:
    says(site, "reset.refuse Insufficient Permissions")
    with load(site) as it:
        warmed_up(it)
        done = site.farrier("gpu", "reset", f"{HOST}/{UUID}", *SHORTLY, cwd=here, check=1)
        said = done.stdout + done.stderr
        print(said)
        assert "Insufficient Permissions" in said
        assert f"farrier rollout resume {latest(here)['id']}" in said
        assert not site.gate(HOST)
        no_longer(site, "reset.refuse")
        assert rollout(site, "resume", cwd=here)["outcome"] == "done"
        busy(it)
        nothing_lost(site, it)
    assert site.gate(HOST)


def test_what_dcgm_finds_keeps_it_closed(site: DriverSite, here: Path) -> None:
    says(site, f"dcgm.mark {RUN}/host-engine", f"dcgm.memory {GPU} Fail Uncorrectable error")
    site.put(
        HOST,
        "/run/systemd/system/nvidia-dcgm.service",
        f"[Service]\nExecStart=/bin/sh -c 'touch {RUN}/host-engine; exec sleep infinity'\n"
        f"ExecStopPost=/bin/rm -f {RUN}/host-engine\n".encode(),
    )
    site.root(HOST, "systemctl daemon-reload")
    with load(site) as it:
        warmed_up(it)
        argv = ("gpu", "diag", f"{HOST}/{GPU}", "--level", "3", "-y")
        done = site.farrier(*argv, cwd=here, check=1, timeout=300)
        said = done.stdout + done.stderr
        print(said)
        assert "DCGM's level 3 failed" in said
        assert "Uncorrectable error" in said
        assert f"farrier gpu bundle {HOST}/{UUID}" in said
        assert not site.gate(HOST)
        no_longer(site, "dcgm.memory")
        ledger = rollout(site, "resume", cwd=here)
        busy(it)
        nothing_lost(site, it)
    assert ledger["outcome"] == "done"
    assert {one["state"] for one in ledger["hosts"][0]["tests"]} == {"pass"}
    assert site.gate(HOST)
    # it was started for this, and is stopped again
    assert site.unit(HOST, "nvidia-dcgm.service", "ActiveState") == "inactive"


def test_without_dcgm_nothing_is_drained(site: DriverSite, here: Path) -> None:
    site.root(HOST, "rm /usr/local/bin/dcgmi")
    before = runs(site)
    done = site.farrier("gpu", "diag", HOST, "-y", cwd=here, check=3)
    assert "datacenter-gpu-manager" in done.stdout + done.stderr
    assert runs(site) == before
    assert site.gate(HOST)


def test_a_bundle_is_fetched_while_it_serves(site: DriverSite, here: Path) -> None:
    site.root(HOST, f"echo '{OF_A_PROGRAM}' >> {RUN}/dev/kmsg")
    with load(site) as it:
        warmed_up(it)
        done = site.farrier(
            "gpu", "bundle", f"{HOST}/{GPU}", "-o", str(here), "--json", cwd=here, timeout=300
        )
        nothing_lost(site, it)
    told = json.loads(done.stdout.splitlines()[-1])
    path = Path(told["path"])
    assert path.stat().st_mode & 0o777 == 0o600
    with tarfile.open(path) as bundle:
        names = {name.rpartition("/")[2] for name in bundle.getnames()}
    print(names, told)
    assert "manifest.json" in names
    assert any("bug-report" in name for name in names)
    assert UUID in done.stdout
    assert "XID 31" in done.stdout
    assert site.gate(HOST)
