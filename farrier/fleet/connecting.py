"""A fabric connection that trusts known keys only, made from a :class:`Login`.

fabric 3.2 accepts any host key: its policy is hard-coded (fabric/fabric#2138). So every connection,
a jump host's too, gets its keys and paramiko's RejectPolicy before it opens.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import paramiko
from fabric import Config, Connection
from paramiko.hostkeys import HostKeys, InvalidHostKey

from farrier.explain import explain_connect, root_cause
from farrier.fleet.errors import HostKeyError, ShellError, UnreachableError
from farrier.fleet.target import Login
from farrier.ssh import connect_kwargs

__all__ = ["connection", "opened"]

# It writes tracebacks to standard error where nobody has asked it for a log.
logging.getLogger("paramiko").addHandler(logging.NullHandler())

_agent_lock = threading.Lock()


class KnownHostsError(Exception):
    """A known_hosts file that cannot be read as one."""


def connection(login: Login) -> Any:
    """fabric's Connection to *login*, strict and not yet open. Raises :class:`KnownHostsError`."""
    gateway: Any = login.proxy_command or None
    for hop in login.jumps:
        gateway = _strict(hop, gateway)
    return _strict(login, gateway)


def opened(host: str, login: Login) -> Any:
    """An open connection to *host*. Raises :class:`UnreachableError`, with the next step."""
    try:
        made = connection(login)
        with _identity_agent(login):
            made.open()
    except KnownHostsError as error:
        raise HostKeyError(host, f"cannot connect: {error}", "") from error
    except (OSError, EOFError, paramiko.SSHException) as error:
        cause = root_cause(error)
        told = explain_connect(cause, login.tried)
        raise _kind(cause).told(host, told) from error
    return made


def _strict(login: Login, gateway: Any) -> Any:
    limits = connect_kwargs(login.timeout)
    made = Connection(
        login.host,
        user=login.user,
        port=login.port,
        config=_no_config(),
        gateway=gateway,
        connect_kwargs={
            **limits,
            # paramiko's own are 15 s and 30 s, and for ever for a channel
            "banner_timeout": login.timeout,
            "auth_timeout": max(login.timeout, 10.0),
            "channel_timeout": login.timeout,
            "key_filename": list(login.keys),
            "allow_agent": login.agent,
            "look_for_keys": login.default_keys,
        },
    )
    made.client.set_missing_host_key_policy(_Reject())
    name = login.host if login.port == 22 else f"[{login.host}]:{login.port}"
    known = made.client.get_host_keys()
    for file in login.known_hosts:
        for kind, key in (_known(file, _changed_at(file)).lookup(name) or {}).items():
            known.add(name, kind, key)
    return made


class _Reject(paramiko.MissingHostKeyPolicy):
    """paramiko's RejectPolicy, with the words that :mod:`farrier.explain` knows from pyinfra."""

    def missing_host_key(self, _client: Any, hostname: str, _key: Any) -> None:
        raise paramiko.SSHException(f"No host key for {hostname} found in known_hosts")


def _no_config() -> Config:
    """fabric's settings without any file: ssh_config was looked up already, ~/.fabric is not ours.

    One for each connection: making a Connection merges its Config anew, in place, so that two
    threads that share one find it empty (seen with 4 hosts at once; half of all with 8 threads).
    """
    return Config(ssh_config=paramiko.SSHConfig(), lazy=True)


@lru_cache(maxsize=32)
def _known(file: str, changed_at: int | None) -> HostKeys:
    """The keys in *file*, read once as long as it does not change (nanoseconds)."""
    if changed_at is None:
        return HostKeys()
    try:
        return HostKeys(file)
    except InvalidHostKey as error:
        # paramiko would know nothing of the lines below it
        raise KnownHostsError(f"{file} has a line that is no host key: {error.line!r}") from error
    except OSError as error:
        raise KnownHostsError(f"{file}: {error.strerror}") from error


def _changed_at(file: str) -> int | None:
    try:
        return Path(file).stat().st_mtime_ns
    except OSError:
        return None


def _kind(cause: BaseException) -> type[ShellError]:
    if isinstance(cause, paramiko.BadHostKeyException) or "found in known_hosts" in str(cause):
        return HostKeyError
    return UnreachableError


@contextmanager
def _identity_agent(login: Login) -> Iterator[None]:
    """paramiko finds the agent by SSH_AUTH_SOCK only; an ssh_config may name another one."""
    if not login.identity_agent:
        yield
        return
    with _agent_lock:
        before = os.environ.get("SSH_AUTH_SOCK")
        os.environ["SSH_AUTH_SOCK"] = login.identity_agent
        try:
            yield
        finally:
            if before is None:
                del os.environ["SSH_AUTH_SOCK"]
            else:
                os.environ["SSH_AUTH_SOCK"] = before
