"""The labs there are: names, networks and hosts, and every name derived from them.

Two labs never share a name on the operator's machine: bridge, nft table, machines and interfaces
all carry the lab's name, so that several can be up at once and each can be cleared alone.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from farrier.lab.errors import LabError

__all__ = ["LABS", "HostDefinition", "LabDefinition", "definition"]

IFNAMSIZ = 15
"""Longest name of a network interface, in bytes (linux/if.h, less the final NUL)."""


@dataclass(frozen=True)
class HostDefinition:
    """One host: *number* is its place in the lab's network, *suite* its Debian release."""

    name: str
    number: int
    suite: str
    groups: tuple[str, ...]


@dataclass(frozen=True)
class LabDefinition:
    """One lab. The operator's end of its bridge has the network's first address."""

    name: str
    network: IPv4Network
    hosts: tuple[HostDefinition, ...]

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z][a-z0-9]*", self.name):
            raise ValueError(f"lab {self.name!r}: only a-z and 0-9, a letter first")
        for name in (self.bridge, *(self.veth(host.name) for host in self.hosts)):
            if len(name) > IFNAMSIZ:
                raise ValueError(f"lab {self.name}: interface {name} is longer than {IFNAMSIZ}")

    @property
    def bridge(self) -> str:
        """The bridge that joins the hosts and the operator."""
        return f"fr-{self.name}"

    @property
    def nft_table(self) -> str:
        """The nft table (family ``ip``) with the lab's masquerade."""
        return f"farrier_{self.name}"

    @property
    def gateway(self) -> IPv4Address:
        """The operator's address in the lab's network."""
        return self.network.network_address + 1

    def machine(self, host: str) -> str:
        """The systemd-nspawn machine of *host*."""
        return f"{self.name}-{host}"

    def veth(self, host: str) -> str:
        """The operator's end of *host*'s cable; nspawn derives it from the machine's name."""
        return f"vb-{self.machine(host)}"

    def address(self, host: HostDefinition) -> IPv4Address:
        """The address of *host*."""
        return self.network.network_address + host.number

    def select(self, names: list[str] | None) -> list[HostDefinition]:
        """The hosts called *names*, or all. Raises :class:`LabError` for a name there is not."""
        known = {host.name: host for host in self.hosts}
        unknown = sorted(set(names or ()) - set(known))
        if unknown:
            raise LabError(
                f"lab {self.name} has no host {', '.join(unknown)}; it has {', '.join(known)}"
            )
        return [host for host in self.hosts if names is None or host.name in names]


def _gpu(number: int, suite: str) -> HostDefinition:
    return HostDefinition(f"gpu{number:02}", 10 + number, suite, ("gpu",))


_GATEWAY = HostDefinition("gw01", 5, "trixie", ("gateway", "monitor"))
_OLDER_GATEWAY = HostDefinition("gw02", 6, "bookworm", ("gateway",))
"""Its HAProxy is 2.6; Debian 13's is 3.0."""

LABS: dict[str, LabDefinition] = {
    lab.name: lab
    for lab in (
        LabDefinition(
            "demo",
            IPv4Network("198.18.0.0/24"),
            (_GATEWAY, _gpu(1, "bookworm"), _gpu(2, "bookworm"), _gpu(3, "bookworm")),
        ),
        LabDefinition(
            "test",
            IPv4Network("198.18.1.0/24"),
            (_GATEWAY, _gpu(1, "bookworm"), _gpu(2, "bookworm"), _gpu(3, "trixie")),
        ),
        # As `test`, for trying things by hand while the tests run.
        LabDefinition(
            "trial",
            IPv4Network("198.18.3.0/24"),
            (
                *(_GATEWAY, _OLDER_GATEWAY),
                *(_gpu(1, "bookworm"), _gpu(2, "bookworm"), _gpu(3, "trixie")),
            ),
        ),
        # Two gateways and three hosts that serve: tests/fleet rolls them under load.
        LabDefinition(
            "fleet",
            IPv4Network("198.18.7.0/24"),
            (
                *(_GATEWAY, _OLDER_GATEWAY),
                *(_gpu(1, "bookworm"), _gpu(2, "bookworm"), _gpu(3, "trixie")),
            ),
        ),
        # For `make bench`, which measures on it and takes it down again.
        LabDefinition(
            "bench",
            IPv4Network("198.18.4.0/24"),
            (_GATEWAY, _gpu(1, "bookworm"), _gpu(2, "bookworm"), _gpu(3, "bookworm")),
        ),
        # The real NVIDIA driver from Debian's archive (tests/driver).
        LabDefinition(
            "driver",
            IPv4Network("198.18.5.0/24"),
            (_gpu(1, "bookworm"), _gpu(2, "trixie")),
        ),
        # Stand-in package repositories of the vendors' layout (tests/driver).
        LabDefinition(
            "depot",
            IPv4Network("198.18.6.0/24"),
            (_gpu(1, "bookworm"), _gpu(2, "trixie")),
        ),
        # Single roles that are converged alone (tests/nginx).
        LabDefinition(
            "nginx",
            IPv4Network("198.18.8.0/24"),
            (_gpu(1, "bookworm"), _gpu(2, "trixie")),
        ),
        # One host, up and down in seconds: for whoever tests the lab itself.
        LabDefinition("brief", IPv4Network("198.18.2.0/24"), (_gpu(1, "bookworm"),)),
    )
}
"""Every lab by name. 198.18.0.0/15 is the benchmarking range (RFC 2544): it collides with nothing
that is routed."""


def definition(name: str) -> LabDefinition:
    """The lab called *name*. Raises :class:`LabError` when there is none."""
    try:
        return LABS[name]
    except KeyError:
        raise LabError(f"no lab is called {name!r}; there are {', '.join(LABS)}") from None
