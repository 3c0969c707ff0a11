"""Replicas that span several hosts: which host has which rank, and what can be wrong with that.

One replica is one drain unit: the first of a model's ``hosts`` is its head, which has the gate and
the address; on each of the others a unit of a higher rank does its share of the work. A member is
the same :class:`Model` there, under a replica's name of its own (``big-rank1``).

Where the hosts are joined by Ray, each of them, the head too, has a member that is its node of the
cluster (``big-ray``).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from copy import copy
from dataclasses import dataclass, replace
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from farrier.spec.check_hosts import is_over_ray
from farrier.spec.values import did_you_mean, is_whole, shown

if TYPE_CHECKING:
    from farrier.spec.host import HostSpec
    from farrier.spec.model import Model

__all__ = ["RAY_PORTS", "Found", "Rank", "spread", "with_ranks"]

RAY_PORTS = 100
"""How many ports from ``master_port`` on a node of Ray takes for itself, on every host."""


@dataclass(frozen=True)
class Rank:
    """The place of one host in a replica that spans several.

    ``number`` is 0 at the head, whose host is ``head`` and whose agent answers at ``check_port``.
    ``replica`` is the name of the whole, and ``addresses`` are those of all its hosts, by rank.
    """

    number: int
    replica: str
    head: str
    addresses: tuple[str, ...]
    check_port: int

    @property
    def size(self) -> int:
        """How many hosts the replica has."""
        return len(self.addresses)

    @property
    def address(self) -> str:
        """This host's."""
        return self.addresses[self.number]


@dataclass(frozen=True)
class Found:
    """Something wrong with the model of that index on *host*."""

    host: str
    index: int
    field: str
    message: str


def spread(hosts: Mapping[str, HostSpec]) -> list[Found]:
    """What is wrong with the replicas of *hosts* that span several of them."""
    found: list[Found] = []
    gpus: dict[tuple[str, int], str] = {}
    names: dict[tuple[str, str], str] = {}
    for host in hosts.values():
        for model in host.models:
            names[host.name, str(model.replica)] = f"replica {model.replica!r}"
            for gpu in _gpus(model):
                gpus[host.name, gpu] = f"replica {model.replica!r}"
    for host, index, model in _heads(hosts.values()):
        wrong = [*_hosts(host, model, hosts), *_port(host, model)]
        if is_over_ray(model):
            wrong += _ray(host, model, hosts)
        if not wrong:
            wrong += _claims(host, model, gpus, names)
        found += (Found(host.name, index, field, message) for field, message in wrong)
    return found


def with_ranks(hosts: Mapping[str, HostSpec]) -> dict[str, HostSpec]:
    """*hosts* with their ranks in replicas that span several; those in which nothing is wrong."""
    bad = {(one.host, one.index) for one in spread(hosts)}
    members: dict[str, list[Model]] = {}
    ranks: dict[str, dict[str, Rank]] = {}
    for host, index, model in _heads(hosts.values()):
        if (host.name, index) in bad:
            continue
        addresses = tuple(hosts[name].address for name in model.hosts)
        for number, name in enumerate(model.hosts):
            rank = Rank(number, model.replica, host.name, addresses, host.agent.check_port)
            if number == 0:
                ranks.setdefault(name, {})[model.replica] = rank
            if number or is_over_ray(model):
                here = _as_member(model, number)
                ranks.setdefault(name, {})[here.replica] = rank
                members.setdefault(name, []).append(here)
    return {
        name: replace(host, members=tuple(members.get(name, ())), ranks=ranks[name])
        if name in ranks
        else host
        for name, host in hosts.items()
    }


def _as_member(model: Model, rank: int) -> Model:
    """*model* as the host of this *rank* runs it."""
    here = copy(model)  # not dataclasses.replace: a Model's constructor has no place
    object.__setattr__(here, "replica", _member_name(model, rank))
    return here


def _member_name(model: Model, rank: int) -> str:
    return f"{model.replica}-ray" if is_over_ray(model) else f"{model.replica}-rank{rank}"


def _heads(hosts: Iterable[HostSpec]) -> Iterator[tuple[HostSpec, int, Model]]:
    """The models that span several hosts, each with the host whose data it is and its index."""
    for host in hosts:
        for index, model in enumerate(host.models):
            names: Any = model.hosts
            if not isinstance(names, tuple) or not all(isinstance(one, str) for one in names):
                continue
            if len(names) > 1 and isinstance(model.replica, str) and is_whole(model.master_port):
                yield host, index, model


