"""The gates of a host whose driver, kernel or GPUs were touched: is it what it was before? Pure.

Each compares what was *expected* with what is *seen*. What cannot be judged (it could not be read
before) is said to be so, and is no pass; what could be read before and cannot be now fails.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

from farrier_agent.fingerprint.compared import LATER_SECONDS
from farrier_agent.fingerprint.made import Fingerprint, GpuPrint, Speed

from farrier.rollout.judging import not_warm, worse
from farrier.rollout.plan import DRIVERS, Kind
from farrier.rollout.records import GateRecord, HostRecord
from farrier.rollout.seen import HostSeen

__all__ = ["FABRIC", "failed", "judge", "judge_serving", "unjudged"]

FABRIC = ("nvidia-fabricmanager.service", "nvlsm.service")
"""Without these an NVSwitch host has no fabric."""
WATTS = 1.0
"""Power limits that differ by no more than so much are the same."""
UNREAD = "cannot be read"

_T = TypeVar("_T")


def failed(gates: tuple[GateRecord, ...]) -> tuple[GateRecord, ...]:
    """Those that were not passed."""
    return tuple(one for one in gates if one.ok is False)


def unjudged(gates: tuple[GateRecord, ...]) -> tuple[GateRecord, ...]:
    """Those of which nobody can say whether they were passed."""
    return tuple(one for one in gates if one.ok is None)


def judge(
    before: Fingerprint,
    now: Fingerprint,
    *,
    kind: Kind,
    driver_wanted: str | None,
    units: Mapping[str, str],
    tolerance: float,
) -> tuple[GateRecord, ...]:
    """Every gate of a host that was as *before* and is as *now*.

    Where *kind* changes the driver it has to be *driver_wanted* (upstream's version); else another
    one is only told. *units* are the states (``active``) of those units that have to run now.
    A replica may be slower by the share *tolerance*.
    """
    return (
        _driver(before, now, driver_wanted if kind in DRIVERS else None),
        _kernel(before, now),
        _gpus(before, now, kind),
        *_fabric(units),
        *_of_each_gpu(before, now, kind),
        *_speeds(before, now, tolerance),
    )


def judge_serving(record: HostRecord, seen: HostSeen) -> tuple[GateRecord, ...]:
    """The gates ``warm`` and ``verdict`` of the host of *record*, as it is *seen*."""
    cold = list(not_warm(record, seen))
    names = ", ".join(one.name for one in record.replicas) or "no replica"
    verdicts = [("the host", record.verdict_before, seen.verdict)]
    for one in record.replicas:
        now = seen.replica(one.name)
        verdicts.append((one.name, one.verdict_before, now.verdict if now else None))
    bad = [f"{what} {now}" for what, was, now in verdicts if worse(was, now)]
    why = "; ".join(seen.reasons) if bad else ""
    known = seen.verdict is not None
    return (
        GateRecord(
            name="warm",
            expected=f"{names} warm",
            seen="; ".join(cold) or "warm",
            ok=not cold,
        ),
        GateRecord(
            name="verdict",
            expected="not unhealthy, unless it was before",
            seen=", ".join(bad) or seen.verdict or "no verdict",
            ok=False if bad else (True if known else None),
            note=why or ("" if known else "the agent gave no verdict"),
        ),
    )


def _driver(before: Fingerprint, now: Fingerprint, wanted: str | None) -> GateRecord:
    seen = now.driver_version or UNREAD
    if wanted is not None:
        ok = now.driver_version == wanted
        return GateRecord(name="driver", expected=wanted, seen=seen, ok=ok)
    return _told("driver", before.driver_version, now.driver_version)


def _kernel(before: Fingerprint, now: Fingerprint) -> GateRecord:
    return _told("kernel", before.kernel, now.kernel)


def _told(name: str, was: str | None, now: str | None) -> GateRecord:
    """What may change, and is only told."""
    same = was is not None and was == now
    note = "" if same else "told, not judged: the next boot may bring another one"
    expected, seen = was or "not known", now or UNREAD
    return GateRecord(name=name, expected=expected, seen=seen, ok=same or None, note=note)


def _gpus(before: Fingerprint, now: Fingerprint, kind: Kind) -> GateRecord:
    if before.gpus is None:
        seen = UNREAD if now.gpus is None else _count(len(now.gpus))
        note = "the GPUs could not be read before"
        return GateRecord(name="gpus", expected="not known", seen=seen, ok=None, note=note)
    expected = _count(len(before.gpus))
    if now.gpus is None:
        return GateRecord(
            name="gpus", expected=expected, seen=UNREAD, ok=False if before.gpus else None
        )
    was, are = {one.uuid for one in before.gpus}, {one.uuid for one in now.gpus}
    if was == are:
        return GateRecord(name="gpus", expected=expected, seen=expected, ok=True)
    missing, new = sorted(was - are), sorted(are - was)
    if not missing and kind not in DRIVERS:
        # what a reset or a reboot is for, where one had been lost
        note = f"came back: {', '.join(new)}"
        return GateRecord(name="gpus", expected=expected, seen=_count(len(are)), ok=True, note=note)
    said = [_count(len(are))]
    said += [f"without {', '.join(missing)}"] if missing else []
    said += [f"new: {', '.join(new)}"] if new else []
    return GateRecord(name="gpus", expected=expected, seen="; ".join(said), ok=False)


def _count(number: int) -> str:
    return "1 GPU" if number == 1 else f"{number} GPUs"


def _fabric(units: Mapping[str, str]) -> Iterator[GateRecord]:
    due = {name: units[name] for name in FABRIC if name in units}
    if due:
        seen = ", ".join(f"{name} {state}" for name, state in due.items())
        ok = all(state == "active" for state in due.values())
        yield GateRecord(name="fabric-manager", expected="active", seen=seen, ok=ok)


def _of_each_gpu(before: Fingerprint, now: Fingerprint, kind: Kind) -> Iterator[GateRecord]:
    """One record a gate; where GPUs differ from what they were, it names them."""
    known = {one.uuid: one for one in now.gpus or ()}
    pairs = [(one, known[one.uuid]) for one in before.gpus or () if one.uuid in known]

    def not_less(was: float, now: float) -> bool:
        return now >= was

    def same(was: float, now: float) -> bool:
        return abs(now - was) <= WATTS

    def kept(was: bool, now: bool) -> bool:
        # ECC that was switched on takes effect with a reset or a reboot
        return was == now or (now and kind not in DRIVERS)

    number, yes_no = "{:g}".format, _on_off
    yield _each("pcie-width", pairs, lambda it: it.pcie_width, not_less, "x{:g}".format)
    yield _each("pcie-generation", pairs, lambda it: it.pcie_max_generation, not_less, number)
    yield _each("nvlink", pairs, _links, _links_up, lambda it: f"{it[1]} of {it[0]} up")
    yield _each("ecc", pairs, lambda it: it.ecc_enabled, kept, yes_no)
    yield _each("power-limit", pairs, lambda it: it.power_limit_watts, same, "{:g} W".format)
    yield _each("clocks", pairs, _clocks, _clocks_up, _megahertz)


def _on_off(value: bool) -> str:
    return "on" if value else "off"


def _links(one: GpuPrint) -> tuple[int, int]:
    return one.nvlinks, one.nvlinks_up


def _links_up(was: tuple[int, int], now: tuple[int, int]) -> bool:
    return now[1] >= was[1]


def _clocks(one: GpuPrint) -> tuple[int | None, int | None] | None:
    both = one.sm_max_clock_hertz, one.memory_max_clock_hertz
    return None if both == (None, None) else both


def _clocks_up(was: tuple[int | None, int | None], now: tuple[int | None, int | None]) -> bool:
    """A clock that was known is known, and no lower."""
    return all(old is None or (new or 0) >= old for old, new in zip(was, now, strict=True))


def _megahertz(both: tuple[int | None, int | None]) -> str:
    said = (f"{one / 1e6:g}" if one is not None else "?" for one in both)
    return " and ".join(said) + " MHz"


def _each(
    name: str,
    pairs: list[tuple[GpuPrint, GpuPrint]],
    value: Callable[[GpuPrint], _T | None],
    passes: Callable[[_T, _T], bool],
    words: Callable[[_T], str],
) -> GateRecord:
    expected: list[str] = []
    good: list[str] = []
    bad: list[tuple[str, str]] = []
    for was, now in pairs:
        old, new = value(was), value(now)
        if old is None:
            continue
        said = UNREAD if new is None else words(new)
        expected.append(words(old))
        if new is None or not passes(old, new):
            bad.append((f"GPU {now.index}: {words(old)}", f"GPU {now.index} ({now.uuid}): {said}"))
        else:
            good.append(said)
    if not expected:
        note = "could not be read before" if pairs else "no GPU of before answers"
        return GateRecord(name=name, expected="not known", seen="-", ok=None, note=note)
    if bad:
        return GateRecord(
            name=name,
            expected="; ".join(one for one, _ in bad),
            seen="; ".join(one for _, one in bad),
            ok=False,
        )
    said, told = (", ".join(dict.fromkeys(one)) for one in (expected, good))
    return GateRecord(name=name, expected=said, seen=told, ok=True)


def _speeds(before: Fingerprint, now: Fingerprint, tolerance: float) -> Iterator[GateRecord]:
    measured = {one.replica: one for one in now.speeds}
    for was in before.speeds:
        yield from _speed(was, measured.get(was.replica), tolerance)
    for one in now.speeds:
        if one.replica not in {was.replica for was in before.speeds}:
            yield from _unmeasured(one.replica, one, "it was not measured before")


def _speed(was: Speed, now: Speed | None, tolerance: float) -> Iterator[GateRecord]:
    if now is None:
        yield from _unmeasured(was.replica, None, "it was not measured now")
        return
    if not (was.quiet and now.quiet):
        yield from _unmeasured(was.replica, now, "others were served at the same time")
        return
    least = was.tokens_per_second * (1 - tolerance)
    yield GateRecord(
        name="speed",
        expected=f"{was.replica}: at least {least:.1f} tokens/s",
        seen=f"{now.tokens_per_second:.1f} tokens/s",
        ok=now.tokens_per_second >= least,
        note=f"before {was.tokens_per_second:.1f}",
    )
    most = was.first_token_seconds + max(LATER_SECONDS, was.first_token_seconds * tolerance)
    yield GateRecord(
        name="first-token",
        expected=f"{was.replica}: within {most:.3f} s",
        seen=f"{now.first_token_seconds:.3f} s",
        ok=now.first_token_seconds <= most,
        note=f"before {was.first_token_seconds:.3f} s",
    )


def _unmeasured(replica: str, now: Speed | None, why: str) -> Iterator[GateRecord]:
    speed = f"{now.tokens_per_second:.1f} tokens/s" if now else "-"
    first = f"{now.first_token_seconds:.3f} s" if now else "-"
    for name, seen in (("speed", speed), ("first-token", first)):
        yield GateRecord(name=name, expected=f"{replica}: not known", seen=seen, ok=None, note=why)
