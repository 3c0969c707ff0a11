"""Operators' ways of reaching their machines, each with the real ``pyinfra`` on real hosts.

Another port, an alias of an ssh_config, a jump host, sudo with a password; and what is said when
it does not work. Every test writes an inventory of its own and undoes what it did to the host.
"""

from __future__ import annotations

import os
import pty
import re
import select
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from farrier.lab import Lab

ROOT = Path(__file__).parents[2]
PYINFRA = Path(sys.executable).with_name("pyinfra")
PATIENCE = 60
MARK = "/var/tmp/farrier-habit"
PASSWORD = "correct-horse-7"

MARKING = f"""\
from pyinfra import host
from pyinfra.operations import files, server

server.shell(
    name="Who came from where",
    commands=["echo ${{SSH_CONNECTION%% *}} > {MARK}-from-" + host.name],
)
files.line(
    name="Leave a mark",
    path="{MARK}-" + host.name,
    line="was here",
    _sudo=host.data.get("with_sudo", False),
)
"""


@dataclass
class Site:
    """An operator's project: its inventory, and ``pyinfra`` run in it."""

    directory: Path
    lab: Lab
    hosts: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        (self.directory / "inventory/group_data").mkdir(parents=True)
        for name in ("config.py", "inventory/group_data/all.py"):
            (self.directory / name).symlink_to(ROOT / name)
        (self.directory / "deploy.py").write_text(MARKING)

    def address(self, name: str) -> str:
        return str(next(host.address for host in self.lab.hosts if host.name == name))

    def login(self, name: str, **data: Any) -> dict[str, Any]:
        """The usual data of the lab's host *name*, with *data* on top."""
        return {
            "ssh_hostname": self.address(name),
            "ssh_user": "farrier",
            "ssh_key": str(self.lab.user_key),
            "ssh_known_hosts_file": str(self.lab.known_hosts),
        } | data

    def argv(self, *options: str) -> list[str]:
        inventory = f"site = {list(self.hosts.items())!r}\n"
        (self.directory / "inventory/production.py").write_text(inventory)
        return [str(PYINFRA), "-y", *options, "inventory", "deploy.py"]

    def run(self, *options: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.argv(*options),
            cwd=self.directory,
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # no terminal to ask at
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )

    def type(self, answer: str, *options: str) -> tuple[int, str, int]:
        """Run at a terminal and type *answer* at every prompt: exit code, output, prompts."""
        return at_terminal(self.argv(*options), self.directory, answer)

    def read(self, host: str, path: str) -> str:
        return self.lab.ssh(host, f"sudo cat {path}").stdout.strip()


def at_terminal(argv: list[str], directory: Path, answer: str) -> tuple[int, str, int]:
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(directory)
        os.execv(argv[0], argv)  # noqa: S606 - sudo's password is asked for at /dev/tty
    output, prompts, deadline = "", 0, time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if not select.select([terminal], [], [], 1)[0]:
            continue
        try:
            output += os.read(terminal, 65536).decode(errors="replace")
        except OSError:  # EIO: the other end is closed
            break
        while output.count("password: ") > prompts:
            prompts += 1
            os.write(terminal, f"{answer}\n".encode())
    else:
        os.kill(pid, 9)
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), output, prompts


@pytest.fixture
def site(lab: Lab, tmp_path: Path) -> Iterator[Site]:
    yield Site(tmp_path, lab)
    for host in ("gpu01", "gpu02"):
        # sshd may be starting anew: a reload of it refuses connections for a moment
        wait_for(lab, host, f"sudo rm -f {MARK}*")


Undo = Callable[[str, str], None]


@pytest.fixture
def undo(lab: Lab) -> Iterator[Undo]:
    """``undo(host, command)`` runs the command on the host when the test is over."""
    commands: list[tuple[str, str]] = []
    yield lambda host, command: commands.append((host, command))
    for host, command in reversed(commands):
        wait_for(lab, host, command)


def wait_for(lab: Lab, host: str, condition: str) -> None:
    deadline = time.monotonic() + 20
    while lab.ssh(host, condition, check=False).returncode:
        assert time.monotonic() < deadline, f"{host}: never true: {condition}"
        time.sleep(0.1)


# ways in


