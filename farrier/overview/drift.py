"""What differs on a host: from the inventory, and from most others that answered. Pure.

Only what is known is compared: of a host that did not answer nothing is said, and where the hosts
are halves there is no majority. Whether a converge would change a file is not seen here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TypeVar

from farrier.fleet.target import Target
from farrier.overview.rows import HostRow, ReplicaRow

__all__ = ["with_drift"]

T = TypeVar("T")


def with_drift(rows: Sequence[HostRow], targets: Iterable[Target]) -> tuple[HostRow, ...]:
    """*rows* with their drift; *targets* are their hosts as the inventory has them."""
    wanted = {target.name: target for target in targets}
    agent = _majority(row.agent_version for row in rows)
    driver = _majority(row.driver_version for row in rows)
    engines = {
        engine: _majority(
            one.engine_version for row in rows for one in row.replicas if one.engine == engine
        )
        for engine in {one.engine for row in rows for one in row.replicas}
    }

    def told(row: HostRow) -> Iterator[str]:
        if agent and row.agent_version and row.agent_version != agent:
            yield f"agent {row.agent_version}, most others have {agent}"
        if driver and row.driver_version and row.driver_version != driver:
            yield f"driver {row.driver_version}, most others have {driver}"
        for one in row.replicas:
            most = engines[one.engine]
            if most and one.engine_version and one.engine_version != most:
                yield f"{one.replica} runs {one.engine} {one.engine_version}, most others {most}"
            if one.put_back:
                yield (
                    f"{one.replica} was put back to the configuration before the inventory's,"
                    " which the next converge brings again"
                    + (": restart pending" if one.restart_pending else "")
                )
            elif one.restart_pending:
                yield f"{one.replica} runs with an older configuration: restart pending"
        if row.error is None and row.host in wanted:
            yield from _from_inventory(row.replicas, wanted[row.host])

    return tuple(replace(row, drift=tuple(told(row))) for row in rows)


def _from_inventory(there: Sequence[ReplicaRow], target: Target) -> Iterator[str]:
    found = {one.replica: one for one in there}
    for wanted in target.replicas:
        one = found.pop(wanted.replica, None)
        if one is None:
            yield f"{wanted.replica} is in the inventory and not on the host: not converged"
        elif one.model != wanted.model:
            yield f"{wanted.replica} serves {one.model}, the inventory says {wanted.model}"
    for name in found:
        yield f"{name} is on the host and not in the inventory"


def _majority(values: Iterable[T | None]) -> T | None:
    """What more than half of the known *values* are."""
    counted = Counter(value for value in values if value is not None)
    if not counted:
        return None
    most, number = counted.most_common(1)[0]
    return most if number * 2 > counted.total() else None
