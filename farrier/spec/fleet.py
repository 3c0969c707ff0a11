"""All hosts of an inventory, read at once."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from farrier.spec.check_layout import clashes
from farrier.spec.host import HostSpec, read_host
from farrier.spec.places import argument_place
from farrier.spec.problems import NOWHERE, Place, Problem, SpecError
from farrier.spec.spanning import spread, with_ranks

__all__ = ["Fleet", "check", "read_fleet"]


class _Data(Protocol):
    def dict(self) -> dict[str, Any]: ...


class _Host(Protocol):
    """What is used of a pyinfra Host, so that this package needs no pyinfra."""

    @property
    def name(self) -> str: ...
    @property
    def groups(self) -> list[str]: ...
    @property
    def data(self) -> _Data: ...


@dataclass(frozen=True)
class Fleet:
    """The hosts of one inventory by name, and everything that is wrong with it."""

    hosts: Mapping[str, HostSpec]
    problems: tuple[Problem, ...] = ()

    def group(self, name: str) -> tuple[HostSpec, ...]:
        """The hosts of group *name*, by name."""
        return tuple(host for host in self.hosts.values() if name in host.groups)


def read_fleet(
    inventory: Iterable[_Host],
    where: Callable[[str, str], Place] = lambda _host, _field: NOWHERE,
    *,
    root: Path | None = None,
    known: Iterable[str] = (),
) -> Fleet:
    """Read every host of *inventory* (pyinfra's, or anything that iterates over such hosts).

    *where* tells from a host's name and a field in which file it was written; *root* and *known*
    are as for :func:`read_host`. Hosts come sorted by name: pyinfra's order changes between runs.
    """
    hosts: dict[str, HostSpec] = {}
    problems: list[Problem] = []
    behind: list[str] = []
    known = tuple(known)
    for host in sorted(inventory, key=lambda host: host.name):
        data: Mapping[str, Any] = host.data.dict()
        spec, found = read_host(
            host.name, host.groups, data, _bound(where, host.name), root=root, known=known
        )
        hosts[spec.name] = spec
        problems += found
        if data.get("nginx_clients") == "gateways" and not data.get("nginx_gateways"):
            behind.append(spec.name)
    if not any("gateway" in spec.groups for spec in hosts.values()):
        problems += [_unreachable(name, where(name, "nginx_clients")) for name in behind]
    problems += _clashing(hosts.values())
    problems += _spanning(hosts)
    return Fleet(with_ranks(hosts), tuple(problems))


def check(fleet: Fleet) -> None:
    """Raise :class:`SpecError` if anything is wrong with *fleet*."""
    if fleet.problems:
        raise SpecError(fleet.problems)


def _bound(where: Callable[[str, str], Place], host: str) -> Callable[[str], Place]:
    return lambda field: where(host, field)


def _clashing(hosts: Collection[HostSpec]) -> Iterator[Problem]:
    """Adapters whose name means something else in this fleet."""
    found = clashes(model for host in hosts for model in host.models)
    for host in hosts if found else ():
        for index, model in enumerate(host.models):
            for adapter in model.adapters:
                if message := found.get(adapter):
                    field = f"lora.{adapter}"
                    place = argument_place(model.place, field) if model.place.file else NOWHERE
                    path = f"models[{index}].{field}"
                    yield Problem(place.file, place.line, host.name, path, message)


def _spanning(hosts: Mapping[str, HostSpec]) -> Iterator[Problem]:
    """What is wrong with replicas over several hosts."""
    for found in spread(hosts):
        model = hosts[found.host].models[found.index]
        place = argument_place(model.place, found.field) if model.place.file else NOWHERE
        path = f"models[{found.index}].{found.field}"
        yield Problem(place.file, place.line, found.host, path, found.message)


def _unreachable(host: str, place: Place) -> Problem:
    message = "'gateways' would let nobody in: the inventory has no host in group gateway"
    return Problem(place.file, place.line, host, "nginx_clients", message)
