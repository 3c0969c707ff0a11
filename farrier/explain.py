"""From what SSH, sudo and the resolver raise to a sentence for the operator.

Pure: an exception or a program's last words go in, text comes out, with the cause, what it may
mean and the next command to type. :mod:`farrier.inventory` puts it into pyinfra's output.
"""

from __future__ import annotations

import errno
import re
import socket
from collections.abc import Callable
from dataclasses import dataclass
from shlex import quote
from typing import Any

import paramiko
from paramiko.ssh_exception import IncompatiblePeer, NoValidConnectionsError

__all__ = ["COMPARE", "NEXT", "Target", "explain_connect", "explain_sudo", "root_cause"]

NEXT = "\n        next: "
"""Between cause and step: a line of its own, indented under pyinfra's ``[host]``."""

_UNKNOWN_KEY = re.compile(r"No host key for (\S+) found in known_hosts")
_BRACKETED = re.compile(r"\[(?P<host>[^]]+)\]:(?P<port>\d+)")


@dataclass(frozen=True)
class Target:
    """The host one tried to reach, as far as it is known.

    ``hostname`` is what was given to SSH: an address, a name or an alias of ``ssh_config``, which
    is a path or empty. ``known_hosts`` is the file that was consulted. ``jump`` is the ProxyJump
    of the ssh_config, or empty.
    """

    hostname: str
    port: int = 22
    user: str = ""
    known_hosts: str = "~/.ssh/known_hosts"
    ssh_config: str = ""
    key: str = ""
    jump: str = ""
    timeout: float = 10.0

    @property
    def ssh(self) -> str:
        """The ssh command that makes the same connection."""
        words = ["ssh"]
        if self.ssh_config:
            words += ["-F", _path(self.ssh_config)]
        if self.port != 22:
            words += ["-p", str(self.port)]
        if self.key:
            words += ["-i", _path(self.key)]
        words.append(f"{self.user}@{self.hostname}" if self.user else self.hostname)
        return " ".join(words)

    @property
    def place(self) -> str:
        """Address and port in words, with the way to it."""
        through = f" (through {self.jump})" if self.jump else ""
        return f"{self.hostname} port {self.port}{through}"


def root_cause(error: BaseException) -> BaseException:
    """The exception at the start of *error*'s chain."""
    while (earlier := error.__cause__ or error.__context__) is not None:
        error = earlier
    return error


def explain_connect(error: BaseException, target: Target) -> str:
    """Why *target* could not be reached, and the next step. *error* is the root cause."""
    explain = next(how for kind, how in _EXPLANATIONS if isinstance(error, kind))
    cause, step = explain(error, target)
    return f"cannot connect: {cause}{NEXT}{step}"


def explain_sudo(output: str, user: str = "") -> str | None:
    """What sudo complained of in *output*, with the next step; None if it did not complain."""
    for pattern, cause, step in _SUDO:
        if pattern.search(output):
            who = f" ({user})" if user else ""
            return f"{cause}{who}{NEXT}{step.replace('USER', user or 'USER')}"
    return None


Explanation = tuple[str, str]
"""A cause and the next step."""


def _unresolved(_error: Any, target: Target) -> Explanation:
    return (
        f"the name {target.hostname!r} does not resolve: misspelt, or an alias of an ssh_config "
        "that ssh_config_file does not name, or no DNS",
        f"getent hosts {quote(target.hostname)}   (or give the host ssh_hostname)",
    )


def _unreachable(error: Any, target: Target) -> Explanation:
    if isinstance(error, NoValidConnectionsError):
        error = next(iter(error.errors.values()), error)
    ping = f"ping -c 3 {quote(target.hostname)}"
    if isinstance(error, TimeoutError):
        return (
            f"no answer from {target.place} within {target.timeout:g} s: the host is down, the "
            "address is wrong, or a firewall drops packets",
            ping,
        )
    if error.errno == errno.ECONNREFUSED:
        return (
            f"{target.place} refuses: the host is up and nothing listens there, so sshd is not "
            "running or has another port",
            "on the host: systemctl status ssh; its port goes into ssh_port",
        )
    if error.errno in (errno.EHOSTUNREACH, errno.ENETUNREACH):
        return (
            f"no route to {target.place}: the host is down, or its network is not reachable from "
            "here",
            f"ip route get {quote(target.hostname)}; {ping}",
        )
    return f"{target.place}: {error.strerror or error}", f"{target.ssh} true"


def _closed(_error: Any, target: Target) -> Explanation:
    return (
        f"{target.place} closed the connection, or a question could not be asked because there is "
        "no terminal",
        f"{target.ssh} true",
    )


def _refused_login(_error: Any, target: Target) -> Explanation:
    key = f"the key {target.key}" if target.key else "your agent's and ~/.ssh's keys"
    hop = f", or {target.jump} did" if target.jump else ""
    return (
        f"{target.place} refused the login of {target.user or 'this user'} with {key}{hop}; "
        "ssh_user and ssh_key say who logs in",
        f"{target.ssh} true   (installs a key: ssh-copy-id)",
    )


