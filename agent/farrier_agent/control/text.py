"""Replies as a person reads them. Pure; what came from elsewhere loses its control characters."""

from __future__ import annotations

from farrier_agent import table
from farrier_agent.control.protocol import (
    Bundle,
    Done,
    Entry,
    Final,
    News,
    Progress,
    Report,
    Result,
    Told,
)
from farrier_agent.wording import clock, duration, printable

__all__ = ["failure", "last_word", "news"]


def news(one: News) -> str:
    """One line for *one*."""
    if isinstance(one, Entry):
        return _entry(one)
    return _progress(one)


def _progress(one: Progress) -> str:
    parts = [one.state]
    if one.in_flight is not None:
        parts.append(f"{one.in_flight} in flight")
    if one.remaining is not None:
        parts.append(f"{duration(one.remaining)} to the deadline")
    if one.text:
        parts.append(one.text)
    return printable(f"{one.replica}: {', '.join(parts)}")


def _entry(one: Entry) -> str:
    at = clock(one.at, 0.0)
    about = f" {one.replica}:" if one.replica else ""
    cause = f" [{one.cause}]" if one.cause else ""
    # most of what is logged about a replica begins with its name
    message = one.message.removeprefix(f"replica {one.replica}: ")
    return printable(f"{at}{about} {message}{cause}")


def last_word(final: Final) -> str:
    """*final* as lines; empty where there is nothing to say. Failures: :func:`failure`."""
    if isinstance(final, Report):
        return table.render(final.status)
    if isinstance(final, Done):
        return "\n".join(_result(result) for result in final.results)
    if isinstance(final, Bundle):
        lines = [f"{final.path} ({final.size_bytes} bytes)"]
        lines += [f"  missing: {what}" for what in final.missing]
        return "\n".join(printable(line) for line in lines)
    if isinstance(final, Told):
        return "\n".join(map(printable, final.lines))
    return failure(final.error, final.next)


def _result(one: Result) -> str:
    # one who joined what another had asked for did wait
    already = not one.changed and not one.code and (one.seconds or 0.0) < 1
    parts = [f"{one.state} already" if already else one.state]
    if one.seconds is not None:
        parts.append(f"after {duration(one.seconds)}")
    if one.in_flight is not None:
        parts.append(f"{one.in_flight} in flight when it began")
    if one.cut:
        parts.append(f"{one.cut} CUT")
    word = {0: "", 1: "FAILED: ", 3: "REFUSED: "}[one.code]
    reason = f": {one.text}" if one.text else ""
    return printable(f"{one.replica}: {word}{', '.join(parts)}{reason}")


def failure(error: str, next: str | None) -> str:  # noqa: A002 - as it is spoken
    """What failed and the next command to type, in one line."""
    return printable(f"{error}; next: {next}" if next else error)
