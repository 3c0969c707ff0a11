"""A status as a person reads it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from farrier_agent.status import Gpu, Replica, Status

__all__ = ["render"]

UNKNOWN = "?"


def render(status: Status) -> str:
    """*status* as lines of text, with unknown values as ``?``."""
    return "\n".join(_lines(status))


def _lines(status: Status) -> Iterator[str]:
    state = "ready" if status.ready else "not ready"
    yield f"{status.host}: {state} (agent {status.agent.version}, {status.accelerator})"
    yield from (f"  {reason}" for reason in status.reasons)
    if status.replicas:
        yield ""
        yield from _table(
            ("REPLICA", "MODEL", "ENGINE", "UNIT", "UP", "GATE", "RESTART"),
            [_replica(replica) for replica in status.replicas],
        )
    if status.gpus:
        yield ""
        if status.gpus.devices:
            yield from _table(
                ("GPU", "NAME", "MEMORY USED", "BUSY", "TEMP", "POWER", "UUID"),
                [_gpu(gpu) for gpu in status.gpus.devices],
            )
        yield from (f"  {problem}" for problem in status.gpus.problems)
        if not status.gpus.count:
            yield "NVML sees no GPU"


def _replica(one: Replica) -> tuple[str, ...]:
    unit = one.unit_state
    return (
        one.name,
        one.model,
        one.engine,
        f"{unit.active_state} ({unit.sub_state})" if unit else UNKNOWN,
        _yes(one.up),
        one.gate or UNKNOWN,
        UNKNOWN if one.restart_pending is None else "pending" if one.restart_pending else "-",
    )


def _gpu(gpu: Gpu) -> tuple[str, ...]:
    return (
        str(gpu.index),
        (gpu.name or UNKNOWN) + ("" if gpu.up else " (lost)"),
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


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    for row in (head, *rows):
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
