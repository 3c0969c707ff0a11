"""What ``farrier-agent … --json`` printed, understood. Pure: lines go in, replies come out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from farrier_agent import status
from farrier_agent.control.errors import ProtocolError
from farrier_agent.control.protocol import (
    Accepted,
    Beat,
    Entry,
    Failed,
    Final,
    News,
    Progress,
    Report,
    Told,
    decode_reply,
)

__all__ = ["AgentReply", "Hearing"]


@dataclass(frozen=True)
class AgentReply:
    """What became of one call of ``farrier-agent``: its exit code and its last word.

    ``final`` is there always: where nothing of the protocol was printed it is a ``Told`` of the
    ``lines`` (exit code 0) or a ``Failed`` with what stood on standard error. ``lines`` are those
    that are no replies, as of ``ledger get``.
    """

    code: int
    final: Final
    lines: tuple[str, ...] = ()
    stderr: str = ""


class Hearing:
    """Takes the lines that an agent prints, one after the other; news go to *on_news* at once."""

    def __init__(self, on_news: Callable[[News], None] | None = None) -> None:
        self._on_news = on_news
        self._final: Final | None = None
        self._others: list[str] = []

    def line(self, line: str) -> None:
        """One line of standard output. Raises ProtocolError for a reply of a newer protocol."""
        if not line.startswith("{"):
            self._others.append(line)
        elif '"schema":' in line[:40]:  # `status --json` prints the bare status
            self._status(line)
        elif line.startswith('{"kind":'):
            self._reply(line)
        else:
            self._others.append(line)

    def reply(self, code: int, stderr: str) -> AgentReply:
        """The whole, once the command has ended."""
        final = self._final or self._made_up(code, stderr)
        return AgentReply(code, final, tuple(self._others), stderr)

    def _status(self, line: str) -> None:
        try:
            self._final = Report(status=status.loads(line.encode()))
        except status.StatusError as error:
            raise ProtocolError(str(error)) from error

    def _reply(self, line: str) -> None:
        one = decode_reply(line.encode())
        if isinstance(one, Progress | Entry):
            if self._on_news is not None:
                self._on_news(one)
        elif one is not None and not isinstance(one, Accepted | Beat):
            self._final = one

    def _made_up(self, code: int, stderr: str) -> Final:
        if code == 0:
            return Told(lines=tuple(self._others))
        said = [line for line in stderr.splitlines() if line.strip()]
        words = "; ".join(said[-3:]) or f"farrier-agent ended with {code} and said nothing"
        return Failed(code=3 if code == 3 else 2 if code == 2 else 1, error=words)
