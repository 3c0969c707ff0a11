"""The agent's unit on real hosts: how far it is hardened, that the agent works so, and reloads."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator

import pytest

from tests.roles.converging import Converge
from tests.roles.fleet import Fleet, until

MOST = 3.0
"""systemd's measure of what a unit leaves open: 10 is everything."""
CONFIG = "/etc/farrier/agent.toml"
RECORDS = "/var/lib/farrier/replicas"


@pytest.mark.parametrize("unit", ["farrier-agent", "farrier-evidence@tiny"])
# a host of the monitor, one with a (stand-in of a) GPU, one without
@pytest.mark.parametrize("host", ["gw01", "gpu02", "gpu03"])
def test_what_the_unit_leaves_open(fleet: Fleet, host: str, unit: str) -> None:
    if host == "gw01" and unit != "farrier-agent":
        assert (
            fleet.root(host, "ls /etc/systemd/system/farrier-evidence@.service", check=False) == ""
        )
        return
    said = fleet.root(host, f"systemd-analyze security --no-pager {unit}")
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", said)
    assert found, said
    assert float(found[1]) <= MOST, said


@pytest.mark.parametrize("host", ["gpu02", "gpu03"])
def test_the_agent_works_as_it_is_hardened(fleet: Fleet, host: str) -> None:
    # D-Bus: a unit that is no replica's
    units = {unit["name"]: unit["active_state"] for unit in fleet.status(host)["units"]}
    assert units["nginx.service"] == "active"
    # its record is of this boot, as root's programs see it
    record = json.loads(fleet.root(host, f"cat {RECORDS}/tiny.json"))
    assert record["boot_id"] == fleet.ssh(host, "cat /proc/sys/kernel/random/boot_id").strip()
    # NVML, through the device list of a host with GPUs
    if host == "gpu02":
        assert "farrier_gpu_temperature_celsius" in fleet.metrics(host)
    # sock_diag: another user's sockets, while they are there
    stream = threading.Thread(
        target=fleet.chat, args=(host,), kwargs={"stream": True, "max_tokens": 200}
    )
    stream.start()
    try:
        until(
            lambda: fleet.status(host)["replicas"][0]["in_flight"] == 1, 20, "it counts a request"
        )
    finally:
        stream.join()
    until(lambda: fleet.status(host)["replicas"][0]["in_flight"] == 0, 20, "and its end")
    # the journal, which it writes with fields and may read
    entries = fleet.root(
        host, "journalctl -q -u farrier-agent -o json -n 400 --no-pager"
    ).splitlines()
    assert any(json.loads(entry).get("FARRIER_REPLICA") == "tiny" for entry in entries)
    assert "tiny" in fleet.ssh(host, "sudo farrier-agent journal tiny --lines 5")
    # no call that its filter refuses is one that it makes
    denied = "journalctl -q -k --no-pager --grep 'SECCOMP.*farrier' 2>/dev/null | head -n 3"
    assert fleet.root(host, denied, check=False) == ""


def test_whom_the_control_socket_is_for(fleet: Fleet) -> None:
    """Root and the group farrier; everybody else is turned away by the file's mode."""
    host = "gpu03"
    socket = fleet.root(host, "stat -c '%A %U %G' /run/farrier/agent/control.sock")
    assert socket == "srw-rw---- farrier-agent farrier\n"
    fleet.root(host, "useradd --system probe-operator; usermod -aG farrier probe-operator")
    try:
        for user in ("root", "probe-operator"):
            said = fleet.root(host, f"runuser -u {user} -- farrier-agent ready tiny 2>&1")
            assert "tiny" in said, (user, said)
        refused = fleet.root(
            host, "runuser -u www-data -- farrier-agent drain tiny 2>&1", check=False
        )
        assert "for the members of its group" in refused
        assert fleet.gate(host)
    finally:
        fleet.root(host, "userdel probe-operator")


