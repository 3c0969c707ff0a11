"""Hosts that could not be looked at: the reason, from what SSH and sudo said."""

from __future__ import annotations

import re
import socket
from typing import TYPE_CHECKING

import paramiko

from farrier.explain import COMPARE, NEXT, root_cause
from farrier.preflight.verdict import Code, Reason, Verdict, unreachable

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["CODES", "NO_ANSWER", "SUDO", "not_connected", "not_looked_at", "sudo_refused"]

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
    shown="echo 'USER ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/USER",
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

_ASIDE = re.compile(r"(.*?)   \((.*)\)")
"""What may be done instead stands in brackets behind the command: ``COMMAND   (or …)``."""

_ON_THE_HOST = ("on the host, as root: ", "on the host: ")


def not_connected(host: str, error: BaseException) -> Verdict:
    """The verdict on a host that SSH did not reach. *error*'s text has the next step."""
    return unreachable(host, _reason(_code(root_cause(error)), str(error)))


def not_looked_at(host: str, code: Code, told: str) -> Verdict:
    """The verdict on a host that was reached, and where nothing could be asked."""
    return unreachable(host, _reason(code, told))


def sudo_refused(host: str, told: str, user: str) -> Verdict:
    """The verdict on a host where *user* logs in and cannot become root; *told* says why.

    sudo asks even those for a password whom it would not let: that nobody can type one is what a
    look has in common with every later deploy, so that the repair is a rule without one.
    """
    cause, _, step = told.partition(NEXT)
    if not step.startswith(_ON_THE_HOST):
        rule = f"echo '{user} ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/{user.replace('.', '-')}"
        told = f"{cause}: {step}{NEXT}{_ON_THE_HOST[0]}{rule}"
    return not_looked_at(host, SUDO, told)


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
    lines = list(_lines(step))
    remarks = [line for line in lines if line.removeprefix("and ").startswith(COMPARE[:20])]
    command = " ".join(line for line in lines if line not in remarks)
    if aside := _ASIDE.fullmatch(command):
        command, remarks = aside[1], [*remarks, aside[2]]
    where = code.where
    for opening in _ON_THE_HOST:
        if command.startswith(opening):
            command, where = command.removeprefix(opening), "host"
    message = "; ".join([cause, *(remark.removeprefix("and ").rstrip(":; ") for remark in remarks)])
    return code.reason(message, where=where, step=command)


def _lines(step: str) -> Iterator[str]:
    return (line.strip() for line in step.splitlines() if line.strip())
