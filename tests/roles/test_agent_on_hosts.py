"""The agent as it is installed: its environment, its unit, and what it tells who is logged in."""

from __future__ import annotations

import json
import re

import pytest

from tests.roles.fleet import Fleet, until

HOSTS = ("gpu01", "gpu02", "gpu03", "gw01")
CURRENT = "/opt/farrier/agent/current"

WHERE = """
import json, sys
import farrier_agent, msgspec, prometheus_client, pynvml, systemd.daemon, yaml
modules = (farrier_agent, msgspec, prometheus_client, pynvml, systemd.daemon, yaml)
print(json.dumps({module.__name__: module.__file__ for module in modules} | {"prefix": sys.prefix}))
"""


@pytest.mark.parametrize("host", HOSTS)
def test_its_environment_is_its_own_but_for_systemds_binding(fleet: Fleet, host: str) -> None:
    version = fleet.ssh(host, f"readlink {CURRENT}").strip()
    home = f"/opt/farrier/agent/{version}"
    assert re.fullmatch(r"\d+\.\d+\.\d+-[0-9a-f]{8}", version)
    # what the host's own Python has under the same name must not be seen
    poison = "/usr/lib/python3/dist-packages/msgspec.py"
    fleet.root(host, f"echo 'raise SystemExit(\"the host\\047s own\")' > {poison}")
    try:
        found = json.loads(fleet.ssh(host, f"{home}/bin/python -", stdin=WHERE))
    finally:
        fleet.root(host, f"rm {poison}")
    assert found.pop("prefix") == home
    assert found.pop("systemd.daemon").startswith("/usr/lib/python3/dist-packages/")
    for module, path in found.items():
        assert path.startswith(f"{home}/lib/"), module
    assert "include-system-site-packages = false" in fleet.ssh(host, f"cat {home}/pyvenv.cfg")
    assert fleet.ssh(host, f"cat {home}/lib/*/site-packages/farrier-host.pth") == (
        "/usr/lib/python3/dist-packages\n"
    )
    # nothing that could fetch something is left on the host
    assert fleet.ssh(host, f"ls {home}/bin/pip {home}/bin/uv 2>/dev/null", check=False) == ""
    assert fleet.root(host, "ls -d /opt/farrier/*/*.filling 2>/dev/null", check=False) == ""


@pytest.mark.parametrize("host", HOSTS)
def test_systemd_hears_from_it(fleet: Fleet, host: str) -> None:
    def shown(name: str) -> str:
        return fleet.unit(host, "farrier-agent", name)

    assert (shown("Type"), shown("ActiveState")) == ("notify", "active")
    assert shown("WatchdogUSec") == "30s"
    assert shown("StatusText") == "ready"
    fed = int(shown("WatchdogTimestampMonotonic"))
    assert fed > 0
    until(lambda: int(shown("WatchdogTimestampMonotonic")) > fed, 25, "the watchdog is fed")
    assert shown("ExecMainStatus") == "0"


def test_an_agent_that_hangs_is_ended_by_the_watchdog_and_touches_no_gate(fleet: Fleet) -> None:
    """The unit's own 30 s, shortened by a drop-in: what is looked at is that it acts at all."""
    host, drop_in = "gpu03", "/run/systemd/system/farrier-agent.service.d/short.conf"
    fleet.put(host, drop_in, "[Service]\nWatchdogSec=3\n")
    try:
        fleet.root(host, "systemctl daemon-reload && systemctl restart farrier-agent")
        before = fleet.unit(host, "farrier-agent", "MainPID")
        fleet.root(host, f"kill -STOP {before}")
        until(
            lambda: fleet.unit(host, "farrier-agent", "MainPID") not in {"0", before},
            20,
            "systemd ends the agent that hangs and starts it anew",
        )
        assert fleet.gate(host)
        journal = fleet.root(host, "journalctl -q -u farrier-agent -n 50 --no-pager -o cat")
        assert "Watchdog timeout" in journal
    finally:
        fleet.root(host, f"rm {drop_in} && systemctl daemon-reload")
        fleet.root(host, "systemctl restart farrier-agent")
    until(lambda: fleet.ready(host), 15, "the agent is ready")


def test_anybody_on_the_host_may_ask_it(fleet: Fleet) -> None:
    """By the sudo user, without sudo."""
    real = fleet.ssh("gpu01", "farrier-agent status").splitlines()
    assert re.fullmatch(r"gpu01: ready \(agent \S+, cpu\)", real[0])
    rows = [line.split() for line in real if line.startswith(("REPLICA", "tiny"))]
    assert rows[0][:2] == ["REPLICA", "MODEL"]
    assert rows[1][:3] == ["tiny", "tiny", "vllm"]
    assert "open" in rows[1]

    gpu = fleet.ssh("gpu02", "farrier-agent status")
    assert "gpu02: ready" in gpu
    assert "cuda" in gpu
    assert re.search(r"^0 +NVIDIA H200 ", gpu, re.MULTILINE)

    monitor = fleet.ssh("gw01", "farrier-agent status")
    assert "gw01: ready" in monitor
    assert "REPLICA" not in monitor
    assert "GPU" not in monitor