def test_another_port(site: Site, undo: Undo) -> None:
    drop_in = "/etc/ssh/sshd_config.d/habit.conf"
    undo("gpu01", f"sudo rm -f {drop_in} && sudo systemctl reload ssh")
    site.lab.ssh(
        "gpu01",
        f"printf 'Port 22\\nPort 2222\\n' | sudo tee {drop_in} && sudo systemctl reload ssh",
    )
    wait_for(site.lab, "gpu01", "ss -Hltn 'sport = :2222' | grep -q .")
    known_hosts = site.directory / "known_hosts"
    known_hosts.touch()
    site.hosts["gpu01"] = site.login("gpu01", ssh_port=2222, ssh_known_hosts_file=str(known_hosts))
    # the key is known for port 22 only, as for anybody who moves the port
    first = site.run()
    assert first.returncode == 1
    assert f"the host key of [{site.address('gpu01')}]:2222 is not in {known_hosts}" in first.stderr
    assert known_hosts.read_text() == "", "nothing is trusted on sight"
    step = re.search(r"next: (ssh-keyscan .*)", first.stderr)
    assert step
    shown = subprocess.run(["sh", "-c", step[1]], capture_output=True, text=True, check=True).stdout
    own = site.lab.ssh("gpu01", "ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub").stdout
    assert own.split()[1] in shown, "the step shows the fingerprint that the console shows"

    second = site.run()
    assert second.returncode == 0, second.stderr
    assert site.read("gpu01", f"{MARK}-gpu01") == "was here"


def test_an_alias_of_an_ssh_config(site: Site) -> None:
    config = site.directory / "ssh_config"
    config.write_text(
        f"Host the-big-one\n"
        f"    HostName {site.address('gpu01')}\n"
        f"    User farrier\n"
        f"    IdentityFile {site.lab.user_key}\n"
        f"    StrictHostKeyChecking no\n"
        f"    UserKnownHostsFile {site.lab.known_hosts}\n"
    )
    site.hosts["the-big-one"] = {"ssh_config_file": str(config)}
    done = site.run()
    assert done.returncode == 0, done.stderr
    assert site.read("gpu01", f"{MARK}-the-big-one") == "was here"

    # its "no" does not count: an unknown key is refused all the same
    config.write_text(config.read_text().replace(str(site.lab.known_hosts), "/dev/null"))
    refused = site.run()
    assert refused.returncode == 1
    assert "is not in /dev/null" in refused.stderr


def jump_config(site: Site, known_hosts: Path) -> Path:
    config = site.directory / "ssh_config"
    config.write_text(
        f"Host *\n"
        f"    User farrier\n"
        f"    IdentityFile {site.lab.user_key}\n"
        f"    UserKnownHostsFile {known_hosts}\n"
        f"Host front\n"
        f"    HostName {site.address('gw01')}\n"
        f"Host inner\n"
        f"    HostName {site.address('gpu01')}\n"
        f"    ProxyJump {site.address('gw01')}\n"
    )
    return config


def test_a_jump_host(site: Site) -> None:
    site.hosts["inner"] = {"ssh_config_file": str(jump_config(site, site.lab.known_hosts))}
    done = site.run()
    assert done.returncode == 0, done.stderr
    assert site.read("gpu01", f"{MARK}-from-inner") == site.address("gw01")


def test_a_jump_host_whose_key_is_unknown_is_refused_without_a_question(site: Site) -> None:
    known_hosts = site.directory / "known_hosts"
    lines = site.lab.known_hosts.read_text().splitlines(keepends=True)
    known_hosts.write_text("".join(line for line in lines if not line.startswith("gw01,")))
    site.hosts["inner"] = {"ssh_config_file": str(jump_config(site, known_hosts))}
    done = site.run()
    assert done.returncode == 1
    assert f"cannot connect: the host key of {site.address('gw01')} is not in" in done.stderr
    assert site.address("gw01") not in known_hosts.read_text()


def test_a_jump_host_that_cannot_reach_the_host(site: Site) -> None:
    config = jump_config(site, site.lab.known_hosts)
    config.write_text(config.read_text() + "    Port 2299\n")
    site.hosts["inner"] = {"ssh_config_file": str(config)}
    done = site.run()
    assert done.returncode == 1
    assert f"the jump host {site.address('gw01')} was reached, but it cannot open" in done.stderr


# sudo


