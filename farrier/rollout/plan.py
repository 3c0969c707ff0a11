"""Which hosts a rollout touches, which of their replicas, in which order and batches. Pure.

Order: first the hosts of ``first``, as they were named; then those that serve nobody, which cost
no capacity; then the rest as the inventory sorts them. The first batch is the canary: the hosts of
``first``, or a single host. A replica that somebody else keeps drained is left out, for it is his.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from farrier.rollout.errors import RefusedError, UsageError
from farrier.rollout.seen import HostSeen, ReplicaSeen

__all__ = [
    "BOARDS",
    "DRIVERS",
    "LETS_GO",
    "RESTARTS",
    "Kind",
    "LeftOut",
    "Plan",
    "Planned",
    "Wanted",
    "batch_size",
    "make_plan",
]

Kind = Literal[
    "restart",
    "converge",
    "reboot",
    "run",
    "rollback",
    "driver",
    "driver-back",
    "gpu-reset",
    "gpu-diag",
]
"""``driver-back`` is never asked for: it is what a host of ``driver`` does that is put back."""
RESTARTS: frozenset[Kind] = frozenset({"restart", "converge", "rollback"})
"""Those whose act is a restart of replicas."""
DRIVERS: frozenset[Kind] = frozenset({"driver", "driver-back"})
"""Those that change the driver."""
BOARDS: frozenset[Kind] = frozenset({"gpu-reset", "gpu-diag"})
"""Those that are about GPUs of one host."""
LETS_GO: frozenset[Kind] = DRIVERS | BOARDS
"""Those for which the host lets go of its GPUs, and takes them up again."""
_WHOLE: frozenset[Kind] = frozenset({"reboot", "run", "driver"})
"""Those that are of all replicas of a host."""

NOTHING_BACK = "there is nothing to go back to"


@dataclass(frozen=True)
class Wanted:
    """What was asked for.

    ``limit`` are hosts' names (all hosts that serve, without one), ``models`` those whose replicas
    are meant, ``pending`` only replicas that run an older configuration; of a reboot also hosts
    whose upgraded packages ask for one. ``batch`` is a number of hosts or a share of them
    (``25%``). At no time more than ``max_unavailable`` replicas of one model are not ready, those
    included that were not before; None: as many as a batch makes. With ``canary`` the first batch
    is a single host, whatever ``first`` names. ``replicas`` are names of one host's (all, without
    one).
    """

    kind: Kind
    limit: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    pending: bool = False
    batch: str = "1"
    max_unavailable: int | None = None
    first: tuple[str, ...] = ()
    canary: bool = False
    replicas: tuple[str, ...] = ()


@dataclass(frozen=True)
class Planned:
    """One host of the plan and the replicas that are drained there."""

    host: str
    replicas: tuple[ReplicaSeen, ...]


@dataclass(frozen=True)
class LeftOut:
    """A host or a replica (``HOST:REPLICA``) that the rollout does not touch, and why."""

    what: str
    why: str


@dataclass(frozen=True)
class Plan:
    """Batches one after the other; the hosts of one at the same time."""

    kind: Kind
    batches: tuple[tuple[Planned, ...], ...]
    left_out: tuple[LeftOut, ...] = ()

    @property
    def hosts(self) -> tuple[Planned, ...]:
        """All hosts in their order."""
        return tuple(one for batch in self.batches for one in batch)


def make_plan(wanted: Wanted, fleet: Mapping[str, HostSeen | None]) -> Plan:
    """The plan for *fleet*: every host that serves, None where it could not be asked.

    Raises UsageError for names that are not there, RefusedError where the plan cannot keep to
    ``max_unavailable`` or a wanted host could not be asked.
    """
    _known("host", (*wanted.limit, *wanted.first), fleet)
    present = {one.model for host in fleet.values() if host for one in host.replicas}
    if None not in fleet.values():
        _known("model", wanted.models, present)
    names = [name for name in fleet if not wanted.limit or name in wanted.limit]
    if stray := [name for name in wanted.first if name not in names]:
        raise UsageError(f"--first {stray[0]}: it is not among the hosts of --limit")
    if silent := [name for name in names if fleet[name] is None]:
        raise RefusedError(
            f"{', '.join(silent)}: could not be asked, so nothing was changed anywhere",
            f"farrier status {' '.join(silent)}; or leave them out with --limit",
        )
    hosts, left = _select(wanted, [one for name in names if (one := fleet[name])])
    if stray := [name for name in wanted.first if name not in {one.host for one in hosts}]:
        why = next((one.why for one in left if one.what.split(":")[0] == stray[0]), "")
        raise UsageError(f"--first {stray[0]}: there is nothing to do on it: {why}")
    ordered = sorted(hosts, key=lambda one: _rank(one, wanted.first, names))
    size = batch_size(wanted.batch, len(ordered))
    batches = _batches(ordered, size, 1 if wanted.canary else len(wanted.first) or 1)
    if wanted.max_unavailable is not None:
        batches = _bounded(batches, wanted.max_unavailable, fleet)
    return Plan(wanted.kind, batches, tuple(left))


def batch_size(batch: str, hosts: int) -> int:
    """How many hosts ``N`` or ``P%`` of *hosts* are, at least one. Raises UsageError."""
    number = batch.removesuffix("%")
    if not (number.isascii() and number.isdigit()) or int(number) == 0:
        raise UsageError(f"--batch {batch}: a number of hosts, or a share like 25%")
    if batch.endswith("%"):
        if int(number) > 100:
            raise UsageError(f"--batch {batch}: more than all hosts")
        return max(1, hosts * int(number) // 100)
    return int(number)


def _known(what: str, wanted: Iterable[str], there: Iterable[str]) -> None:
    there = set(there)
    if unknown := sorted(set(wanted) - there):
        names = ", ".join(sorted(there)) or "none"
        raise UsageError(f"no {what} {', '.join(unknown)} that serves; there are: {names}")


def _select(wanted: Wanted, hosts: Sequence[HostSeen]) -> tuple[list[Planned], list[LeftOut]]:
    chosen: list[Planned] = []
    left: list[LeftOut] = []
    whole = wanted.kind in _WHOLE

    def by(one: ReplicaSeen) -> tuple[str, ...]:
        """Who keeps it drained so that it is left out."""
        if wanted.kind in BOARDS:
            return ()  # a sick GPU's replicas are drained for it; READY opens only what is ours
        return one.held_by_people if wanted.kind == "reboot" else one.held_by

    for host in hosts:
        if host.settled:
            left.append(LeftOut(host.host, host.settled))
            continue
        meant = [
            one
            for one in host.replicas
            if (not wanted.models or one.model in wanted.models)
            and (not wanted.replicas or one.name in wanted.replicas)
        ]
        if not meant and wanted.kind != "converge":
            left.append(LeftOut(host.host, "serves no such model" if host.replicas else "no model"))
            continue
        held = {one.name: who for one in (host.replicas if whole else meant) if (who := by(one))}
        left += [
            LeftOut(f"{host.host}:{name}", f"kept drained by {who[0]}")
            for name, who in held.items()
        ]
        if held and whole:
            continue  # a reboot is of all of them
        replicas = [one for one in (host.replicas if whole else meant) if one.name not in held]
        if wanted.pending:
            due = wanted.kind == "reboot" and host.reboot_required
            if not due and not any(one.pending for one in replicas):
                none = "no reboot and no restart" if wanted.kind == "reboot" else "no restart"
                left.append(LeftOut(host.host, f"{none} is pending"))
                continue
            replicas = replicas if whole else [one for one in replicas if one.pending]
        if wanted.kind == "rollback":
            left += [
                LeftOut(f"{host.host}:{one.name}", NOTHING_BACK) for one in replicas if not one.back
            ]
            replicas = [one for one in replicas if one.back]
        if replicas or wanted.kind == "converge":
            chosen.append(Planned(host.host, tuple(replicas)))
    return chosen, left


def _rank(one: Planned, first: Sequence[str], names: Sequence[str]) -> tuple[int, int]:
    if one.host in first:
        return 0, first.index(one.host)
    return (2 if any(it.serves for it in one.replicas) else 1), names.index(one.host)


def _batches(hosts: Sequence[Planned], size: int, canary: int) -> tuple[tuple[Planned, ...], ...]:
    canary = min(canary, size) if canary > 1 else canary
    head, rest = hosts[:canary], hosts[canary:]
    batches = [tuple(head)] if head else []
    batches += [tuple(rest[at : at + size]) for at in range(0, len(rest), size)]
    return tuple(batches)


def _bounded(
    batches: Iterable[tuple[Planned, ...]], bound: int, fleet: Mapping[str, HostSeen | None]
) -> tuple[tuple[Planned, ...], ...]:
    """The same order, cut where a batch would make more than *bound* of a model unready."""
    down: dict[str, set[tuple[str, str]]] = {}
    for known in filter(None, fleet.values()):
        for one in known.replicas:
            if not one.serves:
                down.setdefault(one.model, set()).add((known.host, one.name))
    bounded: list[tuple[Planned, ...]] = []
    for batch in batches:
        present: list[Planned] = []
        for host in batch:
            if present and _over([*present, host], bound, down):
                bounded.append(tuple(present))
                present = []
            if over := _over([*present, host], bound, down):
                model, count = over
                raise RefusedError(
                    f"--max-unavailable {bound}: with {host.host} drained {count} replicas of"
                    f" {model} would not be ready"
                )
            present.append(host)
        bounded.append(tuple(present))
    return tuple(bounded)


def _over(
    batch: Sequence[Planned], bound: int, down: Mapping[str, set[tuple[str, str]]]
) -> tuple[str, int] | None:
    """The first model of which *batch* makes too many unready, and how many.

    A replica that serves nobody makes nothing worse.
    """
    for model in {one.model for host in batch for one in host.replicas}:
        touched = {
            (host.host, one.name)
            for host in batch
            for one in host.replicas
            if one.model == model and one.serves
        }
        count = len(touched | down.get(model, set()))
        if touched and count > bound:
            return model, count
    return None
