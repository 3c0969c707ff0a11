"""Everything that a run has to know of a host, asked with one command.

A converge that changes nothing is as slow as its commands: each is a round trip, a sudo and a
shell. So an operation declares its question when the deploy calls it, before the first one works;
the first that needs its answer asks for all that are still open. An answer counts until the run
changes something on that host, and for :data:`FRESH` seconds at most; then the open questions are
asked anew. Nothing outlives the run.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pyinfra import host, state
from pyinfra.api import FactBase
from pyinfra.api.arguments import CONNECTOR_ARGUMENT_KEYS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["FRESH", "Question", "answer", "changing", "expect", "working_on"]

FRESH = 10.0
"""Seconds for which an answer counts: hosts wait for one another between operations."""

MARK = "farrier: answer"
BEGIN = "farrier: answers follow"
"""What a talkative start-up file of the user's shell prints comes before it."""


@dataclass(frozen=True, slots=True)
class Question:
    """A *fact* with its *arguments*.

    Where *several* names an argument, that one is a list and the fact's value can be looked up by
    its items, so that several questions are asked as one about all of their items.
    """

    fact: type[FactBase[Any]]
    arguments: Mapping[str, Any]
    several: str | None = None

    def shared(self, others: Sequence[Question]) -> Question:
        """This question, about the items of *others* as well."""
        if self.several is None:
            return self
        items = [item for one in others for item in one.arguments[self.several]]
        return Question(self.fact, {self.several: list(dict.fromkeys(items))}, self.several)

    def goes_with(self, other: Question) -> bool:
        """Whether both can be asked as one."""
        return self.fact is other.fact and (self.several is not None or self == other)


@dataclass(frozen=True, slots=True)
class _Open:
    """A question that an operation has yet to ask; *login* says as whom."""

    question: Question
    login: Mapping[str, Any]


@dataclass(slots=True)
class _Ledger:
    """What is open and what has been answered on one host; *at* is the time of the answers."""

    open: list[_Open] = field(default_factory=list)
    current: Question | None = None
    answered: list[tuple[_Open, Any]] = field(default_factory=list)
    at: float = 0.0


class Answers(FactBase[list[tuple[int, list[str]]] | None]):
    """The exit status and output lines of each command of a batch."""

    def command(self, batch: Batch) -> str:
        """One shell, in which each of them has a shell of its own."""
        commands = [question.fact().command(**question.arguments) for question in batch.questions]
        # The mark has a line of its own, also behind output that ends without a line break.
        asked = (f"(\n{command}\n)\nprintf '\\n{MARK} %s\\n' $?" for command in commands)
        return "\n".join([f"echo '{BEGIN}'", *asked])

    @staticmethod
    def default() -> list[tuple[int, list[str]]] | None:
        """The host could not be asked."""
        return None

    def process(self, output: list[str]) -> list[tuple[int, list[str]]]:
        """Cut at the marks."""
        answers: list[tuple[int, list[str]]] = []
        lines: list[str] = []
        for line in output[output.index(BEGIN) + 1 :]:
            if line.startswith(MARK):
                if lines[-1:] == [""]:
                    lines.pop()
                answers.append((int(line[len(MARK) :]), lines))
                lines = []
            else:
                lines.append(line)
        return answers


@dataclass(frozen=True, slots=True)
class Batch:
    """Questions that are asked with one command."""

    questions: tuple[Question, ...]

    def __str__(self) -> str:
        return ", ".join(question.fact.__name__ for question in self.questions)


def expect(question: Question) -> None:
    """Declare that the operation that was just added to the host will ask *question*."""
    added = state.get_op_data_for_host(host, host.op_hash_order[-1])
    _ledger().open.append(_Open(question, _login(added.global_arguments)))


def working_on(question: Question | None) -> None:
    """The operation that works on this host now asks *question*."""
    _ledger().current = question


def changing() -> None:
    """Something is about to be changed on this host: what was read of it counts no more."""
    _ledger().answered = []


def answer() -> Any:
    """The value of the present operation's question; its fact's default if it has none."""
    ledger = _ledger()
    question = ledger.current
    if question is None:
        raise RuntimeError("the operation has no question: declare it with asks=")
    mine = _Open(question, _login(host.current_op_global_arguments))
    if not state.is_executing or mine not in ledger.open:
        return host.get_fact(question.fact, **question.arguments)
    if time.monotonic() - ledger.at > FRESH:
        ledger.answered = []
    if not _values(ledger, mine):
        _ask(ledger, mine.login)
    ledger.open.remove(mine)
    for value in _values(ledger, mine):
        return value
    # Its command failed among the others: alone it says why.
    return host.get_fact(question.fact, **question.arguments)


def _values(ledger: _Ledger, mine: _Open) -> list[Any]:
    return [value for one, value in ledger.answered if one == mine]


def _ask(ledger: _Ledger, login: Mapping[str, Any]) -> None:
    """Ask everything that is open, as the user of the present operation."""
    groups: list[list[_Open]] = []
    for one in (one for one in ledger.open if one.login == login):
        for group in groups:
            if group[0].question.goes_with(one.question):
                group.append(one)
                break
        else:
            groups.append([one])
    shared = [group[0].question.shared([one.question for one in group]) for group in groups]
    found = host.get_fact(Answers, batch=Batch(tuple(shared)))
    ledger.at = time.monotonic()
    ledger.answered = []
    for number, group in enumerate(groups):
        fact = group[0].question.fact()
        # Without any answer sudo refused or the connection is lost, and pyinfra has said so.
        status, lines = found[number] if found else (0, [])
        if status == 0:
            value = fact.process(lines) if lines else fact.default()
            ledger.answered += [(one, value) for one in group]


def _ledger() -> _Ledger:
    ledger: _Ledger = host.connector_data.setdefault("farrier_questions", _Ledger())
    return ledger


def _login(arguments: Any) -> dict[str, Any]:
    """What decides as whom, and in what surroundings, a command runs."""
    return {key: arguments[key] for key in CONNECTOR_ARGUMENT_KEYS if key in arguments}