def _locked_key(_error: Any, target: Target) -> Explanation:
    return (
        "the private key is encrypted and nobody is there to ask for its passphrase",
        f"ssh-add {_path(target.key) or 'KEYFILE'}   (or set ssh_key_password)",
    )


def _old_algorithms(error: Any, target: Target) -> Explanation:
    return (
        f"{target.place} offers only algorithms that are refused here, SHA-1 among them ({error})",
        "on the host: sudo ssh-keygen -A && sudo systemctl restart ssh   (makes an ed25519 key)",
    )


def _no_way_on(error: Any, target: Target) -> Explanation:
    return (
        f"the jump host {target.jump or '(ProxyJump)'} was reached, but it cannot open "
        f"{target.hostname} port {target.port}: {error.text}",
        f"{target.ssh} true",
    )


def _changed_key(error: Any, target: Target) -> Explanation:
    host, port = _split(error.hostname)
    if port == 22 and host == target.hostname:
        port = target.port
    file = _known_hosts_of(host, target)
    return (
        f"the host key of {_joined(host, port)} has CHANGED, {error.key.fingerprint} instead of "
        f"{error.expected_key.fingerprint}: the host was reinstalled, or someone is in between",
        f"{COMPARE}; if they are equal:\n        "
        f"ssh-keygen -R {quote(_joined(host, port))} -f {_path(file)} && "
        f"{_scan(host, port)} >> {_path(file)}",
    )


def _anything_else(error: Any, target: Target) -> Explanation:
    text = str(error)
    if unknown := _UNKNOWN_KEY.search(text):
        host, port = _split(unknown[1])
        file = _known_hosts_of(host, target)
        return (
            f"the host key of {unknown[1]} is not in {file}, and unknown keys are refused",
            f"{_scan(host, port)} | tee -a {_path(file)} | ssh-keygen -lf -\n        and {COMPARE}",
        )
    if "protocol banner" in text or "protocol version" in text:
        return (
            f"{target.place} answers, but not as an SSH server: a wrong port, or an sshd with too "
            "many connections",
            f"{target.ssh} true",
        )
    return f"{target.place}: {text or type(error).__name__}", f"{target.ssh} true"


_EXPLANATIONS: tuple[tuple[type[BaseException], Callable[[Any, Target], Explanation]], ...] = (
    (socket.gaierror, _unresolved),
    (paramiko.BadHostKeyException, _changed_key),
    (paramiko.PasswordRequiredException, _locked_key),
    (paramiko.AuthenticationException, _refused_login),
    (IncompatiblePeer, _old_algorithms),
    (paramiko.ChannelException, _no_way_on),
    (EOFError, _closed),
    (OSError, _unreachable),
    (BaseException, _anything_else),
)
"""In this order: some of these are subclasses of later ones."""

COMPARE = (
    "compare the fingerprint with the one on the host's own console "
    "(ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub) before you trust it"
)


def _path(path: str) -> str:
    """*path* as a word of a shell command; a ``~`` in front stays one."""
    if path.startswith("~/"):
        return f"~/{quote(path[2:])}"
    return quote(path) if path else ""


def _split(name: str) -> tuple[str, int]:
    """paramiko's name of a host key: ``host`` or ``[host]:port``."""
    match = _BRACKETED.fullmatch(name)
    return (match["host"], int(match["port"])) if match else (name, 22)


def _joined(host: str, port: int) -> str:
    return f"[{host}]:{port}" if port != 22 else host


def _scan(host: str, port: int) -> str:
    return f"ssh-keyscan -t ed25519 {f'-p {port} ' if port != 22 else ''}{quote(host)}"


def _known_hosts_of(host: str, target: Target) -> str:
    """The file that *host*'s key belongs into: pyinfra looks jump hosts up in its own."""
    is_jump = host in target.jump and host != target.hostname
    return "~/.ssh/known_hosts" if is_jump else target.known_hosts


_TYPE_IT = (
    "type it when asked, give it once for all hosts with --same-sudo-password, "
    "or allow NOPASSWD for this user in /etc/sudoers.d"
)
_SUDO: tuple[tuple[re.Pattern[str], str, str], ...] = tuple(
    (re.compile(pattern), cause, step)
    for pattern, cause, step in (
        (
            r"is not in the sudoers file|is not allowed to (execute|run sudo)|I'm afraid I can't",
            "sudo refuses this user",
            "on the host, as root: usermod -aG sudo USER   (or a line in /etc/sudoers.d)",
        ),
        (
            r"incorrect password attempt|Authentication failed|[Mm]aximum \d+ incorrect",
            "sudo refused the password",
            _TYPE_IT,
        ),
        (
            r"a password is required|interactive authentication is required|no password was",
            "sudo wants a password and nobody typed one",
            _TYPE_IT,
        ),
        (
            r"sudo: (command )?not found",
            "sudo is not installed",
            "on the host, as root: apt-get install sudo   (or log in as root: ssh_user)",
        ),
        (
            r"must have a tty",
            "sudo wants a terminal (requiretty)",
            "on the host: add 'Defaults:USER !requiretty' to a file in /etc/sudoers.d",
        ),
    )
)
