"""The sockets that the agent listens on, which outlive a reading of its configuration."""

from __future__ import annotations

import grp
import socket
from pathlib import Path

from farrier_agent import web
from farrier_agent.config import AgentConfig, split_address
from farrier_agent.control import listening
from farrier_agent.control.errors import ControlError

__all__ = ["ListenError", "Listeners", "group_of"]


class ListenError(OSError):
    """A socket cannot be had; the message says which, why and what to look at."""


def group_of(config: AgentConfig) -> int | None:
    """The gid of those who may use the control socket. Raises ListenError for no such group."""
    if config.control_group is None:
        return None
    try:
        return grp.getgrnam(config.control_group).gr_gid
    except KeyError:
        raise ListenError(
            f"control_group: there is no group {config.control_group!r};"
            f" next: getent group {config.control_group}"
        ) from None


class Listeners:
    """The sockets of one agent. Whoever is given one gets it anew, and may close it."""

    def __init__(self) -> None:
        self._open: dict[tuple[str, object], socket.socket] = {}

    def bind(self, config: AgentConfig) -> None:
        """Listen where *config* says, on what it does not have yet. Raises ListenError.

        Then everything is as it was before.
        """
        group = group_of(config)
        fresh: dict[tuple[str, object], socket.socket] = {}
        try:
            for key in _keys(config):
                fresh[key] = self._open.get(key) or _bound(key)
            _share(config, group)
        except ListenError:
            for key, one in fresh.items():
                if key not in self._open:
                    one.close()
            raise
        for key in self._open.keys() - fresh.keys():
            self._open[key].close()
        self._open = fresh

    def get(self, what: str) -> socket.socket | None:
        """The socket for ``http``, ``check`` or ``control``; None where it is not wanted."""
        return next((one.dup() for key, one in self._open.items() if key[0] == what), None)

    def close(self) -> None:
        """Listen no more."""
        for one in self._open.values():
            one.close()


def _keys(config: AgentConfig) -> list[tuple[str, object]]:
    keys: list[tuple[str, object]] = [
        ("http", config.listen),
        ("control", _socket_path(config)),
    ]
    return keys + ([("check", config.check_listen)] if config.check_listen else [])


def _socket_path(config: AgentConfig) -> Path:
    return Path(config.run_dir) / "control.sock"


def _share(config: AgentConfig, group: int | None) -> None:
    path = _socket_path(config)
    try:
        listening.share(path, group)
    except OSError as error:
        raise ListenError(
            f"control_group: {path} cannot be shared with {config.control_group}:"
            f" {error.strerror}; next: id"
        ) from error


def _bound(key: tuple[str, object]) -> socket.socket:
    what, where = key
    try:
        if isinstance(where, Path):
            where.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            return listening.bind(where)
        address, port = split_address(str(where))
        return web.bind(address, port)
    except ControlError as error:
        raise ListenError(f"{error}; next: {error.next}" if error.next else str(error)) from error
    except web.ListenError as error:
        raise ListenError(str(error)) from error
    except OSError as error:
        raise ListenError(f"{what}: {where}: {error.strerror or error}") from error