@pytest.fixture
def with_password(site: Site, undo: Undo) -> str:
    """A user of gpu02 who has to type a password for sudo."""
    return make_user(site.lab, undo, "typist", "sudo")


def make_user(lab: Lab, undo: Undo, user: str, group: str) -> str:
    # a reboot-proof test: the user may be there from a run that was killed
    undo("gpu02", f"sudo userdel --remove --force {user} 2>/dev/null; true")
    lab.ssh("gpu02", f"id {user} >/dev/null 2>&1 || sudo useradd -m -s /bin/bash {user}")
    lab.ssh("gpu02", f"sudo usermod -aG {group} {user} && sudo chpasswd", f"{user}:{PASSWORD}\n")
    lab.ssh(
        "gpu02",
        f"sudo install -d -o {user} -m 700 /home/{user}/.ssh && "
        f"sudo install -o {user} -m 600 ~/.ssh/authorized_keys /home/{user}/.ssh/",
    )
    return user


def test_a_sudo_password_is_asked_for(site: Site, with_password: str) -> None:
    site.hosts["gpu02"] = site.login("gpu02", ssh_user=with_password, with_sudo=True)
    code, output, prompts = site.type(PASSWORD)
    assert code == 0, output
    assert prompts == 1, "asked once, however many commands follow"
    assert PASSWORD not in output
    owner = site.lab.ssh("gpu02", f"stat -c %U {MARK}-gpu02").stdout.strip()
    assert owner == "root"


def test_a_sudo_password_is_in_no_process_list_and_no_file_afterwards(
    site: Site, with_password: str
) -> None:
    site.hosts["gpu02"] = site.login("gpu02", ssh_user=with_password, with_sudo=True)
    seen, stop = f"{MARK}-seen", f"{MARK}-stop"
    look = f"cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n' >> {seen}"
    watch = f"touch {seen}; while [ ! -e {stop} ]; do {look}; done"
    watcher = subprocess.Popen(
        ["ssh", "-F", str(site.lab.ssh_config), "gpu02", f"sudo bash -c {shlex.quote(watch)}"]
    )
    try:
        wait_for(site.lab, "gpu02", f"test -s {seen}")
        code, output, _ = site.type(PASSWORD)
    finally:
        site.lab.ssh("gpu02", f"touch {stop}")
        watcher.wait(PATIENCE)
    assert code == 0, output
    counted = f"sudo grep -c -e {{}} {seen} || true"
    assert int(site.lab.ssh("gpu02", counted.format("SUDO_ASKPASS=")).stdout) > 0, "it watched"
    assert int(site.lab.ssh("gpu02", counted.format(PASSWORD)).stdout) == 0
    left = "sudo find /tmp /dev/shm /run/user /home -name '*askpass*'"
    assert site.lab.ssh("gpu02", left).stdout == ""


def test_one_sudo_password_for_all_hosts(site: Site, with_password: str) -> None:
    site.hosts["gpu01"] = site.login("gpu01", with_sudo=True)
    site.hosts["gpu02"] = site.login("gpu02", ssh_user=with_password, with_sudo=True)
    code, output, prompts = site.type(PASSWORD, "--same-sudo-password")
    assert code == 0, output
    assert prompts == 1
    assert site.read("gpu02", f"{MARK}-gpu02") == "was here"


def test_a_wrong_sudo_password(site: Site, with_password: str) -> None:
    site.hosts["gpu02"] = site.login("gpu02", ssh_user=with_password, with_sudo=True)
    code, output, _ = site.type("wrong")
    assert code == 1
    assert f"sudo refused the password ({with_password})" in output
    assert "next: " in output
    assert "Traceback" not in output


def test_a_sudo_password_and_nobody_to_ask(site: Site, with_password: str) -> None:
    site.hosts["gpu01"] = site.login("gpu01", with_sudo=True)
    site.hosts["gpu02"] = site.login("gpu02", ssh_user=with_password, with_sudo=True)
    done = site.run()
    assert done.returncode == 1
    assert f"sudo wants a password and nobody typed one ({with_password})" in done.stderr
    assert "--same-sudo-password" in done.stderr
    assert "Traceback" not in done.stderr
    assert site.read("gpu01", f"{MARK}-gpu01") == "was here", "the others go on"


