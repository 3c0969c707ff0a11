"""The verdict on a host: its reasons, and for each the line that repairs it.

A :class:`Code` is declared once, beside the rule that finds it: its name, its meaning and its
repair make the table of docs/preflight.md. A :class:`Reason` is what a rule found on one host.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = [
    "IN_WORDS",
    "Code",
    "Reason",
    "Severity",
    "State",
    "Verdict",
    "Where",
    "unreachable",
    "verdict_on",
]

Severity = Literal["refuse", "warn"]
"""``refuse``: no deploy changes anything on the host. ``warn``: it works, and will bite."""

Where = Literal["host", "operator", "inventory"]
"""Where the repairing line belongs: the host's root shell, the operator's shell, the inventory."""

State = Literal["ready", "attention", "refused", "unreachable"]

IN_WORDS: Mapping[Where, str] = {
    "host": "on the host, as root",
    "operator": "on your machine",
    "inventory": "in the inventory",
}
"""How a person is told where a repair belongs."""


@dataclass(frozen=True, slots=True)
class Reason:
    """One thing that is wrong with a host.

    *deploys* are the deploys (``llm``, ``driver``) whose roles put it right, or say it themselves:
    they do not mention it, and elsewhere it is no more than a warning.
    """

    code: str
    severity: Severity
    message: str
    repair: str
    where: Where = "host"
    deploys: frozenset[str] = frozenset()

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self) | {"deploys": sorted(self.deploys)}

    def __str__(self) -> str:
        return f"{self.message}\n  {IN_WORDS[self.where]}: {self.repair}"


@dataclass(frozen=True, slots=True)
class Code:
    """A kind of reason. *repair* is a template; its ``{names}`` are given with each reason.

    *shown* stands for it in the documentation where the template alone would say nothing.
    """

    name: str
    severity: Severity
    meaning: str
    repair: str
    where: Where = "host"
    shown: str = ""

    def reason(
        self,
        message: str,
        *,
        severity: Severity | None = None,
        where: Where | None = None,
        deploys: Iterable[str] = (),
        **values: object,
    ) -> Reason:
        """This reason, found on a host; *values* fill the repair in."""
        return Reason(
            self.name,
            severity or self.severity,
            message,
            self.repair.format(**values),
            where or self.where,
            frozenset(deploys),
        )

    def left_to(self, deploys: Iterable[str], host: str, message: str) -> Reason:
        """This reason, where roles of *deploys* put it right: the first of them is the repair."""
        names = tuple(deploys)
        command = f"pyinfra --limit {host} inventory deploys/{names[0]}.py"
        return Reason(self.name, "warn", message, command, "operator", frozenset(names))


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is to be thought of *host*, refusals first."""

    host: str
    state: State
    reasons: tuple[Reason, ...] = ()

    @property
    def refusals(self) -> tuple[Reason, ...]:
        """The reasons for which a deploy refuses this host."""
        return tuple(reason for reason in self.reasons if reason.severity == "refuse")

    @property
    def warnings(self) -> tuple[Reason, ...]:
        """The others."""
        return tuple(reason for reason in self.reasons if reason.severity == "warn")

    def within(self, deploy: str) -> Verdict:
        """The same, without what the deploy called *deploy* puts right, or says, itself."""
        return verdict_on(self.host, (one for one in self.reasons if deploy not in one.deploys))

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        reasons = [reason.to_json() for reason in self.reasons]
        return {"host": self.host, "verdict": self.state, "reasons": reasons}


def verdict_on(host: str, reasons: Iterable[Reason]) -> Verdict:
    """The verdict that follows from *reasons*: ``refused``, ``attention`` or ``ready``."""
    unique = tuple(dict.fromkeys(reasons))
    ordered = sorted(unique, key=lambda reason: reason.severity != "refuse")
    state: State = "ready"
    if ordered:
        state = "refused" if ordered[0].severity == "refuse" else "attention"
    return Verdict(host, state, tuple(ordered))


def unreachable(host: str, reason: Reason) -> Verdict:
    """The verdict on a host that could not be looked at."""
    return Verdict(host, "unreachable", (replace(reason, severity="refuse"),))
