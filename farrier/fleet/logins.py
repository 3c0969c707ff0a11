"""How pyinfra would log in to a host, as a :class:`Login`. For the process that has pyinfra.

The ssh_config is read by pyinfra's own parser (it knows Include, paramiko's does not), and looked
up as its connector does (``SSHClient.parse_config`` of 3.10), so that both go the same way. What
differs is strictness: a jump host's unknown key is refused here too, as everywhere in Farrier.
"""

from __future__ import annotations

import getpass
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from pyinfra.connectors.sshuserclient import client

from farrier.fleet.target import Login
from farrier.ssh import CONNECT_TIMEOUT

__all__ = ["login_of"]

_KNOWN_HOSTS = "~/.ssh/known_hosts"


def login_of(name: str, data: Mapping[str, Any]) -> Login:
    """The login of host *name* from its inventory *data* (pyinfra's ssh_… names)."""
    config_file = _absolute(data.get("ssh_config_file"))
    config = client.get_ssh_config(config_file or None)
    typed = str(data.get("ssh_hostname") or name.removeprefix("@ssh/"))
    found = config.lookup(typed) if config else {}
    timeout = float(
        (data.get("ssh_paramiko_connect_kwargs") or {}).get("timeout")
        or found.get("connecttimeout")
        or CONNECT_TIMEOUT
    )
    own_key = _absolute(data.get("ssh_key"))
    known_hosts = _absolute(data.get("ssh_known_hosts_file"))
    return Login(
        host=str(found.get("hostname") or typed),
        # ssh_user and ssh_port win, as in pyinfra: what it was told goes over what it looked up
        port=int(data.get("ssh_port") or found.get("port") or 22),
        user=str(data.get("ssh_user") or found.get("user") or getpass.getuser()),
        typed=typed,
        keys=(own_key,) if own_key else _identities(found),
        agent=not own_key and bool(data.get("ssh_allow_agent", True)),
        default_keys=not own_key and bool(data.get("ssh_look_for_keys", True)),
        identity_agent=_identity_agent(found),
        known_hosts=(known_hosts,) if known_hosts else _known_hosts(found),
        ssh_config=config_file,
        jumps=tuple(_jumps(config, found, timeout, config_file)),
        proxy_command=str(found.get("proxycommand") or ""),
        timeout=timeout,
    )


def _jumps(config: Any, found: Mapping[str, Any], timeout: float, file: str) -> Iterator[Login]:
    jump = str(found.get("proxyjump") or "")
    if not jump or jump.lower() == "none" or found.get("proxycommand"):
        return
    for hop in jump.split(","):
        typed, said = cast("Any", client.SSHClient).derive_shorthand(config, hop.strip())
        its = config.lookup(typed)
        yield Login(
            host=str(its.get("hostname") or typed),
            port=int(said["port"]),
            user=str(said["username"] or getpass.getuser()),
            typed=str(typed),
            keys=_identities(its),
            identity_agent=_identity_agent(its),
            known_hosts=_known_hosts(its),
            ssh_config=file,
            timeout=float(said.get("timeout") or timeout),
        )


def _identities(found: Mapping[str, Any]) -> tuple[str, ...]:
    named = found.get("identityfile") or []
    files = (_absolute(file) for file in ([named] if isinstance(named, str) else named))
    # OpenSSH and pyinfra pass over files that are not there; paramiko would end with them
    return tuple(file for file in files if Path(file).is_file())


def _known_hosts(found: Mapping[str, Any]) -> tuple[str, ...]:
    named = str(found.get("userknownhostsfile") or _KNOWN_HOSTS)
    return tuple(_absolute(file) for file in named.split())


def _identity_agent(found: Mapping[str, Any]) -> str:
    named = str(found.get("identityagent") or "")
    return "" if named.lower() in ("", "none") else _absolute(named)


def _absolute(path: object) -> str:
    return str(Path(str(path)).expanduser().absolute()) if path else ""
