"""Replies as a person reads them. Pure; what came from elsewhere loses its control characters."""

from __future__ import annotations

from farrier_agent import table
from farrier_agent.boards.told import tested_lines
from farrier_agent.control.protocol import (
    Audited,
    AuditLine,
    Bundle,
    Diagnosed,
    Done,
    Entry,
    Failed,
    Final,
    Fingerprinted,
    GpuReset,
    LedgerCopy,
    Ledgers,
    LetGo,
    News,
    Progress,
    Ran,
    Report,
    Result,
    TakenUp,
    Told,
)
from farrier_agent.control.protocol import Leased as Lease
from farrier_agent.fingerprint.worded import fingerprint_lines
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


def last_word(final: Final) -> str:  # noqa: PLR0911, PLR0912 - one a kind
    """*final* as lines; empty where there is nothing to say. Failures: :func:`failure`."""
    match final:
        case Report():
            return table.render(final.status)
        case Done():
            return "\n".join(_result(result) for result in final.results)
        case Bundle():
            lines = [*final.words, f"{final.path} ({final.size_bytes} bytes)"]
            lines += [f"  missing: {what}" for what in final.missing]
            return "\n".join(printable(line) for line in lines)
        case Fingerprinted():
            return "\n".join(map(printable, fingerprint_lines(final)))
        case Told():
            return "\n".join(map(printable, final.lines))
        case Lease():
            return printable(_lease(final))
        case Audited():
            return "\n".join(_audited(line) for line in final.lines)
        case Ledgers():
            return "\n".join(_ledger(one) for one in final.ledgers)
        case Ran():
            how = f"ended by signal {-final.status}" if final.status < 0 else "ended with status"
            how += "" if final.status < 0 else f" {final.status}"
            return f"{how} after {duration(final.seconds)}"
        case LetGo():
            return _let_go(final)
        case TakenUp():
            lines = [f"started: {', '.join(final.started) or 'nothing'}"]
            lines += [f"failed: {unit}: {why}" for unit, why in final.failed.items()]
            return "\n".join(map(printable, lines))
        case GpuReset():
            lines = [final.words, *(f"{one.uuid}: {it}" for one in final.gpus for it in one.amiss)]
            return "\n".join(map(printable, lines))
        case Diagnosed():
            return "\n".join(map(printable, tested_lines(final.results)))
        case Failed():
            return failure(final.error, final.next)


def _let_go(one: LetGo) -> str:
    lines = [f"stopped: {', '.join(one.stopped) or 'nothing'}"]
    if one.unloaded is not None:
        lines.append(f"modules: {'unloaded' if one.unloaded else f'loaded still: {one.why}'}")
    lines += [f"has a GPU: {who}" for who in one.holders]
    return "\n".join(map(printable, lines))


def _lease(one: Lease) -> str:
    if one.rollout is None or one.expires_in is None:
        said = f"no rollout has a lease (the last token was {one.token})"
    else:
        said = (
            f"rollout {one.rollout} of {one.holder}, token {one.token},"
            f" runs out in {duration(one.expires_in)}"
        )
    if one.acting is not None:
        said += f"; acting ({one.acting}) by rollout {one.acting_rollout or 'unknown'}"
    return said


def _audited(one: AuditLine) -> str:
    who = f"{one.holder} ({one.by})" if one.holder else one.by
    what = " ".join((one.verb, *one.replicas))
    of = f", rollout {one.rollout}" if one.rollout else ""
    token = f" (token {one.token})" if one.token else ""
    reason = f", because: {one.reason}" if one.reason else ""
    return printable(f"{clock(one.at, 0.0)} {who}: {what}{of}{token}{reason}: {one.outcome}")


def _ledger(one: LedgerCopy) -> str:
    if one.content is not None:
        return one.content.rstrip("\n")
    return f"{one.id}  {clock(one.at, 0.0)}  {one.size_bytes} bytes"


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
