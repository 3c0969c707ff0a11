"""Changes of drivers as a test asks for them, and what may be wrong with a driver."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.driver_fleet.site import NEW, OLD, DriverSite, boot, comes_with, installed, loaded
from tests.fakes.nvidia_repo.catalogue import DOES_NOT_BUILD, DOES_NOT_INSTALL
from tests.fleet.rolling import leased, quickly, rollout, step_of
from tests.fleet.site import Site
from tests.roles.fleet import until

__all__ = [
    "FAULTS",
    "GATES",
    "MEASURE",
    "ONE_HOST",
    "STEPS",
    "Fault",
    "as_it_was",
    "brings",
    "change",
    "gates",
    "is_back",
    "is_changed",
    "latest",
    "reached",
]

MEASURE = ("--measure", "3", "--tolerance", "50%")
"""Short, and generous: this machine has other things to do."""

GATES = {
    *("driver", "gpus", "fabric-manager", "pcie-width", "pcie-generation", "nvlink", "ecc"),
    *("power-limit", "clocks", "warm", "verdict", "speed", "first-token"),
}
"""Those that every change of a driver is judged by."""


ONE_HOST = [
    *("rollout", "driver", "-y", "--to", NEW, *MEASURE),
    *("--lease", "15", "--limit", "gpu01"),
]
"""What a test disturbs: a lease that is soon over, one host."""

STEPS = (
    *("plan", "drain", "measure", "let-go", "install", "reboot", "back", "take-up"),
    *("warm", "check", "ready", "settle"),
)
"""Those that a host with :data:`ONE_HOST` goes through, in order."""


class Fault(NamedTuple):
    """What *version* brings with it, and the gate that has to say so; "": it is never installed."""

    gate: str
    lines: tuple[str, ...]
    expected: str
    seen: str
    version: str = NEW


XID = "log NVRM: Xid (PCI:0000:28:00.0): 119, pid=4711, name=python3, Timeout after 45s"
OTHER = "GPU-0badc0de-0000-4000-8000-000000000003"

FAULTS: Mapping[str, Fault] = {
    "another module is loaded": Fault("driver", (f"loads {OLD}",), NEW, OLD),
    "another GPU answers": Fault("gpus", (f"NVML 3.uuid {OTHER}",), "8 GPUs", f"new: {OTHER}"),
    "a GPU does not answer": Fault("gpus", ("NVML 3.gone 1",), "8 GPUs", "7 GPUs"),
    "half the lanes": Fault("pcie-width", ("NVML 2.pcie.width 8",), "GPU 2: x16", "x8"),
    "an older PCIe": Fault("pcie-generation", ("NVML 2.pcie.max.generation 3",), "GPU 2: 5", ": 3"),
    "a link is down": Fault("nvlink", ("NVML 2.fv.165.3 0",), "18 of 18 up", "17 of 18 up"),
    "no ECC": Fault("ecc", ("NVML 2.ecc.mode 0",), "GPU 2: on", ": off"),
    "a power limit": Fault("power-limit", ("NVML 2.power.limit 500000",), "700 W", "500 W"),
    "lower clocks": Fault("clocks", ("NVML 2.clock.max.sm 1500",), "1980 and", "1500 and"),
    "no fabric manager": Fault("fabric-manager", ("breaks nv-fabricmanager",), "active", "failed"),
    "an XID": Fault("verdict", (XID,), "not unhealthy", "unhealthy"),
    "slow": Fault("speed", ("engine --token-delay 0.3",), "tokens/s", "3."),
    "late": Fault("first-token", ("engine --token-delay 0.5",), "within", "0.5"),
    "no engine": Fault("warm", ("engine --exit-at-start 3",), "tiny warm", "tiny"),
    "no generation": Fault("warm", ("engine --answers 500",), "tiny warm", "tiny"),
    "no compiler takes it": Fault("", (), "", "could not be built for kernel", DOES_NOT_BUILD),
    "its package fails": Fault("", (), "", "no space left on device", DOES_NOT_INSTALL),
}
"""What is wrong with a new driver, by the one gate that has to find it."""


def change(site: Site, version: str, *argv: str, cwd: Path, check: int = 0) -> Any:
    """The ledger of ``farrier rollout driver --to`` *version*."""
    return rollout(
        site, "driver", "-y", "--to", version, *MEASURE, *argv, cwd=cwd, check=check, timeout=1500
    )


def gates(host: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The gates of a ledger's host, by name."""
    return {one["name"]: one for one in host["gates"]}


