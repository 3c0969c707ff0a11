"""The operations: plan, transaction, and the removal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pyinfra import host, logger, state

from farrier.converge.commands import Refuse
from farrier.converge.packages import LOCK_TIMEOUT
from farrier.converge.questions import Question, answer
from farrier.converge.report import note
from farrier.converge.typed import operation
from roles.nvidia_driver.kernels import headers
from roles.nvidia_driver.look import Look, LookFact
from roles.nvidia_driver.names import superseded
from roles.nvidia_driver.plan import PlanError, decide, module_of, upstream, wanted_set
from roles.nvidia_driver.removal import RemovalFact, RemovalPlan
from roles.nvidia_driver.settings import SettingsError, read_settings
from roles.nvidia_driver.simulation import judge, told_steps
from roles.nvidia_driver.telling import tell_planned, tell_refused, tell_rehearsed
from roles.nvidia_driver.transaction import Rehearsal, RehearsalFact, journal, start

if TYPE_CHECKING:
    from collections.abc import Mapping

    from farrier.converge.commands import Commands
    from farrier.facts.roots import Roots
    from roles.nvidia_driver.names import PackageSet
    from roles.nvidia_driver.plan import Decision
    from roles.nvidia_driver.settings import Settings
    from roles.nvidia_driver.simulation import Simulation

__all__ = ["Plan", "decided", "look_question", "planned", "present_plan", "removed", "transacted"]

_PLAN = "farrier_nvidia_driver"


@dataclass(frozen=True, slots=True)
class Plan:
    """What this run has decided about one host."""

    settings: Settings
    wanted: PackageSet
    decision: Decision


def present_plan() -> Plan | None:
    """What this run has decided about the present host, None before it has."""
    plan: Plan | None = host.connector_data.get(_PLAN)
    return plan


def decided(*kinds: str) -> bool:
    """Whether this run decided for one of *kinds* on the present host."""
    plan = present_plan()
    return plan is not None and plan.decision.kind in kinds


def look_question(*arguments: Any) -> Question:
    """The question of an operation whose last argument is the roots."""
    return Question(LookFact, {"roots": arguments[-1]})


def _lock_timeout() -> int:
    return int(host.data.get("apt_lock_timeout", LOCK_TIMEOUT))


@operation(asks=look_question)
def planned(
    values: Mapping[str, Any],
    offered: tuple[str, ...],
    may_change: bool,
    roots: Roots,  # noqa: ARG001 - for the question
) -> Commands:
    """Decide what has to be done about the driver; refuse what must not be. Changes nothing.

    + values: the role's data
    + offered: names of the packages of source directory
    + may_change: whether an installed driver may be exchanged for another one
    + roots: where facts look
    """
    look: Look | None = answer()
    if look is None:
        yield Refuse("the host could not be asked for its driver; see the line above")
        return
    try:
        settings = read_settings(values)
        wanted = wanted_set(settings, look, offered)
        decision = decide(settings, wanted, look, may_change=may_change)
    except (SettingsError, PlanError) as error:
        tell_refused(look, values, str(error))
        yield Refuse(f"nothing was changed on this host: {error}")
        return
    host.connector_data[_PLAN] = Plan(settings, wanted, decision)
    if decision.acts and may_change and look.own.engines:
        units = " ".join(look.own.engines)
        yield Refuse(
            f"nothing was changed on this host: {decision.words}, but {units} would lose the driver"
            f"\nStop what it serves first: ssh {host.name} sudo systemctl stop {units}"
        )
        return
    if decision.kind == "leave":
        note("yours", host.name, decision.words)
    if decision.acts:
        host.log_styled(decision.words, fg="yellow", log_func=logger.info)
    host.noop(decision.words)


@operation(asks=look_question)
def transacted(roots: Roots) -> Commands:  # noqa: ARG001 - for the question
    """Do what :func:`planned` decided: the whole transaction, judged before its first change.

    + roots: where facts look
    """
    look: Look | None = answer()
    plan = present_plan()
    if look is None or plan is None:
        host.noop("nothing was decided")
        return
    tell_planned(look, plan)
    match plan.decision.kind:
        case "leave":
            host.noop("the installed driver is left alone")
        case "repair":
            yield from start("run", _lock_timeout())
        case "keep":
            yield from _kept(look, plan)
        case _:
            yield from _changed(look, plan, plan.settings.wanted)


def _changed(look: Look, plan: Plan, version: str) -> Commands:
    """The transaction to the newest version that begins with *version*."""
    wanted, installed = plan.wanted, look.installed
    needed = headers(look.kernel, look.own.images, look.own.system, look.own.architecture)
    gone = [f"{name}-" for name in superseded(wanted, installed)]
    names = [*wanted.names, *needed.meta, *gone]
    optional = [*wanted.if_offered, *needed.each]
    rehearsal: Rehearsal | None = host.get_fact(
        RehearsalFact,
        module=wanted.module,
        wanted=version,
        names=names,
        optional=optional,
    )
    tell_rehearsed(rehearsal, look, plan)
    if rehearsal is None:
        yield Refuse("the host could not be asked what apt would do; see the line above")
        return
    if rehearsal.version is None and not rehearsal.offers and not state.is_executing:
        words = "apt does not know the source yet: what comes is judged once it does"
        host.log_styled(words, fg="blue", log_func=logger.info)
        yield Refuse(words)  # in a plan: there is something to do
        return
    if rehearsal.version is None:
        if plan.decision.kind == "keep":
            words = f"{plan.decision.words}, which no source has: Farrier does not hold it"
            note("left", host.name, words)
            host.noop(words)
            return
        offers = ", ".join(rehearsal.offers) or "no version at all: look at apt-get update"
        yield Refuse(
            f"nothing of the driver was changed: {wanted.module} {version} is not on"
            f" offer from source {plan.settings.source}, which has {offers}\n"
            "Name one of them as nvidia_driver_version, or another branch or source"
        )
        return
    problems = list(judge(rehearsal.simulation, wanted, installed))
    if problems:
        told = "\n".join(f"- {problem}" for problem in problems)
        yield Refuse(
            f"nothing of the driver was changed; {wanted.module} {rehearsal.version} cannot be"
            f" installed from source {plan.settings.source}:\n{told}\n"
            "Name another nvidia_driver_version, flavour or source in the inventory"
        )
        return
    for release in (name.removeprefix("linux-headers-") for name in rehearsal.unknown):
        if any(kernel.release == release for kernel in look.kernel.kernels):
            note(
                "yours",
                host.name,
                f"kernel {release} gets no driver: its headers are in no source of apt. Boot a"
                " newer kernel, or remove this one",
            )
    _tell(rehearsal.simulation)
    offered = [name for name in needed.each if name not in rehearsal.unknown]
    yield from start(
        "run",
        _lock_timeout(),
        journal(rehearsal.simulation, installed, [*needed.meta, *offered]),
    )


def _tell(simulation: Simulation) -> None:
    for line in told_steps(simulation):
        host.log_styled(line, fg="blue", log_func=logger.info)


def _kept(look: Look, plan: Plan) -> Commands:
    """Guards and modules of the installed driver, as far as Farrier installed it."""
    held = {one.name for one in look.driver.packages if one.held}
    installed = look.installed
    if look.own.recorded is None or look.own.recorded != {
        name: version for name, version in installed.items() if name in look.own.recorded
    }:
        # Someone else installed it: the same transaction takes it over, in the version it has.
        yield from _changed(look, plan, installed[plan.wanted.module])
        return
    version = upstream(installed.get(module_of(installed, plan.wanted) or "", ""))
    unbuilt = [
        kernel.release
        for kernel in look.kernel.kernels
        if kernel.headers and not _built(kernel.dkms, version)
    ]
    unheld = sorted(set(look.own.recorded) - held)
    if look.own.unguarded or unheld or unbuilt:
        yield from start("keep", _lock_timeout())
    else:
        host.noop(f"{plan.decision.words}, built for every kernel, and held")


def _built(dkms: Mapping[str, str], version: str) -> bool:
    states = [state for name, state in dkms.items() if name.endswith(f"/{version}")]
    return bool(states) and all(state == "installed" for state in states)


@operation(asks=lambda: Question(RemovalFact, {}))
def removed() -> Commands:
    """Take away the driver that Farrier installed, and what it alone had brought with it."""
    plan: RemovalPlan | None = answer()
    if plan is None:
        yield Refuse("the host could not be asked for its driver; see the line above")
        return
    if not plan.left:
        host.noop("no driver of Farrier's is here")
        return
    if plan.engines:
        units = " ".join(plan.engines)
        yield Refuse(
            f"{units} would lose the driver; nothing was removed\n"
            f"Stop what it serves first: ssh {host.name} sudo systemctl stop {units}"
        )
        return
    yield from start(" ".join(["remove", *plan.packages]), _lock_timeout())
