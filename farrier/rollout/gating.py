"""The gates of a host, asked for and judged: early, while engines start, and before it serves."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import NoReturn

from farrier_agent.fingerprint.made import Fingerprint

from farrier.rollout.errors import GateError, RolloutError
from farrier.rollout.gates import FABRIC, failed, judge, judge_serving, unjudged
from farrier.rollout.measuring import measured, record_anew
from farrier.rollout.one_host import OneHost
from farrier.rollout.plan import DRIVERS
from farrier.rollout.records import GateRecord
from farrier.rollout.seen import HostSeen

__all__ = ["check_gates", "cold_gate", "early_gates"]

READ_SECONDS = 120.0
"""How long the driver may take until the GPUs can be read."""
VERDICT_SECONDS = 30.0
"""How long a verdict may take to be well: it takes some looks of the agent's to clear."""
SPEEDS = frozenset({"speed", "first-token"})
"""The gates that are measured twice before they fail."""
APART_SECONDS = 5.0
"""Between the two: time for what was in the way of the first to be over."""
STILL_SECONDS = 20.0
"""How long the same gates have to fail, once they can: links come up, a fabric is made."""


def early_gates(it: OneHost, broken: Mapping[str, str]) -> None:
    """Wait until the GPUs are what they were. Raises GateError.

    *broken* are services that did not start, and why.
    """
    begun = time.monotonic()
    since, before = begun, ""

    def wait() -> None:
        nonlocal since, before
        while True:
            now = measured(it, 0.0).now
            gates = _judged(it, now, it.look().seen, broken)
            bad = failed(gates)
            if not bad:
                return
            unread = now.gpus is None or now.driver_version is None
            said = "; ".join(map(_words, bad))
            if said != before:
                since, before = time.monotonic(), said
            still = time.monotonic() - since
            if (not unread and still >= STILL_SECONDS) or time.monotonic() - begun >= READ_SECONDS:
                _keep(it, gates)
                _refuse(it, bad)
            it.tell(f"waiting: {_words(bad[0])}")
            time.sleep(1)

    it.watched(wait)


def check_gates(it: OneHost) -> str:
    """Judge every gate, the engines' speed among them. Raises GateError; what was told in words."""
    now = measured(it, it.ledger.options.measure)
    record = it.record
    slow = {one.name for one in failed(_judged(it, now.now, it.look().seen, {}))}
    if slow and slow <= SPEEDS:  # something else on the host may have been in its way
        it.tell(f"measuring once more: {', '.join(sorted(slow))}")
        it.watched(lambda: time.sleep(APART_SECONDS))
        now = measured(it, it.ledger.options.measure)
    seen = _at_rest(it)
    record.boot_after, record.agent_after = seen.boot_id, seen.agent
    for one in record.replicas:
        if state := seen.replica(one.name):
            one.invocation_after = state.invocation
            one.configuration_after = state.configuration
            one.verdict_after = state.verdict
    gates = (*_judged(it, now.now, seen, {}), *judge_serving(record, seen))
    _keep(it, gates)
    if bad := failed(gates):
        _refuse(it, bad)
    if it.kind == "driver" and now.now.gpus is not None:
        record_anew(it)
    said = f"{len(gates) - len(unjudged(gates))} gates passed"
    if unknown := unjudged(gates):
        said += f"; not judged: {', '.join(dict.fromkeys(one.name for one in unknown))}"
    return said


def _at_rest(it: OneHost) -> HostSeen:
    """The host once its verdict is well, or stays what it is: faults of before the boot clear."""
    end = time.monotonic() + VERDICT_SECONDS

    def wait() -> HostSeen:
        while True:
            seen = it.look().seen
            bad = failed(judge_serving(it.record, seen))
            if not bad or time.monotonic() >= end:
                return seen
            it.tell(f"waiting: {_words(bad[0])}")
            time.sleep(1)

    return it.watched(wait)


def cold_gate(it: OneHost, error: RolloutError) -> NoReturn:
    """Engines did not become warm, as *error* says: that is a gate, told with the others."""
    record, seen = it.record, it.look().seen
    found = {one.name: one for one in judge_serving(record, seen)}
    if found["warm"].ok:  # by now it is, and too late
        late = error.what.removeprefix(f"{record.host}: ")
        found["warm"] = GateRecord(
            name="warm", expected=found["warm"].expected, seen=late, ok=False
        )
    gates = (*_judged(it, measured(it, 0.0).now, seen, {}), *found.values())
    _keep(it, gates)
    _refuse(it, failed(gates))


def _judged(
    it: OneHost, now: Fingerprint, seen: HostSeen, broken: Mapping[str, str]
) -> tuple[GateRecord, ...]:
    record = it.record
    before = record.fingerprint_before or Fingerprint(host=record.host, at=0.0, agent="")
    units = {one: seen.units[one] for one in record.let_go if one in seen.units}
    units |= {one: why for one, why in broken.items() if one in FABRIC}
    wanted = {"driver": record.driver_wanted, "driver-back": record.driver_before}.get(it.kind)
    return judge(
        before,
        now,
        kind=it.kind,
        driver_wanted=wanted,
        units=units,
        tolerance=it.ledger.options.tolerance,
    )


def _keep(it: OneHost, gates: tuple[GateRecord, ...]) -> None:
    with it.book.changing():
        if it.kind == "driver-back":
            it.record.gates_back = list(gates)
        else:
            it.record.gates = list(gates)


def _words(gate: GateRecord) -> str:
    note = f" ({gate.note})" if gate.note else ""
    return f"gate {gate.name}: {gate.seen}, expected {gate.expected}{note}"


def _refuse(it: OneHost, bad: tuple[GateRecord, ...]) -> NoReturn:
    said = "; ".join(map(_words, bad))
    it.keep_evidence(said)
    more = "" if it.kind in DRIVERS else ", so it stays closed"
    raise GateError(
        f"{it.record.host}: {said}{more}",
        f"farrier status {it.record.host}; farrier rollout show {it.ledger.id}",
    )
