"""The operator's way to hosts, on real ones: whom it trusts, and what it says when it fails.

Every test writes an inventory of its own, read by the real pyinfra, and undoes what it did.
"""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from farrier.fleet import (
    Done,
    HostKeyError,
    LostError,
    NoAnswerError,
    Shell,
    SudoError,
    Target,
    UnreachableError,
    ask_all,
    read_fleet_targets,
)
from farrier.lab import Lab

ROOT = Path(__file__).parents[2]
MARK = "/var/tmp/farrier-shell"


@dataclass
class Site:
    """An operator's project with an inventory of the test's."""

    directory: Path
    lab: Lab
    hosts: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        (self.directory / "inventory/group_data").mkdir(parents=True)
        for name in ("config.py", "inventory/group_data/all.py"):
            (self.directory / name).symlink_to(ROOT / name)

    def address(self, name: str) -> str:
        return str(next(host.address for host in self.lab.hosts if host.name == name))

    def login(self, name: str, **data: Any) -> dict[str, Any]:
        return {
            "ssh_hostname": self.address(name),
            "ssh_user": "farrier",
            "ssh_key": str(self.lab.user_key),
            "ssh_known_hosts_file": str(self.lab.known_hosts),
        } | data

    def targets(self) -> tuple[Target, ...]:
        inventory = f"site = {list(self.hosts.items())!r}\n"
        (self.directory / "inventory/production.py").write_text(inventory)
        return read_fleet_targets().every

    def target(self, name: str, login: str = "", **data: Any) -> Target:
        """The lab's host *name* as an inventory would have it, with *data* on top."""
        self.hosts = {name: self.login(login or name, **data)}
        return self.targets()[0]

    def known_without(self, *hosts: str) -> Path:
        lines = self.lab.known_hosts.read_text().splitlines(keepends=True)
        file = self.directory / "known_hosts"
        file.write_text("".join(line for line in lines if not line.startswith(hosts)))
        return file

    def config(self, text: str, known_hosts: Path | None = None) -> dict[str, Any]:
        """The data of a host that an ssh_config with *text* knows."""
        file = self.directory / "ssh_config"
        file.write_text(
            f"Host *\n    User farrier\n    IdentityFile {self.lab.user_key}\n"
            f"    UserKnownHostsFile {known_hosts or self.lab.known_hosts}\n{text}"
        )
        return {"ssh_config_file": str(file)}


