"""A plan and a ledger for people. Pure: values in, rich's tables and lines out."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

from rich.table import Table
from rich.text import Text

from farrier.rollout.capacity import Room
from farrier.rollout.comparing import Comparison, Side
from farrier.rollout.ledger import HostRecord, Ledger, Outcome
from farrier.rollout.plan import Plan

__all__ = [
    "back_lines",
    "compared_table",
    "ledger_lines",
    "ledger_table",
    "plan_lines",
    "rollouts_table",
]

STYLES: dict[str, str] = {
    "done": "green",
    "running": "cyan",
    "planned": "dim",
    "waiting": "dim",
    "put back": "yellow",
    "failed": "bold red",
    "refused": "yellow",
    "stopped": "yellow",
    "aborted": "yellow",
    "taken back": "yellow",
}
_VERDICTS = {"as well": "green", "worse": "bold red", "not proven": "yellow", None: "cyan"}
_SAID: dict[Outcome, str] = {
    "planned": "planned, and not begun",
    "running": "running, or its operator's process died",
    "done": "done",
    "failed": "failed: stopped at the first failure, the rest keeps serving",
    "refused": "refused by a safety check",
    "stopped": "stopped",
    "aborted": "given up",
}
STILL_WANTED = (
    "the inventory still wants what was put back from: the next converge brings it again, unless"
    " the inventory says otherwise by then"
)


def plan_lines(plan: Plan, rooms: Iterable[Room]) -> Iterator[Text]:
    """What would be done, in its order."""
    for number, batch in enumerate(plan.batches, 1):
        names = ", ".join(
            f"{one.host} ({', '.join(it.name for it in one.replicas) or 'nothing to drain yet'})"
            for one in batch
        )
        yield Text.assemble((f"batch {number}", "bold"), f"  {plan.kind} {names}")
    for one in plan.left_out:
        yield Text.assemble(("left out", "yellow"), f"  {one.what}: {one.why}")
    told: set[str] = set()
    for room in rooms:
        if room.model not in told or room.why:
            told.add(room.model)
            state = room.why or f"{room.load} in flight, {len(room.others)} others carry it"
            style = "yellow" if room.why else "bold"
            yield Text.assemble(("capacity", style), f"  {room.model}: {state}")


def back_lines(ledger: Ledger) -> Iterator[Text]:
    """What each replica goes back to, in a rollback."""
    for host in ledger.hosts:
        for one in host.replicas:
            if one.goes_back:
                yield Text.assemble(
                    ("goes back", "bold"), f"  {host.host}:{one.name}: {one.goes_back}"
                )


def ledger_table(ledger: Ledger) -> Table:
    """A row for each replica of each host."""
    table = Table(title=f"{ledger.id}  {ledger.kind}", title_justify="left")
    for column in ("host", "state", "replica", "in flight", "drain", "cut", "stop", "start"):
        table.add_column(column, no_wrap=True)
    for column in ("warm", "configuration", "verdict"):
        table.add_column(column, no_wrap=True)
    for host in ledger.hosts:
        state = Text(host.state, STYLES[host.state])
        if not host.replicas:
            table.add_row(host.host, state, "-")
        for number, one in enumerate(host.replicas):
            before, after = one.configuration_before, one.configuration_after
            changed = f"{_short(before)} → {_short(after)}" if after != before else _short(before)
            table.add_row(
                *(("", "") if number else (host.host, state)),
                one.name,
                "-" if one.in_flight is None else str(one.in_flight),
                _seconds(one.drain_seconds),
                Text(str(one.cut), "bold red" if one.cut else ""),
                _seconds(one.stop_seconds),
                _seconds(one.start_seconds),
                _seconds(one.warm_seconds),
                changed,
                one.verdict_after or "-",
            )
    return table


def ledger_lines(ledger: Ledger) -> Iterator[Text]:
    """What stands below the table: notes, the fleet's requests, how it ended, what to type."""
    for one in ledger.left_out:
        yield Text.assemble(("left out  ", "yellow"), one)
    yield from back_lines(ledger)
    for host in ledger.hosts:
        yield from _about(host)
    if ledger.requests is not None:
        codes = ", ".join(f"{n} × {code}" for code, n in ledger.requests.by_status.items())
        yield Text(
            f"requests meanwhile, by the hosts' nginx: {codes or 'none'}"
            f" ({ledger.requests.incomplete} not to their end: {ledger.requests.broken} broken off"
            " by engines, the others left by clients)"
        )
        lost = ledger.lost
        yield Text.assemble(
            "lost: ",
            (str(lost), "bold green" if lost == 0 else "bold red"),
            f"  (cut {ledger.cut})",
        )
    took = _took(ledger)
    style = STYLES[ledger.outcome]
    yield Text.assemble((_SAID[ledger.outcome], style), took)
    if ledger.reason:
        yield Text(ledger.reason)
    if ledger.kind == "rollback" and ledger.outcome == "done":
        yield Text(STILL_WANTED)
    if ledger.next:
        yield Text.assemble("next: ", (ledger.next, "bold"))


