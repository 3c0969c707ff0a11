"""What a driver's plan means for a host: nothing to do, refused, or this. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator

from farrier.nvidia.planned import DriverPlan, upstream
from farrier.rollout.errors import RefusedError, UsageError
from farrier.rollout.records import HostRecord
from farrier.rollout.seen import HostSeen

__all__ = ["check_version", "has_way_back", "note_plan", "plan_words", "refuse", "settled"]

_VERSION = re.compile(r"(?:[0-9]+:)?[0-9]{3}(?:\.[0-9]+){1,2}(?:-[A-Za-z0-9.+~-]+)?")
NO_DRIVER = "no NVIDIA driver is wanted there"


def check_version(version: str | None) -> None:
    """Raise UsageError where *version* is none."""
    if version is not None and not _VERSION.fullmatch(version):
        raise UsageError(
            f"--to {version}: a version such as 580.95.05, or a package's whole version"
        )


def settled(plan: DriverPlan | None, seen: HostSeen) -> str | None:
    """Why nothing is to be done on the host that is *seen*; None: something is."""
    if plan is None:
        return NO_DRIVER
    if plan.kind != "keep" or plan.version_before is None:
        return None
    if seen.acting is not None:
        return None  # a rollout left it half done
    there = upstream(plan.version_before)
    return f"driver {there} is there already" if (seen.driver or plan.loaded) == there else None


def refuse(plan: DriverPlan, *, no_way_back: bool) -> None:
    """Raise RefusedError where it must not be begun."""
    again = f"farrier rollout driver --limit {plan.host}"
    if plan.refusals or plan.kind in {"refused", "leave"}:
        why = "; ".join(one.removeprefix("- ") for one in plan.refusals) or plan.words
        offered = f"farrier exec {plan.host} -- apt-get update; then " if plan.offers else ""
        raise RefusedError(f"{plan.host}: nothing was drained: {why}", f"{offered}{again} --dry")
    if plan.version is None:
        raise RefusedError(
            f"{plan.host}: nothing was drained: its apt does not know source {plan.source} yet, so"
            " nobody can say which version comes",
            f"pyinfra --limit {plan.host} inventory deploys/llm.py; then {again} --dry",
        )
    if no_way_back or plan.kind == "keep" or has_way_back(plan):
        return
    if plan.version_before is None:
        why = "there is no driver to go back to"
    elif plan.back_on_offer is None:
        why = f"whether {plan.version_before} is still on offer is not known"
    else:
        why = f"{plan.version_before}, which is installed, is no longer on offer"
    raise RefusedError(
        f"{plan.host}: nothing was drained: {why}: it could not be put back if a gate fails",
        f"{again} --no-way-back, if that may be",
    )


def has_way_back(plan: DriverPlan | None) -> bool:
    """What is installed before can be installed again."""
    return plan is not None and plan.version_before is not None and plan.back_on_offer is True


def note_plan(record: HostRecord, plan: DriverPlan) -> None:
    """Write *plan* into the *record* of its host."""
    record.driver = plan
    record.driver_before = upstream(plan.version_before) if plan.version_before else None
    record.driver_wanted = upstream(plan.version) if plan.version else None


def plan_words(plan: DriverPlan) -> Iterator[str]:
    """The plan for people, a line for each thing."""
    before = plan.version_before or "none"
    after = plan.version or "not known"
    yield f"driver {before} → {after} ({plan.module or '?'}, source {plan.source})"
    if plan.kind != "change":
        yield f"  {plan.words}"
    shown = plan.steps[:20]
    yield from (f"  {step}" for step in shown)
    if more := len(plan.steps) - len(shown):
        yield f"  and {more} more"
    if has_way_back(plan):
        yield f"way back: {plan.version_before} is on offer"
    else:
        yield "way back: none"