@pytest.fixture
def site(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FARRIER_ENV", raising=False)
    yield Site(tmp_path, lab)
    lab.ssh("gpu01", f"sudo rm -f {MARK}*")


def until(condition: Callable[[], bool], what: str, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"never: {what}"
        time.sleep(0.05)


# whom it trusts


def test_a_key_that_is_not_known_is_refused_and_not_learnt(site: Site) -> None:
    empty = site.directory / "known_hosts"
    empty.touch()
    target = site.target("gpu01", ssh_known_hosts_file=str(empty))
    with Shell(target) as shell, pytest.raises(HostKeyError) as refused:
        shell.run("true")
    assert f"the host key of {site.address('gpu01')} is not in {empty}" in refused.value.what
    assert refused.value.next.startswith("ssh-keyscan -t ed25519 ")
    assert empty.read_text() == "", "nothing is trusted on sight"


def test_a_key_that_changed_is_refused(site: Site) -> None:
    other = site.directory / "other"
    keygen = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(other)]
    subprocess.run(keygen, check=True)
    known = site.directory / "known_hosts"
    known.write_text(f"{site.address('gpu01')} {other.with_suffix('.pub').read_text()}")
    target = site.target("gpu01", ssh_known_hosts_file=str(known))
    with Shell(target) as shell, pytest.raises(HostKeyError) as refused:
        shell.run("true")
    assert "has CHANGED" in refused.value.what
    assert "ssh-keygen -R" in refused.value.next


def test_an_inventory_that_trusts_everybody_is_not_listened_to(site: Site) -> None:
    target = site.target(
        "gpu01", ssh_known_hosts_file="/dev/null", ssh_strict_host_key_checking="no"
    )
    with Shell(target) as shell, pytest.raises(HostKeyError):
        shell.run("true")


def test_known_hosts_with_a_broken_line_say_which(site: Site) -> None:
    known = site.directory / "known_hosts"
    known.write_text(f"gpu09 ssh-ed25519 AAAAB\n{site.lab.known_hosts.read_text()}")
    target = site.target("gpu01", ssh_known_hosts_file=str(known))
    with Shell(target) as shell, pytest.raises(HostKeyError, match="no host key: 'gpu09"):
        shell.run("true")


# ways in


def test_an_alias_in_a_file_that_an_ssh_config_includes(site: Site) -> None:
    included = site.directory / "big"
    included.write_text(f"Host the-big-one\n    HostName {site.address('gpu01')}\n")
    config = site.config(f"Include {included}\n")
    site.hosts = {"the-big-one": config}
    (target,) = site.targets()
    with Shell(target) as shell:
        assert shell.run("uname -n; id -un", sudo=False) == Done(0, "gpu01\nfarrier\n", "")
    assert target.login.ssh.startswith("ssh -F ")


@pytest.mark.parametrize("way", ["ProxyJump {front}", "ProxyCommand {ssh} -W %h:%p gw01"])
def test_a_host_behind_another(site: Site, way: str) -> None:
    front, address = site.address("gw01"), site.address("gpu01")
    how = way.format(front=front, ssh=f"ssh -F {site.lab.ssh_config} -o BatchMode=yes")
    site.hosts = {"gpu01": site.config(f"Host {address}\n    {how}\n") | {"ssh_hostname": address}}
    with Shell(site.targets()[0]) as shell:
        assert shell.run("echo ${SSH_CONNECTION%% *}", sudo=False).stdout == f"{front}\n"


def test_a_jump_host_whose_key_is_not_known_is_refused(site: Site) -> None:
    known = site.known_without("gw01,", site.address("gw01"))
    address = site.address("gpu01")
    jump = f"Host {address}\n    ProxyJump {site.address('gw01')}\n"
    site.hosts = {"gpu01": site.config(jump, known) | {"ssh_hostname": address}}
    with Shell(site.targets()[0]) as shell, pytest.raises(HostKeyError) as refused:
        shell.run("true")
    assert f"the host key of {site.address('gw01')} is not in" in refused.value.what
    assert site.address("gw01") not in known.read_text()


def test_a_jump_host_that_cannot_reach_the_host(site: Site) -> None:
    address = site.address("gpu01")
    jump = f"Host {address}\n    ProxyJump {site.address('gw01')}:22\n    Port 2299\n"
    site.hosts = {"gpu01": site.config(jump) | {"ssh_hostname": address}}
    with Shell(site.targets()[0]) as shell, pytest.raises(UnreachableError) as failed:
        shell.run("true")
    assert "was reached, but it cannot open" in failed.value.what


def test_a_user_who_may_not_sudo(site: Site) -> None:
    user, lab = "visitor", site.lab
    lab.ssh("gpu02", f"sudo useradd -m -s /bin/bash {user}")
    try:
        install = f"sudo install -d -o {user} -m 700 /home/{user}/.ssh && "
        install += f"sudo install -o {user} -m 600 ~/.ssh/authorized_keys /home/{user}/.ssh/"
        lab.ssh("gpu02", install)
        with Shell(site.target("gpu02", ssh_user=user)) as shell:
            assert shell.run("id -un", sudo=False).stdout == f"{user}\n"
            with pytest.raises(SudoError) as refused:
                shell.run(f"touch {MARK}")
        assert "sudo" in refused.value.what
        assert refused.value.next
    finally:
        lab.ssh("gpu02", f"sudo userdel --remove --force {user}")


# commands


def test_commands_and_what_comes_of_them(site: Site) -> None:
    with Shell(site.target("gpu01")) as shell:
        assert shell.run("id -un").stdout == "root\n"
        assert shell.run("cat; echo wörld >&2; exit 7", stdin="grüße".encode()) == Done(
            7, "grüße", "wörld\n"
        )
        heard: list[str] = []
        errors: list[str] = []
        done = shell.run(
            "printf 'one\\ntwo\\nthr'; sleep 0.2; echo ee; printf end >&2",
            on_line=heard.append,
            on_error_line=errors.append,
        )
        assert (heard, errors, done) == (["one", "two", "three"], ["end"], Done(0, "", ""))
        assert len(shell.run("head -c 5000000 /dev/zero | tr '\\0' x").stdout) == 5_000_000
        assert shell.run("kill -9 $$").code != 0
        big = b"y" * 1_000_000
        assert shell.run("wc -c", stdin=big).stdout.split() == ["1000000"]


def test_a_command_that_takes_too_long(site: Site) -> None:
    with Shell(site.target("gpu01")) as shell:
        began = time.monotonic()
        with pytest.raises(NoAnswerError, match=r"no end within 0\.5 s"):
            shell.run("sleep 20", timeout=0.5)
        assert time.monotonic() - began < 5
        assert shell.run("echo on", sudo=False).stdout == "on\n", "the connection is still good"


def test_a_command_on_a_leash_ends_with_who_holds_it(site: Site) -> None:
    shell = Shell(site.target("gpu01"))
    heard: list[str] = []

    def follow() -> None:
        with pytest.raises(LostError):
            shell.run("echo $$; sleep 987; true", on_line=heard.append, leash=True)

    thread = threading.Thread(target=follow)
    thread.start()
    until(lambda: bool(heard), "it began")
    there = f"kill -0 {heard[0]} 2>/dev/null || pgrep -f '[s]leep 987'"
    assert site.lab.ssh("gpu01", f'sudo sh -c "{there}"', check=False).returncode == 0
    shell.close()
    thread.join()
    until(
        lambda: site.lab.ssh("gpu01", f'sudo sh -c "{there}"', check=False).returncode != 0,
        "it ended on the host",
    )


# connections that break


def test_a_lost_connection_is_told_and_the_next_command_connects_anew(site: Site) -> None:
    with Shell(site.target("gpu01")) as shell:
        heard: list[str] = []
        began = threading.Event()

        def cut() -> None:
            began.wait(20)
            site.lab.ssh("gpu01", f"sudo kill -9 {heard[0]}")

        threading.Thread(target=cut).start()

        def line(text: str) -> None:
            heard.append(text)
            began.set()

        # the shell's parent is the sshd of this connection
        command = f"echo $PPID; echo ran >> {MARK}; sleep 60"
        with pytest.raises(LostError, match="the connection was lost"):
            shell.run(command, sudo=False, on_line=line)
        assert shell.run(f"cat {MARK}").stdout == "ran\n", "it was not run again"


def test_a_host_that_freezes_under_a_command_is_noticed(site: Site) -> None:
    target = site.target("gpu01")
    target = replace(target, login=replace(target.login, timeout=2.0))
    with Shell(target, quiet=1.0) as shell:
        sshd = shell.run("echo $PPID", sudo=False).stdout.strip()
        stop = threading.Timer(0.5, site.lab.ssh, ("gpu01", f"sudo kill -STOP {sshd}"))
        stop.start()
        try:
            began = time.monotonic()
            with pytest.raises(LostError):
                shell.run(f"echo ran >> {MARK}; sleep 60", sudo=False)
            assert time.monotonic() - began < 10
            # sshd for a new connection is another one
            assert shell.run(f"cat {MARK}").stdout == "ran\n"
        finally:
            stop.join()
            site.lab.ssh("gpu01", f"sudo kill -CONT {sshd}", check=False)


# many at once


def test_hosts_that_are_down_or_hang_hold_up_nobody(site: Site) -> None:
    site.hosts = {
        "down": site.login("gpu01", ssh_hostname=site.address("gpu01").rsplit(".", 1)[0] + ".99"),
        "mute": site.login("gpu02"),
        "slow": site.login("gpu03"),
        "well": site.login("gpu01"),
        "wrong-port": site.login("gpu01", ssh_port=1),
    }
    site.hosts = dict(sorted(site.hosts.items()))
    targets = site.targets()

    def question(shell: Shell) -> str:
        command = "sleep 60" if shell.target.name == "slow" else "uname -n"
        return shell.run(command, sudo=False).stdout.strip()

    # a listener that does not answer: its kernel still accepts connections. A timer may come a
    # minute late where nothing is said of its accuracy.
    timer = "systemd-run --quiet --on-active=8 --timer-property=AccuracySec=100ms"
    thaw = f"{timer} systemctl kill -s CONT ssh"
    site.lab.ssh("gpu02", f"sudo {thaw} && sudo systemctl kill -s STOP --kill-whom=main ssh")
    try:
        began = time.monotonic()
        said = {one.target.name: one for one in ask_all(targets, question, deadline=5)}
        took = time.monotonic() - began
    finally:
        until(
            lambda: site.lab.ssh("gpu02", "true", check=False).returncode == 0, "gpu02 is back", 30
        )
    assert took < 8
    assert said["well"].value == "gpu01"
    assert said["well"].seconds < 3
    assert {name: type(one.error) for name, one in said.items()} == {
        "down": UnreachableError,
        "mute": NoAnswerError,
        "slow": NoAnswerError,
        "well": type(None),
        "wrong-port": UnreachableError,
    }
    assert next(iter(said)) in {"well", "wrong-port"}, "answers come as they are there"


def test_one_at_a_time_still_comes_to_an_end(site: Site) -> None:
    site.hosts = {"first": site.login("gpu01"), "second": site.login("gpu02")}

    def question(shell: Shell) -> str:
        wait = "sleep 30" if shell.target.name == "first" else "true"
        return shell.run(f"{wait}; uname -n", sudo=False).stdout.strip()

    said = list(ask_all(site.targets(), question, parallel=1, deadline=5))
    assert [one.value for one in said] == [None, "gpu02"]
