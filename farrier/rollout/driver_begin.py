"""Before a driver is changed anywhere: what the role plans on every host, and what is refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from farrier.nvidia.planned import DriverPlan
from farrier.rollout.deploying import Driver, plan_driver
from farrier.rollout.driver_plan import check_version, note_plan, refuse, settled
from farrier.rollout.errors import RefusedError
from farrier.rollout.host import Look
from farrier.rollout.ledger import Ledger, Options
from farrier.rollout.store import Store

__all__ = ["note_plans", "with_plans"]


def with_plans(
    looks: Mapping[str, Look | None], options: Options, store: Store
) -> tuple[dict[str, Look | None], dict[str, DriverPlan]]:
    """The *looks*, in which hosts say where there is nothing to do, and the plan of each host.

    Nothing is changed by that. Raises UsageError, RolloutError.
    """
    check_version(options.driver)
    names = [
        name
        for name, look in looks.items()
        if look is not None and (not options.limit or name in options.limit)
    ]
    store.directory.mkdir(parents=True, exist_ok=True)
    log = store.directory / "driver-plan.log"
    plans = plan_driver(names, options.inventory, Driver(options.driver), log)
    found = dict(looks)
    for name in names:
        look = looks[name]
        if look is not None:
            why = settled(plans.get(name), look.seen)
            found[name] = replace(look, seen=replace(look.seen, settled=why))
    return found, plans


def note_plans(ledger: Ledger, plans: Mapping[str, DriverPlan], looks: Mapping[str, Look]) -> None:
    """Write into *ledger* what is planned. Raises RefusedError where one host must not be begun."""
    refused = []
    for record in ledger.hosts:
        plan = plans[record.host]
        try:
            refuse(plan, no_way_back=ledger.options.no_way_back)
        except RefusedError as error:
            refused.append(error)
        note_plan(record, plan)
        record.driver_loaded = looks[record.host].seen.driver
    if refused:
        raise RefusedError("\n  ".join(one.what for one in refused), refused[0].next)
