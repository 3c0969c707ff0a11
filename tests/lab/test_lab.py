"""The lab itself, on a lab of one host of its own (``brief``): up, down, and everything between."""

import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from farrier.lab import Lab, LabError, machines
from farrier.lab.definitions import LABS
from farrier.lab.state import STATE, HostFiles

FARRIER = [sys.executable, "-c", "from farrier.cli import main; main()"]
HOST = "gpu01"


@pytest.fixture(scope="module")
def alone() -> Iterator[None]:
    """No other session of tests is at work on the lab ``brief``."""
    with Path(tempfile.gettempdir(), "farrier-tests-brief.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@pytest.fixture(scope="module")
def brief(alone: None) -> Iterator[Lab]:
    it = Lab.open("brief", report=print)
    it.down()
    it.up()
    yield it
    it.down()


@pytest.fixture
def nothing(alone: None) -> Iterator[Lab]:
    """The lab ``brief``, not up, and taken down afterwards whatever happened."""
    it = Lab.open("brief", report=print)
    it.down()
    yield it
    it.down()


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


def test_a_host_boots_to_the_end_and_has_nothing_failed(brief: Lab) -> None:
    (state,) = Lab.open("brief").status()
    assert (state.booted, state.ssh, state.system, state.failed_units) == (
        True,
        True,
        "running",
        (),
    )
    assert brief.ssh(HOST, "cat /proc/1/comm").stdout == "systemd\n"
    assert brief.ssh(HOST, "hostname").stdout == f"{HOST}\n"
    assert state.uptime is not None
    assert 0 < state.uptime < 600


def test_the_user_is_not_root_and_sudo_asks_nothing(brief: Lab) -> None:
    assert brief.ssh(HOST, "id -un").stdout == "farrier\n"
    assert brief.ssh(HOST, "sudo -n id -u").stdout == "0\n"


@pytest.mark.parametrize(
    "options",
    [("-l", "root"), ("-o", "PubkeyAuthentication=no", "-o", "PreferredAuthentications=password")],
)
def test_root_and_passwords_are_refused(brief: Lab, options: tuple[str, ...]) -> None:
    argv = ["ssh", "-F", str(brief.ssh_config), "-o", "BatchMode=yes", *options, HOST, "true"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 255
    assert "Permission denied (publickey)" in done.stderr


def test_packages_come_from_the_archive(brief: Lab) -> None:
    done = brief.ssh(
        HOST, "sudo apt-get update -q && sudo apt-get install -qy --no-install-recommends jq"
    )
    assert "Setting up jq" in done.stdout
    assert brief.ssh(HOST, "echo '{\"a\": 7}' | jq .a").stdout == "7\n"


def test_hosts_have_the_uplinks_mtu_and_large_packets_pass(brief: Lab) -> None:
    mtu = int(brief.ssh(HOST, "cat /sys/class/net/host0/mtu").stdout)
    assert mtu == int(Path("/sys/class/net", brief.definition.bridge, "mtu").read_text())
    payload = "x" * 1_000_000
    assert brief.ssh(HOST, "cat", input=payload).stdout == payload


def test_the_tiny_model_is_there_for_everybody(brief: Lab) -> None:
    listing = brief.ssh(HOST, "stat -c '%a %U %n' /srv/models/tiny /srv/models/tiny/*").stdout
    assert "755 root /srv/models/tiny\n" in listing
    assert "644 root /srv/models/tiny/config.json\n" in listing
    assert "644 root /srv/models/tiny/model.safetensors\n" in listing


def test_keys_are_private_and_well_formed(brief: Lab) -> None:
    assert brief.keys_file.stat().st_mode & 0o777 == 0o600
    assert brief.user_key.stat().st_mode & 0o777 == 0o600
    assert brief.files.directory.stat().st_mode & 0o777 == 0o700
    keys = tomllib.loads(brief.keys_file.read_text())["keys"]
    assert list(keys) == ["demo"]
    assert re.fullmatch(r"sk-farrier-[A-Za-z0-9_-]{43}", keys["demo"])
    inside = brief.ssh(HOST, "sudo cat /etc/ssh/ssh_host_ed25519_key.pub; ls /etc/ssh").stdout
    assert inside.split()[1] in brief.known_hosts.read_text()
    assert "rsa" not in inside


def test_up_twice_leaves_the_host_alone(brief: Lab) -> None:
    def boot_id() -> str:
        return brief.ssh(HOST, "cat /proc/sys/kernel/random/boot_id").stdout

    before, key = boot_id(), brief.keys_file.read_text()
    Lab.open("brief").up()
    assert (boot_id(), brief.keys_file.read_text()) == (before, key)


def test_a_reboot_is_a_boot_of_the_same_disk(brief: Lab) -> None:
    before = brief.ssh(HOST, "cat /proc/sys/kernel/random/boot_id; echo kept > mark").stdout
    brief.reboot(HOST)
    after = brief.ssh(HOST, "cat /proc/sys/kernel/random/boot_id mark").stdout.splitlines()
    assert after[0] != before.strip()
    assert after[1] == "kept"
    assert brief.status()[0].booted


def test_a_power_off_ends_the_machine_and_up_boots_it_again(brief: Lab) -> None:
    brief.ssh(HOST, "echo kept > mark; sudo systemctl poweroff", check=False)
    until(lambda: not any(machines.processes(brief.files.host(HOST)).values()))
    assert not brief.status()[0].booted
    brief.up()
    assert brief.ssh(HOST, "cat mark").stdout == "kept\n"


def test_a_pulled_cable_is_seen_and_plugged_in_again(brief: Lab) -> None:
    brief.link(HOST, up=False)
    try:
        (state,) = brief.status()
        assert (state.booted, state.ssh) == (True, False)
        done = brief.ssh(HOST, "true", check=False)
        assert done.returncode == 255
    finally:
        brief.link(HOST, up=True)
    until(lambda: brief.status()[0].ssh)


def test_a_changed_host_key_is_refused(brief: Lab) -> None:
    key = "/etc/ssh/ssh_host_ed25519_key"
    try:
        brief.ssh(
            HOST,
            f"sudo cp -p {key} /root/key && sudo rm {key} && "
            f"sudo ssh-keygen -q -t ed25519 -N '' -f {key} && sudo systemctl restart ssh",
        )
        done = brief.ssh(HOST, "true", check=False)
        assert done.returncode == 255
        assert "Host key verification failed" in done.stderr
        began = time.monotonic()
        with pytest.raises(LabError, match="Host key verification failed"):
            Lab.open("brief").up()
        assert time.monotonic() - began < 60  # at once, not after up's patience of 90 s
    finally:
        disk = brief.hosts[0].root
        (disk / "root/key").replace(disk / key.lstrip("/"))
    assert brief.ssh(HOST, "true").returncode == 0


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
    assert "HTTP" in brief.ssh(HOST, "curl -sI --max-time 20 http://deb.debian.org/debian/").stdout


def test_a_lost_bridge_is_made_again_without_a_boot(brief: Lab) -> None:
    before = brief.ssh(HOST, "cat /proc/sys/kernel/random/boot_id").stdout
    command("ip", "link", "delete", brief.definition.bridge)
    brief.up()
    assert brief.ssh(HOST, "cat /proc/sys/kernel/random/boot_id").stdout == before


def test_down_leaves_nothing(nothing: Lab) -> None:
    before = traces()
    nothing.up()
    during = traces()
    for kind in ("mounts", "links", "rules", "processes", "files", "nspawn"):
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
    with subprocess.Popen(
        [*FARRIER, "lab", "up", "--name", "brief"],
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


def test_status_for_programs_and_its_exit_code(nothing: Lab) -> None:
    status = [*FARRIER, "lab", "status", "--name", "brief", "--json"]
    down = subprocess.run(status, capture_output=True, text=True, check=False)
    assert down.returncode == 1
    assert json.loads(down.stdout)["hosts"][0]["booted"] is False
    nothing.up()
    up = subprocess.run(status, capture_output=True, text=True, check=False)
    assert up.returncode == 0
    (host,) = json.loads(up.stdout)["hosts"]
    assert (host["name"], host["address"], host["system"]) == (HOST, "198.18.2.11", "running")
    ssh = [*FARRIER, "lab", "ssh", "--name", "brief", HOST, "exit", "7"]
    assert subprocess.run(ssh, capture_output=True, check=False).returncode == 7
