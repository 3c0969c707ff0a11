"""From the fleet's hosts to routes: each model, and the replicas that serve it.

Pure; what a route becomes in HAProxy's words is :mod:`.configuration`'s.
"""

from __future__ import annotations

import re
import zlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from farrier.spec import ApiKey, HostSpec

__all__ = ["WHOLE", "Route", "Server", "backend_names", "host_label", "routes"]

WHOLE = 100
"""A replica's weight where the inventory names none."""
HEAVIEST = 256
"""HAProxy's largest weight."""


@dataclass(frozen=True, slots=True)
class Server:
    """One replica as the gateway sees it: *name* is ``HOST:REPLICA``.

    *address* and *port* are the host's nginx's, *check_port* is where its agent answers.
    *weight* is its share against the other replicas of its model; 0: none. *number* is a number
    that belongs to the name, whatever else is in the fleet (consistent hashing goes by it).
    """

    name: str
    address: str
    port: int
    check_port: int
    replica: str
    weight: int
    number: int

    @property
    def target(self) -> str:
        """Address and port as HAProxy writes them."""
        address = f"[{self.address}]" if ":" in self.address else self.address
        return f"{address}:{self.port}"


@dataclass(frozen=True, slots=True)
class Route:
    """One model: *backend* is its name in HAProxy, *servers* are its replicas by name.

    *adapters* are the LoRA adapters that all of its replicas serve. One that only some of them
    serve is a route of its own, *of* the model.
    """

    model: str
    backend: str
    servers: tuple[Server, ...]
    adapters: tuple[str, ...] = ()
    of: str | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """What clients may ask for that goes here."""
        return (self.model, *self.adapters)

    def may_use(self, key: ApiKey, name: str) -> bool:
        """Whether the client of *key* may use *name*: who may use a model may use its adapters."""
        return key.may_use(name) or key.may_use(self.of or self.model)

    @property
    def every(self) -> str:
        """The backend of the same servers that asks no host whether its nginx answers."""
        return f"_every:{self.backend}"


def routes(
    fleet: Iterable[HostSpec], weights: Mapping[str, int] | None = None
) -> tuple[Route, ...]:
    """The routes of *fleet* by model; *weights* maps ``HOST:REPLICA`` to other weights than 100.

    Raises :class:`ValueError` for a weight that is none, or of a replica that is none.
    """
    weights = dict(weights or {})
    found: defaultdict[str, list[Server]] = defaultdict(list)
    adapters: defaultdict[str, defaultdict[str, list[Server]]]
    adapters = defaultdict(lambda: defaultdict(list))
    for host in sorted(fleet, key=lambda host: host.name):
        for model in host.models:
            name = f"{host_label(host.name)}:{model.replica}"
            server = Server(
                name=name,
                address=host.address,
                port=host.nginx_port,
                check_port=host.agent.check_port,
                replica=model.replica,
                weight=_weight(name, weights.pop(name, WHOLE)),
                number=0,
            )
            found[model.name].append(server)
            for adapter in model.adapters:
                adapters[model.name][adapter].append(server)
    if weights:
        known = ", ".join(server.name for servers in found.values() for server in servers)
        raise ValueError(
            f"gateway_weights: {', '.join(sorted(map(repr, weights)))} is no replica of the fleet;"
            f" there are: {known or 'none'}"
        )
    everywhere = {
        model: tuple(sorted(one for one, at in its.items() if len(at) == len(found[model])))
        for model, its in adapters.items()
    }
    apart = {
        one: (model, servers)
        for model, its in adapters.items()
        for one, servers in its.items()
        if one not in everywhere[model]
    }
    names = backend_names([*found, *apart])
    return tuple(
        Route(model, names[model], _numbered(found[model]), everywhere.get(model, ()))
        if model in found
        else Route(model, names[model], _numbered(apart[model][1]), of=apart[model][0])
        for model in sorted({*found, *apart})
    )


def _weight(name: str, weight: object) -> int:
    if not isinstance(weight, int) or isinstance(weight, bool) or not 0 <= weight <= HEAVIEST:
        raise ValueError(
            f"gateway_weights[{name!r}]: must be a whole number from 0 to {HEAVIEST}, 100 is a"
            f" replica's usual weight; not {weight!r}"
        )
    return weight


def _numbered(servers: Sequence[Server]) -> tuple[Server, ...]:
    """*servers* with numbers of their own, which do not change when others come or go."""
    taken: set[int] = set()
    numbered = []
    for server in sorted(servers, key=lambda server: server.name):
        number = zlib.crc32(server.name.encode()) % 0x7FFFFFFF + 1
        while number in taken:
            number = number % 0x7FFFFFFF + 1
        taken.add(number)
        numbered.append(
            Server(
                server.name,
                server.address,
                server.port,
                server.check_port,
                server.replica,
                server.weight,
                number,
            )
        )
    return tuple(numbered)


def host_label(host: str) -> str:
    """The host's part of a server's name: pyinfra's ``@ssh/gpu01`` is ``gpu01``."""
    return re.sub(r"[^A-Za-z0-9.-]", "-", host.rpartition("/")[2].lstrip("@"))


def backend_names(models: Iterable[str]) -> dict[str, str]:
    """A name in HAProxy's alphabet for each of *models*: ``Qwen/Qwen3`` is ``Qwen:Qwen3``.

    Where two models would have the same name, each of them ends in a checksum of its own.
    """
    plain = {model: model.replace("/", ":") for model in models}
    claimed = list(plain.values())
    return {
        model: name if claimed.count(name) == 1 else f"{name}-{zlib.crc32(model.encode()):08x}"
        for model, name in plain.items()
    }
