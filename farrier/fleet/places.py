"""``HOST`` and ``HOST/REPLICA`` as people type them. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from farrier.fleet.target import FleetTargets, ReplicaOf, Target

__all__ = ["Place", "PlaceError", "patterns", "resolve", "split"]


class PlaceError(ValueError):
    """What was typed names nothing; the message says what there is."""


@dataclass(frozen=True)
class Place:
    """A host, and those of its replicas that are meant."""

    target: Target
    replicas: tuple[ReplicaOf, ...]

    @property
    def whole(self) -> bool:
        """Every replica of the host is meant."""
        return self.replicas == self.target.replicas


def split(word: str) -> tuple[str, str | None]:
    """*word* as host (a name, a pattern or a group) and replica, None without one.

    The names of pyinfra's connectors have a slash of their own: ``@ssh/gpu01/tiny``.
    """
    at = word.find("/", word.find("/") + 1 if word.startswith("@") else 0)
    if at < 0:
        return word, None
    return word[:at], word[at + 1 :]


def patterns(words: Iterable[str]) -> tuple[str, ...]:
    """The hosts in *words*, for the inventory's limit."""
    return tuple(dict.fromkeys(split(word)[0] for word in words))


def resolve(
    words: Iterable[str], fleet: FleetTargets, *, serving: bool = False
) -> tuple[Place, ...]:
    """The places that *words* mean in *fleet*, each host once, in the order of the inventory.

    With *serving* hosts without replicas are passed over. Raises :class:`PlaceError` for a word by
    which nothing is meant then.
    """
    meant: dict[str, set[str] | None] = {}
    for word in words:
        host, replica = split(word)
        hosts = _matching(host, fleet)
        having = [one for one in hosts if _has(one, replica, serving)]
        if not having:
            raise PlaceError(_nothing(word, replica or "", hosts))
        for one in having:
            before = meant.get(one.name, set())
            whole = replica is None or before is None
            meant[one.name] = None if whole else {*(before or ()), str(replica)}
    return tuple(
        _place(target, meant[target.name]) for target in fleet.every if target.name in meant
    )


def _place(target: Target, names: set[str] | None) -> Place:
    if names is None:
        return Place(target, target.replicas)
    return Place(target, tuple(one for one in target.replicas if one.replica in names))


def _has(target: Target, replica: str | None, serving: bool) -> bool:
    if replica is None:
        return bool(target.replicas) or not serving
    return target.replica(replica) is not None


def _matching(pattern: str, fleet: FleetTargets) -> list[Target]:
    """As pyinfra's --limit: a group, or a pattern of names."""
    members = list(fleet.group(pattern))
    return members or [one for one in fleet.every if fnmatchcase(one.name, pattern)]


def _nothing(word: str, replica: str, hosts: list[Target]) -> str:
    if not hosts:
        return f"{word}: there is no such host"
    there = sorted({f"{one.name}/{each.replica}" for one in hosts for each in one.replicas})
    what = f"no replica {replica} there" if there else "nothing is served there"
    return f"{word}: {what}" + (f"; there is {', '.join(there)}" if there else "")