def _gpus(model: Model) -> Iterator[int]:
    given: Any = model.gpus
    yield from (gpu for gpu in given if is_whole(gpu)) if isinstance(given, tuple) else ()


def _hosts(
    head: HostSpec, model: Model, hosts: Mapping[str, HostSpec]
) -> Iterator[tuple[str, str]]:
    if model.hosts[0] != head.name:
        yield (
            "hosts",
            f"begins with {shown(model.hosts[0])}, and this is {head.name}'s data: the model has to"
            " be in the data of its first host, and of no other",
        )
        return
    for name in model.hosts:
        host = hosts.get(name)
        if host is None:
            yield "hosts", f"{shown(name)} is no host of the inventory{did_you_mean(name, hosts)}"
        elif "gpu" not in host.groups:
            yield "hosts", f"{name} is not in group gpu"
        elif host.accelerator != head.accelerator:
            yield (
                "hosts",
                f"{name} has accelerator {host.accelerator!r}, and {head.name}"
                f" {head.accelerator!r}: ranks have to be alike",
            )
        elif not _is_ip(host.address):
            yield (
                "hosts",
                f"{name} is reached at {host.address!r}, which is a name: ranks are told one"
                f" another's IP addresses; give {name} address = '10.0.0.…' of the network between"
                " them",
            )


def _is_ip(address: str) -> bool:
    try:
        return not ip_address(address).is_unspecified
    except ValueError:
        return False


def _port(head: HostSpec, model: Model) -> Iterator[tuple[str, str]]:
    port = model.master_port
    claimed: list[tuple[Any, str]] = [
        (head.nginx_port, "nginx's port"),
        (head.agent_port, "the agent's port"),
        (head.agent.check_port, "the port on which gateways ask the agent"),
        (9100, "node exporter's port"),
    ]
    for other in head.models:
        claimed.append((other.port, f"the port of replica {shown(other.replica)}"))
        if other is not model and other.hosts:
            claimed.append(
                (other.master_port, f"the master_port of replica {shown(other.replica)}")
            )
    taken = {one: owner for one, owner in claimed if is_whole(one)}  # the rest is told elsewhere
    if port in taken:
        free = next(one for one in range(29501, 65536) if one not in taken)
        yield "master_port", f"{port} is {taken[port]} on {head.name}; pick another, e.g. {free}"


def _ray(head: HostSpec, model: Model, hosts: Mapping[str, HostSpec]) -> Iterator[tuple[str, str]]:
    """What Ray needs besides: a token that all of them have, and a block of ports on each."""
    first, last = model.master_port, model.master_port + RAY_PORTS - 1
    if last > 32767:
        yield (
            "master_port",
            f"Ray takes {first} to {last}, and from 32768 on the kernel gives ports to anybody",
        )
    for name in model.hosts:
        host = hosts.get(name)
        if host is None:
            continue  # told elsewhere
        if not host.ray_token:
            yield (
                "hosts",
                f"{name} has no ray_token_file: Ray runs code for whoever reaches it, so its nodes"
                " ask one another for a token (make one with: openssl rand -hex 32 > ray.token &&"
                " chmod 600 ray.token)",
            )
        elif host.ray_token != head.ray_token:
            yield "hosts", f"{name} has another ray_token_file than {head.name}: it must be one"
        for other in host.models:
            for what, port in (("port", other.port), ("master_port", other.master_port)):
                if other is model and what == "master_port":
                    continue
                if what == "master_port" and not other.hosts:
                    continue
                if is_whole(port) and first <= port <= last:
                    yield (
                        "master_port",
                        f"Ray takes {first} to {last} on each host, and {port} is the {what} of"
                        f" replica {shown(other.replica)} of {name}",
                    )


def _claims(
    head: HostSpec,
    model: Model,
    gpus: dict[tuple[str, int], str],
    names: dict[tuple[str, str], str],
) -> Iterator[tuple[str, str]]:
    if is_over_ray(model) and (head.name, _member_name(model, 0)) in names:
        who = names[head.name, _member_name(model, 0)]
        yield "replica", f"{who} of {head.name} is already named {_member_name(model, 0)!r}"
    for rank, host in enumerate(model.hosts[1:], 1):
        who = f"rank {rank} of replica {model.replica!r} of {head.name}"
        for gpu in _gpus(model):
            if (host, gpu) in gpus:
                yield "gpus", f"GPU {gpu} of {host} already belongs to {gpus[host, gpu]}"
            gpus.setdefault((host, gpu), who)
        name = _member_name(model, rank)
        if (host, name) in names:
            yield "replica", f"{names[host, name]} of {host} is already named {name!r}"
        names.setdefault((host, name), who)
