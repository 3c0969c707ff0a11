"""Up and down, and every disaster between: what is left, what is repaired, what stays."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from farrier.lab import Lab, machines
from farrier.lab.definitions import LABS
from farrier.lab.state import STATE, HostFiles

FARRIER = [sys.executable, "-c", "from farrier.cli import main; main()"]
HOST = "gpu01"


def command(*words: str) -> str:
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout


def traces() -> dict[str, set[str]]:
    """All that a lab could leave on this machine, less what belongs to labs other than brief."""
    foreign = re.compile(
        rf"(fr-|vb-|farrier_|{STATE}/)(?!brief)|nspawn/\w+/(?!brief-)|ip_forward.json"
    )
    processes = []
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            words = (directory / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            mounts = (directory / "mountinfo").read_text()
        except OSError:
            continue
        if "nspawn" in words or "supervisor.py" in words or f"upperdir={STATE}" in mounts:
            root = re.search(rf"^\d+ \d+ \S+ / / .*upperdir=({STATE}/\w+)", mounts, re.MULTILINE)
            processes.append(f"{words} {root[1] if root else ''}")
    seen = {
        "mounts": Path("/proc/self/mounts").read_text().splitlines(),
        "links": re.findall(r"^\d+: ([^:@]+)", command("ip", "-o", "link"), re.MULTILINE),
        "namespaces": command("ip", "netns", "list").splitlines(),
        "rules": command("nft", "list", "tables").splitlines(),
        "processes": [line for line in processes if "upperdir" in line or "brief" in line],
        "cgroups": [str(path) for path in Path("/sys/fs/cgroup").glob("**/*brief*")],
        "nspawn": [str(path) for path in Path("/run/systemd/nspawn").glob("*/*brief*")],
        "files": [str(path) for path in STATE.glob("*")],
        "forwarding": [Path("/proc/sys/net/ipv4/ip_forward").read_text().strip()],
    }
    return {
        kind: {item for item in items if not foreign.search(item)} for kind, items in seen.items()
    }


def kill_all(files: HostFiles) -> None:
    now = machines.processes(files)
    for pid in (*now["supervisor"], *now["nspawn"], *now["guest"]):
        end(pid)


def kill_supervisor(files: HostFiles) -> None:
    for pid in machines.processes(files)["supervisor"]:
        end(pid)


def kill_nspawn(files: HostFiles) -> None:
    for pid in machines.processes(files)["nspawn"]:
        end(pid)


def kill_all_and_take_the_network(files: HostFiles) -> None:
    kill_all(files)
    lab = LABS["brief"]
    command("ip", "link", "delete", lab.bridge)
    command("nft", "delete", "table", "ip", lab.nft_table)


def kill_all_and_leave_the_cable(files: HostFiles) -> None:
    """As where the kernel is slow to take a dead network namespace apart."""
    kill_all(files)
    veth = LABS["brief"].veth(HOST)
    until(lambda: not Path("/sys/class/net", veth).exists())
    command("ip", "link", "add", veth, "type", "veth", "peer", "name", "brief-peer")


def kill_all_and_unmount(files: HostFiles) -> None:
    kill_all(files)
    command("umount", "--lazy", str(files.merged))


def end(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    until(lambda: not Path(f"/proc/{pid}/root/proc").exists())


def until(condition: Callable[[], bool], patience: float = 30) -> None:
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline, f"not within {patience} s"
        time.sleep(0.05)


@pytest.mark.parametrize(
    "disaster",
    [
        kill_all,
        kill_supervisor,
        kill_nspawn,
        kill_all_and_take_the_network,
        kill_all_and_leave_the_cable,
        kill_all_and_unmount,
    ],
    ids=lambda disaster: disaster.__name__,
)
def test_up_repairs_what_a_disaster_left(brief: Lab, disaster: Callable[[HostFiles], None]) -> None:
    brief.ssh(HOST, "echo kept > mark; sync")
    disaster(brief.files.host(HOST))
    assert not brief.status()[0].booted
    brief.up()
    assert brief.ssh(HOST, "cat mark").stdout == "kept\n"
    found = machines.processes(brief.files.host(HOST))
    assert (len(found["supervisor"]), len(found["nspawn"])) == (1, 1)
    # the way out works too
    brief.ssh(HOST, "sudo apt-get -qq -o APT::Update::Error-Mode=any update")


def test_a_lost_bridge_is_made_again_without_a_boot(brief: Lab) -> None:
    before = brief.ssh(HOST, "cat /proc/sys/kernel/random/boot_id").stdout
    command("ip", "link", "delete", brief.definition.bridge)
    brief.up()
    assert brief.ssh(HOST, "cat /proc/sys/kernel/random/boot_id").stdout == before


def test_down_leaves_nothing(nothing: Lab) -> None:
    before = traces()
    nothing.up()
    during = traces()
    for kind in ("mounts", "links", "rules", "processes", "files", "nspawn", "cgroups"):
        assert during[kind] > before[kind], f"the test does not see the lab's {kind}"
    nothing.ssh(HOST, "echo used > mark")
    nothing.down()
    assert traces() == before


def test_down_after_a_disaster_leaves_nothing(nothing: Lab) -> None:
    before = traces()
    nothing.up()
    kill_supervisor(nothing.files.host(HOST))
    nothing.down()
    assert traces() == before


def test_down_when_nothing_is_up_is_fine(nothing: Lab) -> None:
    before = traces()
    nothing.down()
    assert traces() == before


@pytest.mark.parametrize("after", ["base trees", "keys and network", "disks and machines"])
def test_up_interrupted_is_finished_by_up_and_cleared_by_down(nothing: Lab, after: str) -> None:
    before = traces()
    # A shell starts its background jobs, this test's run perhaps, deaf to Ctrl-C.
    with subprocess.Popen(
        ["env", "--default-signal=INT", *FARRIER, "lab", "up", "--name", "brief"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        text=True,
    ) as up:
        assert up.stdout is not None
        while after not in up.stdout.readline():
            assert up.poll() is None
        os.killpg(up.pid, signal.SIGINT)
        assert up.wait(timeout=60) == 1
        said = up.stdout.read()
    assert "Aborted!" in said
    assert "Traceback" not in said
    nothing.up()
    assert nothing.status()[0].system == "running"
    nothing.down()
    assert traces() == before


def test_two_at_once_end_well(nothing: Lab) -> None:
    ups = [
        subprocess.Popen(
            [*FARRIER, "lab", "up", "--name", "brief"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for _ in range(2)
    ]
    said = [up.communicate(timeout=60)[0] for up in ups]
    assert [up.returncode for up in ups] == [0, 0], said
    assert sum("waiting for process" in words for words in said) == 1
    found = machines.processes(nothing.files.host(HOST))
    assert (len(found["supervisor"]), len(found["nspawn"])) == (1, 1)


def test_down_keep_keeps_disks_and_keys(nothing: Lab) -> None:
    before = traces()
    nothing.up()
    nothing.ssh(HOST, "echo kept > mark")
    keys = nothing.keys_file.read_text()
    nothing.down(keep=True)
    assert nothing.hosts == []
    kept = traces()
    assert kept["files"] - before["files"] == {str(nothing.files.directory)}
    assert kept | {"files": before["files"]} == before
    nothing.up()
    assert nothing.ssh(HOST, "cat mark").stdout == "kept\n"
    assert nothing.keys_file.read_text() == keys