def is_changed(site: Site, host: str, version: str) -> None:
    """*host* has driver *version*, whole, and serves."""
    assert installed(site, host) == loaded(site, host) == version
    status = site.status(host)
    assert status["gpus"]["driver_version"] == version
    assert site.ready(host)
    assert site.gate(host)
    assert site.unit(host, "nvidia-fabricmanager", "ActiveState") == "active"
    assert site.unit(host, "nvidia-persistenced", "ActiveState") == "active"
    assert not leased(site, host)


def is_back(site: DriverSite, ledger: Mapping[str, Any], host: str) -> Any:
    """*host*, the first, is on :data:`OLD` again and serves; no other was touched. Its record."""
    assert ledger["outcome"] == "failed"
    record: Mapping[str, Any] = ledger["hosts"][0]
    assert (record["host"], record["state"]) == (host, "put back"), record
    assert {one["state"] for one in ledger["hosts"][1:]} <= {"waiting"}
    for one in ledger["hosts"]:
        is_changed(site, one["host"], OLD)
    back = {one["name"]: one for one in record["gates_back"]}
    assert [name for name in GATES if not back[name]["ok"]] == []
    return record


def latest(here: Path) -> Any:
    """The ledger of the one rollout in *here*."""
    (path,) = (here / ".farrier" / "rollouts").glob("r-*.json")
    return json.loads(path.read_text())


def reached(here: Path, process: subprocess.Popen[str], step: str) -> None:
    """Return when gpu01 is at *step*; fail with what *process* said if it ended before."""

    def there() -> bool:
        if process.poll() is not None:
            pytest.fail(f"it ended with {process.returncode}:\n{process.communicate()[0]}")
        return step_of(here, "gpu01") == step

    quickly(there, 400, f"gpu01 is at {step}")


@pytest.fixture
def as_it_was(site: DriverSite) -> Iterator[None]:
    """Every host has :data:`OLD` again, and serves; no driver brings anything with it."""
    yield
    for host in site.gpus:
        until(lambda: not leased(site, host), 70, f"the lease of {host} is over")  # noqa: B023
        site.root(host, "rm -f /opt/fake-gpu/when/*")
        if not installed(site, host) == loaded(site, host) == OLD:
            _bring(site, host)
        site.root(host, "farrier-agent nvml acquire", check=False)  # a test may have ended within
        site.root(host, "farrier-agent act done; farrier-agent ready --all --wait", check=False)
        until(lambda: site.ready(host), 120, f"{host} serves")  # noqa: B023


def _bring(site: DriverSite, host: str) -> None:
    """By hand, as docs/driver.md has it: whatever a rollout has left."""
    before = boot(site, host)
    site.root(host, "systemctl stop engine-tiny", check=False)
    run = site.converge(deploy="deploys/driver.py", limit=[host], timeout=900)
    assert run.returncode == 0, run.last_words()
    site.root(host, "systemctl reboot", check=False)

    def again() -> bool:
        return boot(site, host) not in {"", before}

    until(lambda: _quietly(again), 90, f"{host} is back")


def _quietly(question: Any) -> bool:
    try:
        return bool(question())
    except (OSError, pytest.fail.Exception):
        return False


def brings(site: DriverSite, fault: Fault, hosts: Sequence[str] = ()) -> None:
    """*fault*'s driver brings it on *hosts* (all, if none is named)."""
    for host in hosts or site.gpus:
        comes_with(site, host, fault.version, *fault.lines)