def compared_table(ledger: Ledger) -> Table | None:
    """The canary against the rest, a row for each side; None where nothing was compared."""
    found = [one for host in ledger.hosts for one in host.compared]
    if not found:
        return None
    table = Table(title=f"canary, {ledger.options.canary} %", title_justify="left")
    for column in ("model", "side", "answers", "errors", "first token median", "95 %"):
        table.add_column(column, no_wrap=True)
    for one in found:
        table.add_row(one.model, one.replica, *_side(one.canary))
        table.add_row("", "the rest", *_side(one.rest))
    return table


def _side(one: Side) -> tuple[str, ...]:
    share = f" ({100 * one.errors / one.answers:.1f} %)" if one.answers else ""
    times = ("-" if each is None else f"{each:.3f} s" for each in (one.median, one.percentile_95))
    return (str(one.answers), f"{one.errors}{share}", *times)


def rollouts_table(ledgers: Iterable[Ledger]) -> Table:
    """A row for each rollout."""
    table = Table()
    for column in ("rollout", "kind", "outcome", "hosts", "lost", "by", "began"):
        table.add_column(column, no_wrap=True)
    for one in ledgers:
        done = sum(host.state == "done" for host in one.hosts)
        lost = one.lost
        table.add_row(
            one.id,
            one.kind,
            Text(one.outcome, STYLES[one.outcome]),
            f"{done} of {len(one.hosts)}",
            "-" if lost is None else str(lost),
            one.holder,
            _clock(one.began_at),
        )
    return table


def _about(host: HostRecord) -> Iterator[Text]:
    if host.turned:
        yield Text.assemble((f"{host.host}  ", "bold"), f"put back: {host.turned}")
    if host.failure:
        yield Text.assemble((f"{host.host}  ", "bold"), host.failure)
    for one in host.compared:
        yield Text.assemble(
            (f"{host.host}  ", "bold"), (_verdict(one), _VERDICTS[one.verdict]), f"  {one.why}"
        )
    if host.shared:
        yield Text.assemble(
            (f"{host.host}  ", "bold"),
            (f"{', '.join(host.shared)} may have a share of its own on the gateways", "yellow"),
        )
    if host.soak:
        yield Text.assemble((f"{host.host}  ", "bold"), f"soak: {host.soak}")
    for path in host.evidence:
        yield Text.assemble((f"{host.host}  ", "bold"), f"evidence on the host: {path}")
    if host.agent_after and host.agent_after != host.agent_before:
        yield Text(f"{host.host}  agent {host.agent_before} → {host.agent_after}")


def _verdict(one: Comparison) -> str:
    return f"canary {one.verdict or 'held'}, {one.seconds:.0f} s:"


def _took(ledger: Ledger) -> str:
    if ledger.began_at is None or ledger.ended_at is None:
        return ""
    return f" after {ledger.ended_at - ledger.began_at:.1f} s"


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f} s"


def _short(value: str | None) -> str:
    return "-" if value is None else value[:8]


def _clock(at: float | None) -> str:
    return "-" if at is None else time.strftime("%Y-%m-%d %H:%M", time.localtime(at))
