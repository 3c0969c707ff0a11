"""Hosts that could not be looked at: SSH's and sudo's words become a verdict with its line."""

from __future__ import annotations

import errno
import socket

import paramiko
import pytest

from farrier.explain import Target, explain_connect, explain_sudo
from farrier.preflight.reach import CODES, NO_ANSWER, SUDO, not_connected, sudo_refused
from farrier.preflight.verdict import Verdict

TARGET = Target("192.0.2.11", user="admin", known_hosts="~/.ssh/known_hosts")
OLD_KEY, NEW_KEY = paramiko.ECDSAKey.generate(), paramiko.ECDSAKey.generate()


def verdict(cause: Exception) -> Verdict:
    """What becomes of *cause* on its way through the connector."""
    try:
        try:
            raise cause
        except Exception as error:
            raise RuntimeError(explain_connect(error, TARGET)) from error
    except RuntimeError as told:
        return not_connected("gpu01", told)


CASES: dict[str, tuple[Exception, str, str]] = {
    "ssh-name": (
        socket.gaierror(-2, "Name or service not known"),
        "does not resolve",
        "getent hosts 192.0.2.11",
    ),
    "ssh-host-key": (
        paramiko.BadHostKeyException("192.0.2.11", NEW_KEY, OLD_KEY),
        "compare the fingerprint",
        "ssh-keygen -R 192.0.2.11 -f ~/.ssh/known_hosts && ssh-keyscan -t ed25519 192.0.2.11"
        " >> ~/.ssh/known_hosts",
    ),
    "ssh-login": (
        paramiko.AuthenticationException("Authentication failed."),
        "refused the login of admin",
        "ssh admin@192.0.2.11 true",
    ),
    "ssh-unreachable": (
        TimeoutError("timed out"),
        "no answer from 192.0.2.11 port 22",
        "ping -c 3 192.0.2.11",
    ),
}


@pytest.mark.parametrize("code", CASES)
def test_a_host_that_ssh_does_not_reach(code: str) -> None:
    cause, told, repair = CASES[code]
    found = verdict(cause)
    assert found.state == "unreachable"
    (reason,) = found.reasons
    assert (reason.code, reason.repair, reason.where) == (code, repair, "operator")
    assert told in reason.message


def test_a_host_key_that_nobody_knows() -> None:
    (reason,) = verdict(
        paramiko.SSHException("No host key for 192.0.2.11 found in known_hosts")
    ).reasons
    assert reason.code == "ssh-host-key"
    assert reason.repair == (
        "ssh-keyscan -t ed25519 192.0.2.11 | tee -a ~/.ssh/known_hosts | ssh-keygen -lf -"
    )
    assert "compare the fingerprint" in reason.message


def test_a_refused_connection_is_repaired_on_the_host() -> None:
    refused = paramiko.ssh_exception.NoValidConnectionsError(
        {("192.0.2.11", 22): OSError(errno.ECONNREFUSED, "Connection refused")}
    )
    (reason,) = verdict(refused).reasons
    assert (reason.code, reason.where) == ("ssh-unreachable", "host")
    assert reason.repair.startswith("systemctl status ssh")


def test_sudo_that_refuses() -> None:
    told = explain_sudo("admin is not in the sudoers file.", "admin")
    assert told is not None
    found = sudo_refused("gpu01", told, "admin")
    assert found.state == "unreachable"
    (reason,) = found.reasons
    assert (reason.code, reason.where) == ("sudo-refused", "host")
    assert reason.repair == "usermod -aG sudo admin"
    assert "or a line in /etc/sudoers.d" in reason.message


def test_sudo_that_wants_a_password() -> None:
    told = explain_sudo("sudo: a password is required", "a.admin")
    assert told is not None
    (reason,) = sudo_refused("gpu01", told, "a.admin").reasons
    # sudo reads no file of that directory with a dot in its name.
    assert reason.repair == "echo 'a.admin ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/a-admin"
    assert "--same-sudo-password" in reason.message


def test_every_code_is_tried() -> None:
    assert {code.name for code in CODES} == CASES.keys() | {SUDO.name, NO_ANSWER.name}
