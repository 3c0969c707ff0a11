"""Hosts that could not be looked at: the reason, from what SSH and sudo said."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import paramiko

from farrier.explain import NEXT, root_cause
from farrier.preflight.verdict import Code, Reason, Verdict, unreachable

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["CODES", "NO_ANSWER", "SUDO", "not_connected", "not_looked_at"]

_STEP = "{step}"

NAME = Code(
    "ssh-name",
    "refuse",
    "The host's name does not resolve.",
    _STEP,
    "operator",
    shown="getent hosts NAME   (or give the host ssh_hostname)",
)
HOST_KEY = Code(
    "ssh-host-key",
    "refuse",
    "The host's key is not in known_hosts, or is another one: reinstalled, or someone in between."
    " Compare fingerprints on the host's console before the line is typed.",
    _STEP,
    "operator",
    shown="ssh-keygen -R HOST && ssh-keyscan -t ed25519 HOST >> ~/.ssh/known_hosts",
)
LOGIN = Code(
    "ssh-login",
    "refuse",
    "sshd answers and refuses the login.",
    _STEP,
    "operator",
    shown="ssh USER@HOST true   (installs a key: ssh-copy-id)",
)
CONNECT = Code(
    "ssh-unreachable",
    "refuse",
    "Nothing answers, or nothing that speaks SSH.",
    _STEP,
    "operator",
    shown="ping -c 3 HOST",
)
SUDO = Code(
    "sudo-refused",
    "refuse",
    "The login works and sudo does not: nothing can be looked at, or changed, as root.",
    _STEP,
    shown="usermod -aG sudo USER   (or a line in /etc/sudoers.d)",
)
NO_ANSWER = Code(
    "no-answer",
    "refuse",
    "The connection was lost, or the host did not answer within the time: a disk or a driver that"
    " hangs.",
    _STEP,
    "operator",
    shown="ssh HOST sudo dmesg | tail -n 30",
)

CODES = (NAME, HOST_KEY, LOGIN, CONNECT, SUDO, NO_ANSWER)

_ON_THE_HOST = ("on the host, as root: ", "on the host: ")


def not_connected(host: str, error: BaseException) -> Verdict:
    """The verdict on a host that SSH did not reach. *error*'s text has the next step."""
    return unreachable(host, _reason(_code(root_cause(error)), str(error)))


def not_looked_at(host: str, code: Code, told: str) -> Verdict:
    """The verdict on a host that was reached, and where nothing could be asked."""
    return unreachable(host, _reason(code, told))


def _code(cause: BaseException) -> Code:
    if isinstance(cause, socket.gaierror):
        return NAME
    if isinstance(cause, paramiko.BadHostKeyException) or "found in known_hosts" in str(cause):
        return HOST_KEY
    if isinstance(cause, paramiko.AuthenticationException):
        return LOGIN
    return CONNECT


def _reason(code: Code, told: str) -> Reason:
    """*told* is a cause and, behind :data:`farrier.explain.NEXT`, the step."""
    cause, _, step = told.partition(NEXT)
    *remarks, command = list(_lines(step)) or [""]
    where = code.where
    for opening in _ON_THE_HOST:
        if command.startswith(opening):
            command, where = command.removeprefix(opening), "host"
    message = "; ".join([cause, *(remark.rstrip(";") for remark in remarks)])
    return code.reason(message, where=where, step=command)


def _lines(step: str) -> Iterator[str]:
    return (line.strip() for line in step.splitlines() if line.strip())
