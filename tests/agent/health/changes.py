"""What befalls a host: one change of what is observed each."""

from __future__ import annotations

from farrier_agent.gpus import ClockEvent, EccCount, Nvml, RemappedRows
from farrier_agent.health.observed import FABRIC_MANAGER
from farrier_agent.units.state import Start

from tests.agent.health.scene import AT, Change, of, replaced, set_to, unit


def rows_of_memory(**fields: bool) -> RemappedRows:
    well = {"pending": False, "failed": False}
    return RemappedRows(corrected=0, uncorrected=1, **{**well, **fields})


def held_down(index: int, *reasons: str) -> Change:
    """Clocks are held down, as older parts tell it: by a bit."""
    return of(
        index,
        clock_events=tuple(ClockEvent(reason=reason, active=True) for reason in reasons),
    )


def nvml(kind: str, **fields: object) -> Change:
    return set_to(gpus=None, nvml=Nvml(kind=kind, **fields))  # type: ignore[arg-type]


def blind(index: int) -> Change:
    """The driver is too old to tell a recovery action."""
    return of(index, recovery_action=None)


def flapping() -> Change:
    starts = tuple(
        Start(at=AT - 600 + 100 * number, invocation_id=f"{number:032x}", automatic=True)
        for number in range(3)
    )
    name = FABRIC_MANAGER
    return lambda now: replaced(
        now, units={**now.units, name: unit(name, starts=starts, started_at=AT - 400)}
    )


def fabric_manager(state: str, **fields: object) -> Change:
    name = FABRIC_MANAGER
    return lambda now: replaced(now, units={**now.units, name: unit(name, state, **fields)})


def uncorrected(index: int) -> Change:
    return of(
        index,
        ecc_errors=(EccCount(kind="uncorrected", scope="volatile", memory="dram", count=2),),
    )
