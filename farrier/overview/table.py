"""The overview as a person reads it: a line for each replica, and below it what is the matter."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from farrier_agent.wording import duration, printable
from rich.text import Text

from farrier.overview.rows import HostRow, Memory, ReplicaRow
from farrier.overview.summary import summary

__all__ = ["overview"]

UNKNOWN = "?"
NONE = "-"
HEAD = (
    *("HOST", "REPLICA", "MODEL", "ENGINE", "PHASE", "GATE", "VERDICT"),
    *("IN FLIGHT", "GPU MEMORY", "AGENT"),
)
_GOOD = {"ready", "open", "healthy"}
_BAD = {"failed", "unhealthy", "no answer", "stopped"}
_NARROWEST_MODEL = 24
GIB = 2**30

Cells = tuple[str, ...]


def overview(rows: Sequence[HostRow]) -> Iterator[Text]:
    """*rows* as lines, with the summary at the end."""
    lines = [(row, one, _cells(row, one)) for row in rows for one in row.replicas or (None,)]
    widths = [max(map(len, column)) for column in zip(HEAD, *(c for *_, c in lines), strict=True)]
    yield _line(HEAD, widths, head=True)
    shown = ""
    for row, one, cells in lines:
        first = row.host != shown
        shown = row.host
        yield _line(cells if first else ("", *cells[1:-1], ""), widths)
        if first:
            yield from _below(_of_host(row))
        if one is not None:
            yield from _below(_of_replica(one))
    yield Text()
    yield Text(printable(summary(rows)))


def _cells(row: HostRow, one: ReplicaRow | None) -> Cells:
    if row.error is not None:
        return (row.host, "", "", "", "no answer", *("",) * 5)
    if one is None:
        state = "ready" if row.ready else "not ready"
        return (
            *(row.host, NONE, "", "", state, "", row.verdict or UNKNOWN, ""),
            *(_memory(row.memory), row.agent_version or UNKNOWN),
        )
    version = f" {one.engine_version}" if one.engine_version else ""
    return tuple(
        map(
            printable,
            (
                row.host,
                one.replica,
                _shortened(one.model),
                one.engine + version,
                one.phase or UNKNOWN,
                one.gate or UNKNOWN,
                one.verdict or UNKNOWN,
                UNKNOWN if one.in_flight is None else str(one.in_flight),
                _memory(one.memory),
                row.agent_version or UNKNOWN,
            ),
        )
    )


def _of_host(row: HostRow) -> Iterator[str]:
    if row.error is not None:
        yield row.error["what"]
        if row.error["next"]:
            yield f"next: {row.error['next'].replace(chr(10), ' ')}"
    yield from row.reasons
    yield from row.units
    if row.rollout is not None:
        one = row.rollout
        if one.acting:
            yield f"rollout {one.rollout or '?'} is acting: {one.acting}"
        elif one.rollout:
            left = "run out" if one.expires_in is None else f"for {duration(one.expires_in)} more"
            yield f"rollout {one.rollout} of {one.holder or '?'} has the lease, {left}"
        if one.problem:
            yield f"leases: {one.problem}"
    yield from (f"drift: {what}" for what in row.drift)


def _of_replica(one: ReplicaRow) -> Iterator[str]:
    if one.reason:
        yield one.reason
    yield from one.story


def _below(texts: Iterator[str]) -> Iterator[Text]:
    for text in texts:
        yield Text(f"    {printable(text)}", style="yellow")


def _line(cells: Cells, widths: Sequence[int], *, head: bool = False) -> Text:
    line = Text()
    for number, (cell, width) in enumerate(zip(cells, widths, strict=True)):
        style = "bold" if head or number == 0 else _style(cell)
        line.append(cell.ljust(width), style)
        line.append("  ")
    line.rstrip()
    return line


def _style(cell: str) -> str:
    if cell in _GOOD:
        return "green"
    if cell in _BAD:
        return "red"
    return "yellow" if cell in {"draining", "drained", "closed", "degraded", "unknown"} else ""


def _memory(one: Memory | None) -> str:
    if one is None:
        return NONE
    used = UNKNOWN if one.used is None else f"{one.used / GIB:.0f}"
    total = UNKNOWN if one.total is None else f"{one.total / GIB:.0f}"
    return f"{used} of {total} GiB"


def _shortened(text: str) -> str:
    """*text* without its middle: names of models differ at either end."""
    if len(text) <= _NARROWEST_MODEL:
        return text
    tail = (_NARROWEST_MODEL - 1) // 2
    return f"{text[: _NARROWEST_MODEL - 1 - tail]}…{text[-tail:]}"
