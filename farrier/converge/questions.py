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
    """What is open, and what has been answered, on one host."""

    open: list[_Open] = field(default_factory=list)
    current: Question | None = None
    answers: dict[int, Any] = field(default_factory=dict)
    asked: list[Question] = field(default_factory=list)
    at: float = float("-inf")


class Answers(FactBase[list[tuple[int, list[str]]] | None]):
    """The exit status and output lines of each command of a batch."""

    def command(self, batch: Batch) -> str:
        """One shell, in which each of them has a shell of its own."""
        commands = [question.fact().command(**question.arguments) for question in batch.questions]
        return "\n".join(f"(\n{command}\n)\necho '{MARK}' $?" for command in commands)

    @staticmethod
    def default() -> list[tuple[int, list[str]]] | None:
        """The host could not be asked."""
        return None

    def process(self, output: list[str]) -> list[tuple[int, list[str]]]:
        """Cut at the marks."""
        answers: list[tuple[int, list[str]]] = []
        lines: list[str] = []
        for line in output:
            if line.startswith(MARK):
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
    _ledger().asked = []


def answer() -> Any:
    """The value of the present operation's question; its fact's default if it has none."""
    ledger = _ledger()
    question = ledger.current
    if question is None:
        raise RuntimeError("the operation has no question: declare it with asks=")
    login = _login(host.current_op_global_arguments)
    mine = _Open(question, login)
    if not state.is_executing or mine not in ledger.open:
        return host.get_fact(question.fact, **question.arguments)
    found = _known(ledger, question)
    if found is None:
        _ask(ledger, login)
        found = _known(ledger, question)
    ledger.open.remove(mine)
    if found is None:  # its command failed among the others: alone it says why
        return host.get_fact(question.fact, **question.arguments)
    return found[0]


def _known(ledger: _Ledger, question: Question) -> tuple[Any] | None:
    if time.monotonic() - ledger.at > FRESH:
        return None
    for number, asked in enumerate(ledger.asked):
        if asked.goes_with(question) and number in ledger.answers:
            return (ledger.answers[number],)
    return None


def _ask(ledger: _Ledger, login: Mapping[str, Any]) -> None:
    """Ask everything that is open, as the present operation's user."""
    waiting = [one.question for one in ledger.open if one.login == login]
    groups: list[list[Question]] = []
    for question in waiting:
        group = next((group for group in groups if group[0].goes_with(question)), None)
        if group is None:
            groups.append([question])
        else:
            group.append(question)
    batch = Batch(tuple(group[0].shared(group) for group in groups))
    found = host.get_fact(Answers, batch=batch)
    ledger.asked = list(batch.questions)
    ledger.at = time.monotonic()
    ledger.answers = {}
    if found is None:  # sudo refused, the connection was lost: asking one by one says it again
        ledger.answers = {n: one.fact.default() for n, one in enumerate(batch.questions)}
        return
    for number, (status, lines) in enumerate(found):
        fact = batch.questions[number].fact()
        if status == 0:
            ledger.answers[number] = fact.process(lines) if lines else fact.default()


def _ledger() -> _Ledger:
    ledger: _Ledger = host.connector_data.setdefault("farrier_questions", _Ledger())
    return ledger


def _login(arguments: Any) -> dict[str, Any]:
    """What decides as whom, and in what surroundings, a command runs."""
    return {key: arguments[key] for key in CONNECTOR_ARGUMENT_KEYS if key in arguments}
