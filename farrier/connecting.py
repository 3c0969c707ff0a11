"""pyinfra's SSH connector, with :mod:`farrier.explain`'s sentences in what it prints.

Installed by :func:`farrier.inventory.install`. A host that cannot be reached still fails alone,
the others go on and pyinfra still exits 1.
"""

from __future__ import annotations

import getpass
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from shlex import quote
from typing import Any, cast

import gevent
from paramiko import SSHException
from pyinfra.api import Host, StringCommand
from pyinfra.api.exceptions import ConnectError, PyinfraError
from pyinfra.connectors import ssh
from pyinfra.connectors.sshuserclient import client
from pyinfra.connectors.util import CommandOutput

from farrier.converge.commands import tell_failure
from farrier.converge.report import note
from farrier.explain import NEXT, Target, explain_connect, explain_sudo, root_cause
from farrier.ssh import CONNECT_TIMEOUT

__all__ = ["SUDO_EXPLAINED", "ConnectionLostError", "install"]

Execute = Callable[[], tuple[int, CommandOutput]]

SUDO_EXPLAINED = "farrier_sudo_explained"
"""Key in a host's connector_data, with what was said: sudo refuses every command, say it once."""

NO_STATUS = -1
"""paramiko's exit status of a command whose end nobody has seen."""


class ConnectionLostError(SSHException):
    """The host went away during a command; pyinfra fails this host and goes on with the others."""

    def __init__(self) -> None:
        super().__init__("the connection was lost")


def install() -> None:
    """Wrap the connector in this process."""
    names: tuple[tuple[Any, str, Callable[[Any], Any]], ...] = (
        (ssh.SSHConnector, "connect", _explained),
        (ssh, "execute_command_with_sudo_retry", _sudo_explained),
        (ssh, "make_unix_command_for_host", _password_aside),
        (client, "get_missing_host_key_policy", _strict_jumps),
    )
    for owner, name, wrapper in names:
        setattr(owner, name, wrapper(getattr(owner, name)))
    # When the last host fails pyinfra raises in a greenlet, and in the main one too: without this
    # the operator gets a traceback of gevent's before the message.
    gevent.get_hub().NOT_ERROR += (PyinfraError,)


def _explained(connect: Callable[[Any], None]) -> Callable[[Any], None]:
    @wraps(connect)
    def explained(self: ssh.SSHConnector) -> None:
        try:
            connect(self)
        except ConnectError as error:
            told = explain_connect(root_cause(error), _target(self))
            cause: Exception = error
        except PyinfraError as error:
            # a private key that is missing or unreadable would end the run for every host
            told = f"cannot connect: {error}{NEXT}check this host's ssh_key"
            cause = error
        else:
            return
        note("failed", self.host.name, told)
        raise ConnectError(told) from cause

    return explained


def _sudo_explained(
    retry: Callable[[Host, Any, Execute], tuple[int, CommandOutput]],
) -> Callable[[Host, Any, Execute], tuple[int, CommandOutput]]:
    @wraps(retry)
    def explained(host: Host, arguments: Any, execute: Execute) -> tuple[int, CommandOutput]:
        last: list[tuple[int, CommandOutput]] = []

        def recorded() -> tuple[int, CommandOutput]:
            last[:] = [execute()]
            return last[0]

        try:
            code, output = retry(host, arguments, recorded)
        except EOFError as error:
            if not last:
                raise ConnectionLostError from error
            # pyinfra asks for the password; without a terminal that would be a traceback
            code, output = last[0]
        if code == NO_STATUS and not _connected(host):
            raise ConnectionLostError
        if code and arguments.get("_sudo") and SUDO_EXPLAINED not in host.connector_data:
            user = str(host.data.get("ssh_user") or "")
            if sentence := explain_sudo(output.stderr, user):
                host.connector_data[SUDO_EXPLAINED] = sentence
                tell_failure(host, sentence)
        return code, output

    return explained


def _connected(host: Host) -> bool:
    transport = cast(Any, host.connector).client.get_transport()
    return transport is not None and transport.is_active()


# Writes the program that sudo asks for the password, which comes on stdin: in memory if possible,
# and where programs may be executed. Prints its path; pyinfra removes it at the end.
ASKPASS = """
umask 077
program=$(cat)
for directory in "$XDG_RUNTIME_DIR" /dev/shm /tmp "$HOME"; do
    [ -d "$directory" ] || continue
    file=$(mktemp "$directory/farrier-askpass-XXXXXXXXXX" 2>/dev/null) || continue
    printf '%s\\n' "$program" > "$file" && chmod 700 "$file"
    if "$file" >/dev/null 2>&1; then echo "$file"; exit 0; fi
    rm -f "$file"
done
exit 1
"""


def _password_aside(make: Callable[..., StringCommand]) -> Callable[..., StringCommand]:
    """pyinfra puts a sudo password into the command line, which every user of the host can read."""

    @wraps(make)
    def made(state: Any, host: Host, command: StringCommand, **arguments: Any) -> StringCommand:
        known = host.connector_data.get("prompted_sudo_password")
        password = arguments.get("_sudo_password") or known
        if arguments.get("_sudo") and password:
            arguments["_sudo_password"] = "in-askpass"  # noqa: S105 - takes the real one's place
            cache = host.connector_data
            # names that pyinfra itself forgets after a reboot and removes at the end
            ours = f"sudo_askpass_path__{hash(password)}"
            cache[ours] = cache.get(ours) or _askpass(host, password)
            directory = arguments.get("_temp_dir") or cast(Any, host).get_temp_dir_config()
            cache[f"sudo_askpass_path__{directory}"] = cache[ours]
        return make(state, host, command, **arguments)

    return made


def _askpass(host: Host, password: str) -> str:
    program = ["#!/bin/sh", f"printf '%s\\n' {quote(password)}"]
    done, output = host.run_shell_command(StringCommand(ASKPASS), _stdin=program)
    if not done or not output.stdout_lines:
        raise PyinfraError(f"{host.name}: there is no directory to run sudo's askpass program from")
    return output.stdout_lines[-1]


def _strict_jumps(policy: Callable[[str | None], Any]) -> Callable[[str | None], Any]:
    """pyinfra asks about a jump host's unknown key (n hosts, n questions at once); we refuse it."""

    @wraps(policy)
    def strict(value: str | None) -> Any:
        return policy("yes" if value is None else value)

    return strict


def _target(connector: ssh.SSHConnector) -> Target:
    data = connector.data
    config_file = data["ssh_config_file"] or ""
    hostname = data["ssh_hostname"] or connector.host.name
    settings = getattr(connector.client, "_ssh_config", None) or {}
    parsed = client.get_ssh_config(config_file or None)
    lookup = parsed.lookup(hostname) if parsed else {}
    known_hosts = data["ssh_known_hosts_file"] or lookup.get("userknownhostsfile", "").split(" ")[0]
    limits = data["ssh_paramiko_connect_kwargs"] or {}
    return Target(
        hostname=hostname,
        port=int(data["ssh_port"] or settings.get("port") or lookup.get("port") or 22),
        user=data["ssh_user"] or lookup.get("user") or getpass.getuser(),
        known_hosts=known_hosts or "~/.ssh/known_hosts",
        ssh_config=str(Path(config_file)) if config_file else "",
        key=data["ssh_key"] or "",
        jump=lookup.get("proxyjump", ""),
        timeout=limits.get("timeout", CONNECT_TIMEOUT),
    )