def test_a_user_who_may_not_sudo(site: Site, undo: Undo) -> None:
    user = make_user(site.lab, undo, "visitor", "users")
    site.hosts["gpu02"] = site.login("gpu02", ssh_user=user, with_sudo=True)
    code, output, _ = site.type(PASSWORD)
    assert code == 1
    assert f"sudo refuses this user ({user})" in output
    assert f"usermod -aG sudo {user}" in output


# when it does not work


def test_a_good_host_is_converged_beside_one_that_cannot_be_reached(site: Site) -> None:
    nobody = str(site.lab.network.network_address + 77)
    site.hosts["gpu01"] = site.login("gpu01")
    site.hosts["lost"] = site.login("gpu01", ssh_hostname=nobody)
    done = site.run()
    assert done.returncode == 1
    assert f"[lost]  cannot connect: no route to {nobody} port 22" in done.stderr
    assert f"next: ip route get {nobody}" in done.stderr
    assert site.read("gpu01", f"{MARK}-gpu01") == "was here"


@pytest.mark.parametrize("with_good_host", [True, False])
def test_a_wrong_host_key_is_refused(site: Site, with_good_host: bool) -> None:
    address = site.address("gpu02")
    other = next(
        line.split(None, 1)[1]
        for line in site.lab.known_hosts.read_text().splitlines()
        if line.startswith("gpu01,")
    )
    known_hosts = site.directory / "known_hosts"
    known_hosts.write_text(f"{address} {other}\n")
    site.hosts["gpu02"] = site.login("gpu02", ssh_known_hosts_file=str(known_hosts))
    if with_good_host:
        site.hosts["gpu01"] = site.login("gpu01")
    done = site.run()
    assert done.returncode == 1
    assert f"cannot connect: the host key of {address} has CHANGED" in done.stderr
    assert f"ssh-keygen -R {address} -f {known_hosts}" in done.stderr
    assert known_hosts.read_text() == f"{address} {other}\n"
    assert site.lab.ssh("gpu02", f"ls {MARK}*", check=False).returncode != 0
    if with_good_host:
        assert site.read("gpu01", f"{MARK}-gpu01") == "was here"


def test_a_login_that_is_refused_can_be_tried_by_hand(site: Site) -> None:
    site.hosts["gpu01"] = site.login("gpu01", ssh_user="stranger")
    done = site.run()
    assert done.returncode == 1
    assert "refused the login of stranger with the key" in done.stderr
    step = re.search(r"next: (ssh .* true)", done.stderr)
    assert step
    words = shlex.split(step[1])
    strict = ["-F", str(site.lab.ssh_config), "-o", "BatchMode=yes"]
    tried = subprocess.run([words[0], *strict, *words[1:]], capture_output=True, check=False)
    assert b"Permission denied" in tried.stderr, "the same answer, from ssh itself"


def test_a_server_that_has_only_sha1(site: Site, undo: Undo) -> None:
    run = "/run/habit-sha1"
    undo("gpu01", f"sudo kill $(sudo cat {run}/pid); sudo rm -rf {run}")
    site.lab.ssh(
        "gpu01",
        f"sudo mkdir -p {run} && sudo ssh-keygen -q -t rsa -b 2048 -N '' -f {run}/key <<< y && "
        f"printf '%s\\n' 'Port 2223' 'HostKey {run}/key' 'HostKeyAlgorithms ssh-rsa' "
        f"'PidFile {run}/pid' | sudo tee {run}/config && sudo /usr/sbin/sshd -f {run}/config",
    )
    wait_for(site.lab, "gpu01", f"sudo test -s {run}/pid")
    site.hosts["gpu01"] = site.login("gpu01", ssh_port=2223)
    done = site.run()
    assert done.returncode == 1
    assert "offers only algorithms that are refused here, SHA-1 among them" in done.stderr


# what is in force


def test_connections_are_strict_quick_and_modern(site: Site) -> None:
    site.hosts["gpu01"] = site.login("gpu01")
    (site.directory / "deploy.py").write_text(
        "import socket\n"
        "from pyinfra import host\n"
        "transport = host.connector.client.get_transport()\n"
        "print('NODELAY', transport.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))\n"
        "print('KEY', transport.host_key_type)\n"
        "print('STRICT', host.connector.data['ssh_strict_host_key_checking'])\n"
    )
    done = site.run()
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["NODELAY", "1", "KEY", "ssh-ed25519", "STRICT", "yes"]
