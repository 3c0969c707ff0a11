"""Hosts as the operator's commands see them: how to log in, and what they serve. No secrets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from farrier import explain

__all__ = ["FleetTargets", "Login", "MemberOf", "ReplicaOf", "Target"]


@dataclass(frozen=True)
class Login:
    """How SSH gets to a host, with every ssh_config already looked up.

    ``host`` and ``port`` are where it connects to; ``typed`` is what a person types after ``ssh``:
    an address, or an alias of ``ssh_config`` (a path, or empty). ``keys`` are files; without any
    the agent's and those in ~/.ssh are tried, as ``agent`` and ``default_keys`` allow. ``jumps``
    are in the order in which they are gone through. ``timeout`` in seconds, to connect.
    """

    host: str
    port: int = 22
    user: str = ""
    typed: str = ""
    keys: tuple[str, ...] = ()
    agent: bool = True
    default_keys: bool = True
    identity_agent: str = ""
    known_hosts: tuple[str, ...] = ()
    ssh_config: str = ""
    jumps: tuple[Login, ...] = ()
    proxy_command: str = ""
    timeout: float = 10.0

    @property
    def tried(self) -> explain.Target:
        """For a sentence about a connection that failed."""
        jump = ",".join(hop.typed or hop.host for hop in self.jumps)
        return explain.Target(
            hostname=self.typed or self.host,
            port=self.port,
            user=self.user,
            known_hosts=self.known_hosts[0] if self.known_hosts else "~/.ssh/known_hosts",
            ssh_config=self.ssh_config,
            key=self.keys[0] if self.keys else "",
            jump=jump or ("ProxyCommand" if self.proxy_command else ""),
            timeout=self.timeout,
        )

    @property
    def ssh(self) -> str:
        """The ssh command that makes the same connection."""
        return self.tried.ssh


@dataclass(frozen=True)
class ReplicaOf:
    """One replica of ``model`` on a host: its name, unit and the engine's loopback port.

    ``hosts`` are all that it spans, this one first; none where it is on this one alone.
    """

    model: str
    replica: str
    unit: str
    port: int
    hosts: tuple[str, ...] = ()


@dataclass(frozen=True)
class MemberOf:
    """A host's share, of that ``rank``, of the ``replica`` whose head is on host ``head``."""

    replica: str
    rank: int
    head: str
    unit: str


@dataclass(frozen=True)
class Target:
    """A host of the fleet. ``address`` is where the other hosts reach it."""

    name: str
    groups: tuple[str, ...]
    address: str
    login: Login
    replicas: tuple[ReplicaOf, ...] = ()
    agent_port: int = 9810
    nginx_port: int = 8080
    members: tuple[MemberOf, ...] = ()

    def replica(self, name: str) -> ReplicaOf | None:
        """The replica called *name*."""
        return next((one for one in self.replicas if one.replica == name), None)


@dataclass(frozen=True)
class FleetTargets:
    """The hosts of an inventory: ``every`` one, and those that a limit picked, sorted by name.

    ``inventory`` is the file that was read.
    """

    inventory: str
    every: tuple[Target, ...]
    chosen: tuple[Target, ...]

    def __iter__(self) -> Iterator[Target]:
        return iter(self.chosen)

    def __len__(self) -> int:
        return len(self.chosen)

    def named(self, name: str) -> Target:
        """The host called *name*. Raises :class:`KeyError`."""
        for target in self.every:
            if target.name == name:
                return target
        raise KeyError(name)

    def group(self, name: str) -> tuple[Target, ...]:
        """Every host of group *name*."""
        return tuple(target for target in self.every if name in target.groups)

    def of_model(self, model: str) -> tuple[tuple[Target, ReplicaOf], ...]:
        """Every replica of *model* in the whole fleet, with its host."""
        return tuple(
            (target, one) for target in self.every for one in target.replicas if one.model == model
        )

    def to_json(self) -> dict[str, Any]:
        """As plain values; :meth:`from_json` reads them."""
        return {
            "inventory": self.inventory,
            "every": msgspec.to_builtins(self.every),
            "chosen": [target.name for target in self.chosen],
        }

    @classmethod
    def from_json(cls, data: Any) -> FleetTargets:
        """Read what :meth:`to_json` wrote. Raises :class:`msgspec.ValidationError`."""
        every = msgspec.convert(data["every"], tuple[Target, ...])
        chosen = set(data["chosen"])
        return cls(
            data["inventory"], every, tuple(target for target in every if target.name in chosen)
        )
