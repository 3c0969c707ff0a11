"""What has to be true of a host before a deploy changes the first thing on it.

One command reads the facts, :func:`farrier.preflight.judge` compares them with what the inventory
wants, and every reason is told at once with the line that repairs it. A host that is refused drops
out; the others go on. A run in which nothing else failed ends with 3.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyinfra import host

from farrier.connecting import SUDO_EXPLAINED
from farrier.converge.commands import Refuse
from farrier.converge.questions import Question, answer
from farrier.converge.report import note, refused
from farrier.converge.typed import operation
from farrier.preflight.found import Case, Found
from farrier.preflight.judge import judge
from farrier.preflight.look import Look, questions
from farrier.preflight.rules.disks import MINIMUM_MB
from farrier.preflight.rules.ports import wanted_ports
from farrier.preflight.rules.system import SUPPORTED
from farrier.preflight.wanted import wanted

if TYPE_CHECKING:
    from farrier.converge.commands import Commands
    from farrier.preflight.verdict import Verdict
    from farrier.spec import HostSpec

__all__ = ["MINIMUM_MB", "SUPPORTED", "preflight", "wanted_ports"]


def _look(spec: HostSpec, deploy: str = "llm") -> Question:  # noqa: ARG001 - asked with the same arguments
    return Question(Look, {"questions": questions(wanted(spec, host.data))})


@operation(asks=_look)
def preflight(spec: HostSpec, deploy: str = "llm") -> Commands:
    """Refuse the host, with every reason, unless it is fit for *spec*. Changes nothing.

    + spec: what the host is meant to be
    + deploy: which deploy runs, llm or driver: what its roles repair is no reason
    """
    found: Found | None = answer()
    if found is None:
        yield Refuse(
            host.connector_data.get(SUDO_EXPLAINED)
            or "the host did not let itself be looked at; what it said stands above\n"
            f"Look at: ssh {spec.address} sudo -n true; then run the deploy again"
        )
        return
    verdict = judge(Case(wanted(spec, host.data), found)).within(deploy)
    for reason in verdict.warnings:
        note("attention", host.name, str(reason))
    if verdict.refusals:
        refused(host.name, _told(verdict))
        yield Refuse(f"nothing was changed on this host:\n{_told(verdict)}")
    else:
        host.noop("fit to be changed")


def _told(verdict: Verdict) -> str:
    reasons = (str(reason).replace("\n", "\n  ") for reason in verdict.refusals)
    return "\n".join(f"- {reason}" for reason in reasons)
