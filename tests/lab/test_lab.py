"""One host of a lab as its users meet it; and the lab's command line."""

import json
import re
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from farrier.lab import Lab, LabError, machines

FARRIER = [sys.executable, "-c", "from farrier.cli import main; main()"]
HOST = "gpu01"


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


def test_a_guests_processes_are_in_no_other_guests_cgroups(brief: Lab) -> None:
    """Every guest's systemd removes what it takes for its own, and kills what runs there."""
    guest = machines.processes(brief.files.host(HOST))["guest"]
    assert len(guest) > 5
    for pid in guest:
        lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
        used = [line for line in lines if line.startswith("0::") or ":name=systemd:" in line]
        assert used
        assert all(re.search(r"/farrier-lab[.-]brief-gpu01\b", line) for line in used), used


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


def until(condition: Callable[[], bool], patience: float = 30) -> None:
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline, f"not within {patience} s"
        time.sleep(0.05)
