"""Whom a host's nginx lets in: gateways by their address, clients by their key. No I/O here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from farrier.spec import ApiKey, HostSpec

__all__ = ["Clients", "ModelsBarred", "Rate", "Streams", "clients", "key_map"]

LOOPBACK = ("127.0.0.1", "::1")


@dataclass(frozen=True)
class Rate:
    """Keys (by name) that may send *per_minute* requests a minute."""

    per_minute: int
    keys: tuple[str, ...]

    @property
    def retry_after(self) -> int:
        """Seconds until one of its keys may send another one."""
        return -(-60 // self.per_minute)


@dataclass(frozen=True)
class Streams:
    """Keys (by name) that may have *at_once* requests in flight."""

    at_once: int
    keys: tuple[str, ...]


@dataclass(frozen=True)
class ModelsBarred:
    """Keys (by name) that may not use the model of *replica*."""

    replica: str
    keys: tuple[str, ...]


@dataclass(frozen=True)
class Clients:
    """Who is let in, and how far.

    ``addresses`` are those of gateways, single ones or networks; ``names`` are gateways that the
    host itself has to find the address of. ``gateways_only``: everybody else gets 403.
    ``keys``: everybody else needs one of the host's keys, and ``rates``, ``streams`` and ``barred``
    hold for these keys. With neither, anybody is let in.
    """

    addresses: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    gateways_only: bool = False
    keys: bool = False
    rates: tuple[Rate, ...] = ()
    streams: tuple[Streams, ...] = ()
    barred: tuple[ModelsBarred, ...] = ()

    def bars(self, replica: str) -> bool:
        """Whether any key may not use the model of *replica*."""
        return any(one.replica == replica for one in self.barred)


def clients(
    spec: HostSpec, settings: Mapping[str, Any], gateways: Sequence[HostSpec] = ()
) -> Clients:
    """Whom the nginx of *spec* lets in, in a fleet with these *gateways*."""
    addresses: list[str] = list(settings["nginx_gateways"])
    names: list[str] = []
    for gateway in gateways:
        (addresses if _is_ip(gateway.address) else names).append(gateway.address)
        if gateway.name == spec.name:
            addresses += LOOPBACK
    known = Clients(tuple(dict.fromkeys(addresses)), tuple(dict.fromkeys(names)))
    if (settings["nginx_clients"] or ("gateways" if gateways else "keys")) == "gateways":
        return replace(known, gateways_only=True)
    if spec.open_access:
        return known
    keys = [spec.api_keys[name] for name in sorted(spec.api_keys)]
    barred = (
        ModelsBarred(model.replica, tuple(key.name for key in keys if not key.may_use(model.name)))
        for model in spec.models
    )
    return replace(
        known,
        keys=True,
        rates=tuple(
            Rate(limit, names)
            for limit, names in _by_limit((key.requests_per_minute, key.name) for key in keys)
        ),
        streams=tuple(
            Streams(limit, names)
            for limit, names in _by_limit((key.streams, key.name) for key in keys)
        ),
        barred=tuple(one for one in barred if one.keys),
    )


def key_map(keys: Mapping[str, ApiKey]) -> str:
    """The lines of nginx's map from a key's SHA-256 to its name."""
    lines = sorted(f"{key.sha256} {key.name};\n" for key in keys.values())
    return "# SHA-256 of API keys, written by Farrier's role nginx.\n" + "".join(lines)


def _by_limit(pairs: Iterable[tuple[int | None, str]]) -> list[tuple[int, tuple[str, ...]]]:
    """The names of each limit, the smallest limit first; nginx wants a zone for each."""
    found: dict[int, list[str]] = {}
    for limit, name in pairs:
        if limit is not None:
            found.setdefault(limit, []).append(name)
    return [(limit, tuple(found[limit])) for limit in sorted(found)]


def _is_ip(address: str) -> bool:
    try:
        ip_address(address)
    except ValueError:
        return False
    return True