@pytest.fixture
def config(fleet: Fleet) -> Iterator[str]:
    """The content of agent.toml on gpu02, put back afterwards."""
    good = fleet.root("gpu02", f"cat {CONFIG}")
    yield good
    fleet.put("gpu02", CONFIG, good)
    fleet.root("gpu02", "systemctl reload-or-restart farrier-agent")


def test_a_reload_takes_a_good_file_and_refuses_a_bad_one(fleet: Fleet, config: str) -> None:
    host = "gpu02"
    pid = fleet.unit(host, "farrier-agent", "MainPID")
    gate = fleet.ssh(host, "stat -c '%i %Z' /run/farrier/open/tiny")

    fleet.put(host, CONFIG, re.sub(r"(?m)^tick = .*$", 'tick = "soon"', config))
    said = fleet.root(host, "systemctl reload farrier-agent 2>&1; echo status $?")
    assert "status 1" in said
    told = fleet.root(host, "systemctl status --no-pager farrier-agent", check=False)
    assert f"farrier-agent: {CONFIG}: Expected `float`, got `str` - at `$.tick`" in told
    assert fleet.unit(host, "farrier-agent", "ActiveState") == "active"
    assert fleet.ready(host)

    fleet.put(host, CONFIG, config.replace('host = "gpu02"', 'host = "renamed"'))
    fleet.root(host, "systemctl reload farrier-agent")
    until(lambda: fleet.status(host)["host"] == "renamed", 20, "the new file is read")
    until(lambda: fleet.ready(host), 20, "and it is ready as before")
    assert fleet.unit(host, "farrier-agent", "MainPID") == pid
    assert fleet.ssh(host, "stat -c '%i %Z' /run/farrier/open/tiny") == gate


def test_directories_of_an_older_version_come_right(fleet: Fleet, converge: Converge) -> None:
    """There root's programs made them, for root alone; what they hold is kept."""
    host = "gpu03"
    gate = fleet.ssh(host, "stat -c '%i %Z' /run/farrier/open/tiny")
    engine = fleet.unit(host, "engine-tiny", "InvocationID")
    evidence = "/var/lib/farrier/evidence"
    fleet.root(
        host,
        "systemctl stop farrier-agent;"
        f" chown -R root:root {RECORDS} {evidence}; chmod 700 {RECORDS} {evidence};"
        f" chmod 600 {RECORDS}/*; echo kept > {evidence}/note; gpasswd -d farrier-agent farrier",
    )
    before = fleet.root(host, f"cat {RECORDS}/tiny.json")
    run = converge(limit=[host])
    assert run.returncode == 0, run.last_words()
    assert run.changed(host) == ["Base | User and run-time directories", "Agent | Service"]
    stat = fleet.root(host, f"stat -c '%a %U %G' {RECORDS} {evidence}")
    assert stat == "750 farrier-agent farrier-agent\n750 root farrier-agent\n"
    assert "farrier" in fleet.ssh(host, "id -nG farrier-agent").split()
    assert fleet.root(host, f"cat {evidence}/note; rm {evidence}/note") == "kept\n"
    assert json.loads(fleet.root(host, f"cat {RECORDS}/tiny.json")) == json.loads(before)
    assert fleet.ssh(host, "stat -c '%i %Z' /run/farrier/open/tiny") == gate
    assert fleet.unit(host, "engine-tiny", "InvocationID") == engine
    # the agent may lock and replace what root's program has written meanwhile, and the other way
    fleet.root(host, "systemctl restart engine-tiny")
    until(lambda: fleet.gate(host), 60, "it serves again")
    assert json.loads(fleet.root(host, f"cat {RECORDS}/tiny.json"))["phase"] == "ready"
    unread = f"find {RECORDS} -type f ! -user farrier-agent ! -perm -044"
    assert fleet.root(host, unread) == ""
    again = converge(limit=[host])
    assert (again.returncode, again.changed(host)) == (0, []), again.last_words()
