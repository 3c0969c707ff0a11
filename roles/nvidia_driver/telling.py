"""Tells a rollout what this run plans for a host: see :mod:`farrier.nvidia.planned`.

Nothing is told, and nothing more is asked of the host, where nobody asked for it.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from pyinfra import host

from farrier.converge.report import why_refused
from farrier.nvidia.planned import FILE, DriverPlan, tell
from roles.nvidia_driver.plan import module_of
from roles.nvidia_driver.simulation import judge, told_steps
from roles.nvidia_driver.transaction import OffersFact

if TYPE_CHECKING:
    from collections.abc import Mapping

    from roles.nvidia_driver.look import Look
    from roles.nvidia_driver.operations import Plan
    from roles.nvidia_driver.transaction import Rehearsal

__all__ = ["tell_planned", "tell_refused", "tell_rehearsed"]


def tell_refused(look: Look, values: Mapping[str, Any], why: str) -> None:
    """The plan came to nothing, because of *why*."""
    if FILE not in os.environ:
        return
    wanted = values["nvidia_driver_version"] or values["nvidia_driver_branch"]
    words = f"nothing can be done for {wanted}"
    tell(DriverPlan(host=host.name, kind="refused", words=words, **_found(look, why)))


def tell_planned(look: Look, plan: Plan) -> None:
    """What was decided, before apt was asked. Where apt is asked, that is told after this."""
    if FILE not in os.environ:
        return
    module = plan.wanted.module
    target = look.own.target.get(module) if plan.decision.kind == "repair" else None
    tell(
        DriverPlan(
            kind=plan.decision.kind,
            **_decided(plan),
            version=target or look.installed.get(module),
            **_found(look),
        )
    )


def tell_rehearsed(rehearsal: Rehearsal | None, look: Look, plan: Plan) -> None:
    """What apt would do for it."""
    if FILE not in os.environ:
        return
    problems: list[str] = []
    said: dict[str, Any] = {}
    if rehearsal is not None:  # else its apt does not know the source: there is no version
        said = {"version": rehearsal.version, "offers": rehearsal.offers}
        if rehearsal.version is not None:
            simulation = rehearsal.simulation
            problems = list(judge(simulation, plan.wanted, look.installed))
            said["steps"] = told_steps(simulation)
        elif rehearsal.offers and plan.decision.kind != "keep":
            problems = [
                f"{plan.wanted.module} {plan.settings.wanted} is not on offer from source"
                f" {plan.settings.source}, which has {', '.join(rehearsal.offers)}"
            ]
    if plan.decision.kind == "keep":
        said["version"] = look.installed.get(plan.wanted.module)
    found = _found(look, *problems)
    tell(DriverPlan(kind=plan.decision.kind, **_decided(plan), **said, **found))


def _decided(plan: Plan) -> dict[str, Any]:
    return {
        "host": host.name,
        "words": plan.decision.words,
        "branch": plan.settings.branch,
        "source": plan.settings.source,
        "flavour": plan.wanted.flavour,
        "module": plan.wanted.module,
    }


def _found(look: Look, *problems: str) -> dict[str, Any]:
    """What is there now, and why nothing may be done."""
    there = module_of(look.installed)
    version = look.installed.get(there) if there else None
    offers = host.get_fact(OffersFact, module=there) if there else None
    preflight = why_refused(host.name)
    return {
        "module_before": there,
        "version_before": version,
        "back_on_offer": None if offers is None or version is None else version in offers,
        "loaded": look.driver.loaded,
        "inventory": _of_inventory("nvidia_driver_version"),
        "refusals": tuple(one for one in (preflight, *problems) if one),
    }


def _of_inventory(name: str) -> str | None:
    """What the inventory says, whatever was asked for on the command line."""
    there_are = (host.host_data, host.group_data, host.inventory.data)
    value = next((data[name] for data in there_are if name in data), None)
    return None if value is None else str(value)
