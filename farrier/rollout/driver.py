"""The steps of a host whose driver is changed, and the way back.

Forth and back are the same steps with another version: what was there before is proven by the same
gates. A host on which nothing was changed is only taken up again.
"""

from __future__ import annotations

import time

from farrier.rollout.acting import reboot_host
from farrier.rollout.deploying import Deploy, Driver, plan_driver
from farrier.rollout.driver_asked import OnHost, why_reboot
from farrier.rollout.driver_plan import has_way_back, note_plan, refuse, settled
from farrier.rollout.errors import RefusedError, RolloutError
from farrier.rollout.gating import cold_gate, early_gates
from farrier.rollout.one_host import OneHost
from farrier.rollout.records import HostRecord

__all__ = ["can_go_back", "install", "let_go", "plan", "reboot", "take_up"]

FRESH = 300.0
"""Seconds for which the plan of the whole rollout counts; later each host is asked once more."""


def plan(it: OneHost) -> str:
    """Ask the role once more what it would do, before anything is drained."""
    record, options = it.record, it.ledger.options
    age = time.time() - it.ledger.planned_at
    if record.driver is not None and 0 <= age < FRESH and not it.ledger.operators[1:]:
        return f"{record.driver.words}; planned {age:.0f} s ago"
    log = it.around.store.directory / f"{it.ledger.id}-{record.host}-plan.log"
    plans = it.watched(
        lambda: plan_driver([record.host], options.inventory, Driver(options.driver), log)
    )
    found = plans.get(record.host)
    seen = it.look().seen
    if why := settled(found, seen):
        with it.book.changing():
            record.settled = why
        it.tell(why)
        return why
    if found is None:  # settled says so of that
        raise RefusedError(f"{record.host}: the role has no plan")
    refuse(found, no_way_back=options.no_way_back)
    with it.book.changing():
        note_plan(record, found)
        record.driver_loaded = seen.driver or record.driver_loaded
    return found.words


def let_go(it: OneHost) -> str:
    """Stop engines and services, and have the GPUs used by nobody."""
    record = it.record
    loaded = it.look().seen.driver
    names = [one.name for one in record.replicas]
    deed = "driver" if it.kind == "driver-back" else it.kind
    done = it.watched(
        lambda: it.through_cuts(
            lambda: it.host.let_go(names, deed, gpus=it.ledger.options.gpus, on_news=it.news)
        )
    )
    with it.book.changing():
        record.driver_loaded = loaded or record.driver_loaded
        record.let_go = list(dict.fromkeys((*record.let_go, *done.stopped)))
        record.reboots_for = None
        record.unloaded = done.unloaded is True
    said = [f"stopped {', '.join(done.stopped) or 'nothing'}"]
    if done.unloaded is not None:
        said.append("modules unloaded" if done.unloaded else f"modules stay: {done.why}")
    if done.holders:
        said.append(f"has a GPU: {', '.join(done.holders)}")
    return "; ".join(said)


def install(it: OneHost) -> str:
    """Have the role install what is wanted, or what was there before."""
    record, options = it.record, it.ledger.options
    planned = record.driver
    if planned is None:
        raise RolloutError(f"{record.host}: nothing is planned for its driver")
    back = it.kind == "driver-back"
    version = planned.version_before if back else planned.version
    package = planned.module_before if back else planned.module
    found = _asked(it)
    if back and _unchanged(record, found):
        said = f"nothing was changed: driver {version or '-'} is installed"
    else:
        flavour = planned.flavour_before if back else planned.flavour
        log = it.around.store.directory / f"{it.ledger.id}-{record.host}-{it.kind}.log"
        deploy = Deploy([record.host], options.inventory, Driver(version, flavour), log)
        try:
            code, record.output = it.watched(deploy.run)
        finally:
            deploy.stop()
        found = _asked(it)
        if code:
            raise RolloutError(
                f"{record.host}: driver {version} was not installed (exit code {code}):"
                f"\n{record.output}",
                f"less {log}; then farrier rollout resume {it.ledger.id}",
            )
        if package is not None and found.installed.get(package) != version:
            there = found.installed.get(package) or "nothing"
            raise RolloutError(
                f"{record.host}: {package} {version} was to be installed, and {there} is",
                f"less {log}",
            )
        said = f"driver {version} is installed"
    why = why_reboot(found, version, told=record.driver_loaded)
    boot = it.look().seen.boot_id
    with it.book.changing():
        record.reboots_for, record.boot_before = why, boot or record.boot_before
    return f"{said}; {f'to be rebooted: {why}' if why else 'no reboot is needed'}"


def reboot(it: OneHost) -> str:
    """Reboot it for the driver that is installed."""
    reboot_host(it)
    with it.book.changing():
        it.record.driver_loaded = None  # that was in another boot
    return it.record.reboots_for or ""


def take_up(it: OneHost) -> str:
    """Start what was stopped, and wait until the GPUs are what they were."""
    names = [one.name for one in it.record.replicas]
    done = it.watched(lambda: it.through_cuts(lambda: it.host.take_up(names, on_news=it.news)))
    failed = [f"{unit}: {why}" for unit, why in done.failed.items()]
    for one in failed:
        it.tell(f"did not start: {one}")
    early_gates(it, done.failed)
    if engines := [one for one in failed if one.startswith("engine-")]:
        cold_gate(it, RolloutError(f"{it.record.host}: {'; '.join(engines)}"))
    return "; ".join([f"started {', '.join(done.started) or 'nothing'}", *failed])


def can_go_back(it: OneHost) -> bool:
    """Whether what was there before can be had again, or is still there."""
    return has_way_back(it.record.driver) or _unchanged(it.record, _asked(it))


def _asked(it: OneHost) -> OnHost:
    planned = it.record.driver
    packages = (planned.module, planned.module_before) if planned else ()
    return it.watched(lambda: it.through_cuts(lambda: it.host.driver(packages)))


def _unchanged(record: HostRecord, found: OnHost) -> bool:
    """What is installed is what was before, and no transaction is half done."""
    planned = record.driver
    if planned is None or found.half:
        return planned is None
    before = {}
    if planned.module_before is not None and planned.version_before is not None:
        before = {planned.module_before: planned.version_before}
    return dict(found.installed) == before
