"""Before the first change: the plan of a new rollout, and the newest ledger of an old one."""

from __future__ import annotations

import getpass
import os
import platform
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor

from farrier.fleet import ShellError
from farrier.rollout.capacity import Room, can_drain
from farrier.rollout.errors import RefusedError, RolloutError
from farrier.rollout.host import Host, Look
from farrier.rollout.ledger import (
    HostRecord,
    Ledger,
    LedgerError,
    Operator,
    Options,
    decode,
)
from farrier.rollout.looking import PARALLEL
from farrier.rollout.one_host import replica_record
from farrier.rollout.plan import Kind, Plan, Wanted, make_plan
from farrier.rollout.store import Store, new_id

__all__ = ["every", "find", "go_on_with", "myself", "new_ledger", "refuse_gaps", "wanted"]


def myself() -> str:
    """Who I am, for others: ``alice@laptop``."""
    user = os.environ.get("SUDO_USER") or getpass.getuser()
    return f"{user}@{platform.node() or 'unknown'}"


def wanted(kind: Kind, options: Options) -> Wanted:
    """What the plan needs of *options*."""
    return Wanted(
        kind=kind,
        limit=options.limit,
        models=options.models,
        pending=options.pending,
        batch=options.batch,
        max_unavailable=options.max_unavailable,
        first=options.first,
        canary=options.canary is not None,
        replicas=options.replicas,
    )


def new_ledger(
    kind: Kind, options: Options, looks: Mapping[str, Look | None]
) -> tuple[Ledger, Plan]:
    """The ledger of a rollout that has not begun. Raises UsageError, RefusedError."""
    fleet = {name: look.seen if look else None for name, look in looks.items()}
    plan = make_plan(wanted(kind, options), fleet)
    now = time.time()
    hosts = []
    for batch, members in enumerate(plan.batches):
        for one in members:
            seen = fleet[one.host]
            assert seen is not None  # noqa: S101 - a plan has only hosts that answered
            names = [it.name for it in one.replicas]
            hosts.append(
                HostRecord(
                    host=one.host,
                    batch=batch,
                    replicas=[replica_record(seen, name) for name in names],
                    back=kind == "rollback",
                    boot_before=seen.boot_id,
                    agent_before=seen.agent,
                    verdict_before=seen.verdict,
                    gpus_before=seen.gpus,
                )
            )
    ledger = Ledger(
        id=new_id(now),
        kind=kind,
        options=options,
        operators=[Operator(holder=myself(), since_at=now, pid=os.getpid())],
        hosts=hosts,
        left_out=[f"{one.what}: {one.why}" for one in plan.left_out],
        planned_at=now,
    )
    return ledger, plan


def refuse_gaps(plan: Plan, looks: Mapping[str, Look | None], options: Options) -> list[Room]:
    """The room for each batch as things are now. Raises RefusedError where a model were gone."""
    fleet = [look.seen if look else None for look in looks.values()]
    rooms: list[Room] = []
    for batch in plan.batches:
        drained = {one.host: [it.name for it in one.replicas] for one in batch}
        rooms += can_drain(
            drained,
            fleet,
            limit=options.max_in_flight,
            allow_gap=options.allow_gap,
            max_unavailable=options.max_unavailable,
        )
    if plan.kind == "converge":
        # which engines it will restart is known only then: each is asked for before its drain
        return []
    if gaps := [one for one in rooms if one.gap]:
        said = "; ".join(dict.fromkeys(one.why or "" for one in gaps))
        names = " ".join(dict.fromkeys(f"--model {one.model}" for one in gaps))
        raise RefusedError(
            f"{said}\n  nothing was changed",
            "the same with --allow-gap, if that gap may be;"
            f" or first another replica ({names} has one)",
        )
    return rooms


def every(store: Store, hosts: Iterable[Host], rollout: str | None = None) -> list[Ledger]:
    """The newest copy of each ledger that is here or on one of *hosts*, the newest rollout first.

    Only that of *rollout*, with one.
    """
    found: dict[str, Ledger] = {}
    with ThreadPoolExecutor(PARALLEL) as pool:
        copies = [one for some in pool.map(lambda it: _copies(it, rollout), hosts) for one in some]
    for one in (*store.all(), *copies):
        if rollout in {None, one.id} and (one.id not in found or found[one.id].age < one.age):
            found[one.id] = one
    return sorted(found.values(), key=lambda one: (one.planned_at, one.id), reverse=True)


def find(store: Store, hosts: Iterable[Host], rollout: str | None) -> Ledger:
    """The newest copy of ledger *rollout*; None: that of the newest rollout that is not over.

    Raises RolloutError where there is none.
    """
    found = every(store, hosts, rollout)
    if rollout is None:
        found = [one for one in found if not one.over]
    if not found:
        what = f"no rollout {rollout}" if rollout else "no unfinished rollout"
        raise RolloutError(f"{what}, here or on a host", "farrier rollout list --fleet")
    return found[0]


def go_on_with(ledger: Ledger) -> None:
    """Be the one who drives *ledger* from now on. Raises RefusedError where it is over."""
    if ledger.over:
        raise RefusedError(f"{ledger.id} is over: {ledger.outcome}", "farrier rollout show")
    ledger.operators.append(Operator(holder=myself(), since_at=time.time(), pid=os.getpid()))


def _copies(host: Host, rollout: str | None) -> list[Ledger]:
    """What a host keeps; one that cannot be asked keeps nothing for us."""
    try:
        names = [one.id for one in host.ledgers() if rollout is None or one.id == rollout][:3]
        return [
            decode(data, f"{host.name}: ledger {name}")
            for name in names
            if (data := host.ledger(name)) is not None
        ]
    except (ShellError, RolloutError, LedgerError):
        return []
