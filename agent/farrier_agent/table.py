"""A status as a person reads it, in 100 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

from farrier_agent.status import Gpu, Notice, Reason, Replica, Rollout, Status
from farrier_agent.story import story
from farrier_agent.wording import clock, duration, printable

__all__ = ["WIDTH", "render"]

UNKNOWN = "?"
WIDTH = 100
"""Columns. Only a replica's name of more than 40 characters makes a line longer."""
_NARROWEST_MODEL = 12

Row = tuple[str, ...]


def render(status: Status) -> str:
    """*status* as lines of text, with unknown values as ``?``."""
    return "\n".join(_lines(status))


def _lines(status: Status) -> Iterator[str]:
    state = "ready" if status.ready else "not ready"
    yield f"{status.host}: {state} (agent {status.agent.version}, {status.accelerator})"
    for notice in sorted(status.notices, key=lambda one: one.at):
        yield from _wrapped(_notice(notice, status.at), 0)
    if status.rollout:
        yield from _wrapped(_rollout(status.rollout, status.at), 0)
    for reason in status.reasons:
        yield from _wrapped(reason, 2)
    if status.web_problem:
        yield from _wrapped(f"web configuration: {status.web_problem}", 2)
    if status.health and status.health.host.reasons:
        yield ""
        for one in status.health.host.reasons:
            yield from _wrapped(_reason(one, status), 0)
    if status.replicas:
        yield ""
        yield from _replicas(status)
    units = [unit for unit in status.units if unit.load_state != "not-found"]
    if units:
        yield ""
        states = (f"{unit.name} {unit.active_state} ({unit.sub_state})" for unit in units)
        yield from _wrapped("units: " + ", ".join(states), 0)
    if status.gpus:
        yield ""
        if status.gpus.devices:
            yield from _table(
                ("GPU", "NAME", "MEMORY USED", "BUSY", "TEMP", "POWER", "UUID"),
                [_gpu(gpu) for gpu in status.gpus.devices],
            )
        for problem in status.gpus.problems:
            yield from _wrapped(problem, 2)
        if status.gpus.count == 0:
            yield "NVML sees no GPU"


def _notice(one: Notice, now: float) -> str:
    left = one.at - now
    when = f"in {duration(left)}" if left > 0 else "due now"
    what = "this host is drained for it" if one.drains else "nothing is drained for it"
    detail = f": {one.detail}" if one.detail else ""
    return f"NOTICE {one.cloud} {one.kind} at {clock(one.at, now)}, {when}; {what}{detail}"


def _rollout(one: Rollout, now: float) -> str:
    if one.problem:
        return f"ROLLOUT unknown: {one.problem}"
    lease = (
        f"its lease runs out in {duration(one.expires_in)}"
        if one.expires_in is not None
        else "it has no lease any more"
    )
    who = f"{one.rollout or 'unknown'} of {one.holder or 'unknown'} (token {one.token or UNKNOWN})"
    if one.acting is None:
        return f"ROLLOUT {who}: {lease}"
    since = clock(one.acting_since, now) if one.acting_since else UNKNOWN
    said = f"ROLLOUT {who}: acting ({one.acting}) since {since}; {lease}"
    if one.expires_in is None:
        said += (
            f"; what it drained stays closed; next: farrier rollout resume {one.rollout or 'ID'},"
            " or farrier-agent act done"
        )
    return said


def _reason(one: Reason, status: Status) -> str:
    index = {gpu.uuid: gpu.index for gpu in status.gpus.devices} if status.gpus else {}
    who = (
        f"GPU {index.get(one.gpu, one.gpu)} "
        if one.gpu
        else f"{one.replica} "
        if one.replica
        else ""
    )
    todo = one.next + (f": {one.command}" if one.command else "")
    since = clock(one.since_at, status.at)
    held = f"; not drained: {one.held_back}" if one.held_back else ""
    return f"{one.state.upper()} {who}{one.rule} since {since}: {one.text}{held}; next: {todo}"


def _replicas(status: Status) -> Iterator[str]:
    head = ("REPLICA", "MODEL", "ENGINE", "PHASE", "UP", "IN FLIGHT", "GATE", "HEALTH", "RESTART")
    rows = [_replica(one) for one in status.replicas]
    top, *lines = _table(head, _fitting(head, rows))
    yield top
    for one, line in zip(status.replicas, lines, strict=True):
        yield line
        for text in story(one, status.at):
            yield from _wrapped(text, 2)


def _replica(one: Replica) -> Row:
    return (
        one.name,
        printable(one.model),
        one.engine,
        one.phase or UNKNOWN,
        _yes(one.up),
        UNKNOWN if one.in_flight is None else str(one.in_flight),
        one.gate or UNKNOWN,
        one.health or UNKNOWN,
        _restart(one),
    )


def _restart(one: Replica) -> str:
    if one.restart_pending is None:
        return UNKNOWN
    if one.restart_pending:
        return "pending"
    return "put back" if one.put_back else "-"


def _fitting(head: Row, rows: Sequence[Row]) -> list[Row]:
    """*rows* with models as long as there is room for; nobody has to type one on the host."""
    model = 1
    others = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    others[model] = 0
    room = max(_NARROWEST_MODEL, WIDTH - sum(others) - 2 * (len(head) - 1))
    return [(*row[:model], _shortened(row[model], room), *row[model + 1 :]) for row in rows]


def _shortened(text: str, room: int) -> str:
    """*text* without its middle: names of models differ at either end."""
    if len(text) <= room:
        return text
    tail = (room - 1) // 2
    return f"{text[: room - 1 - tail]}…{text[-tail:]}"


def _gpu(gpu: Gpu) -> Row:
    return (
        str(gpu.index),
        (gpu.name or UNKNOWN) + ("" if gpu.up else f" ({gpu.problem or 'lost'})"),
        f"{_number(gpu.memory_used_bytes, 2**30, '.1f')} of "
        f"{_number(gpu.memory_total_bytes, 2**30, '.1f')} GiB",
        f"{_number(gpu.utilization_ratio, 0.01, '.0f')} %",
        f"{_number(gpu.temperature_celsius, 1, '.0f')} °C",
        f"{_number(gpu.power_watts, 1, '.0f')} W",
        gpu.uuid,
    )


def _number(value: float | None, unit: float, form: str) -> str:
    return UNKNOWN if value is None else format(value / unit, form)


def _yes(value: bool | None) -> str:
    return UNKNOWN if value is None else "yes" if value else "no"


def _wrapped(text: str, indent: int) -> Iterator[str]:
    first = " " * indent
    yield from textwrap.wrap(
        printable(text),
        WIDTH,
        initial_indent=first,
        subsequent_indent=first + "  ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def _table(head: Row, rows: Sequence[Row]) -> Iterator[str]:
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    for row in (head, *rows):
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
