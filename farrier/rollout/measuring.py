"""What a host is made of and how fast it is, asked of its agent while the host is drained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from farrier_agent.fingerprint.made import Fingerprint

from farrier.rollout.errors import FencedError, RolloutError
from farrier.rollout.gates import FABRIC
from farrier.rollout.one_host import OneHost

__all__ = ["Measured", "measure", "measure_for_reboot", "measured", "record_anew"]


@dataclass(frozen=True)
class Measured:
    """The host as it is now; ``missing`` are those that were not measured, and why."""

    now: Fingerprint
    missing: tuple[str, ...] = ()


def measured(it: OneHost, seconds: float) -> Measured:
    """The host as it is now, each replica measured for *seconds* (0: none is)."""
    names = [one.name for one in it.record.replicas]
    said = it.watched(
        lambda: it.through_cuts(lambda: it.host.fingerprint("measure", names, seconds, it.news))
    )
    if said.now is None:
        raise RolloutError(f"{it.record.host}: its agent does not say what it is made of")
    return Measured(said.now, said.missing)


def measure(it: OneHost) -> str:
    """Note how the host was before it was touched; how that is in words."""
    record, seconds = it.record, it.ledger.options.measure
    before = record.fingerprint_before
    if before is not None and (before.speeds or not seconds):
        return "as it was measured before"
    found = measured(it, seconds)
    with it.book.changing():
        record.fingerprint_before = found.now
        record.driver_loaded = found.now.driver_version or record.driver_loaded
    speeds: Mapping[str, float] = {one.replica: one.tokens_per_second for one in found.now.speeds}
    said = [f"{name} {speed:.1f} tokens/s" for name, speed in speeds.items()]
    gpus = "GPUs not to be read" if found.now.gpus is None else f"{len(found.now.gpus)} GPUs"
    return "; ".join([f"driver {found.now.driver_version or '?'}", gpus, *said, *found.missing])


def measure_for_reboot(it: OneHost) -> str:
    """The same, and what of the fabric's runs; a host that cannot say it is rebooted all the same.

    It may be rebooted because it cannot.
    """
    try:
        said = measure(it)
    except FencedError:
        raise
    except RolloutError as error:
        return f"not known, so nothing is compared with it afterwards: {error.what}"
    units = it.look().seen.units
    with it.book.changing():
        it.record.let_go = [one for one in FABRIC if units.get(one) == "active"]
    return said


def record_anew(it: OneHost) -> None:
    """Have the host's own record say what it is now, with the speeds that were measured last."""
    names = [one.name for one in it.record.replicas]
    it.watched(lambda: it.through_cuts(lambda: it.host.fingerprint("record", names, 0.0)))
