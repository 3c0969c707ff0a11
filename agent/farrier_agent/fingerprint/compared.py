"""What is different between two fingerprints of one host. Pure.

What could not be read, then or now, is not compared; GPUs that cannot be read at all now are a
difference. Speeds are compared where nobody else was served, with a tolerance.
"""

from __future__ import annotations

from collections.abc import Iterator

from farrier_agent.fingerprint.made import Fingerprint, GpuPrint, Speed
from farrier_agent.status import Difference

__all__ = ["TOLERANCE", "differences", "slower"]

TOLERANCE = 0.1
"""The share by which a replica may be slower than it was."""
LATER_SECONDS = 0.1
"""A first token that is so little later is not called late, whatever the share."""

_SAME_BY_GPU = tuple(
    name for name in GpuPrint.__struct_fields__ if name not in {"uuid", "index", "nvlinks_up"}
)


def differences(
    recorded: Fingerprint, now: Fingerprint, *, tolerance: float = TOLERANCE
) -> tuple[Difference, ...]:
    """What is not as it was *recorded*; *tolerance* is a share of the speed."""
    return (*_host(recorded, now), *_gpus(recorded, now), *_speeds(recorded, now, tolerance))


def _host(recorded: Fingerprint, now: Fingerprint) -> Iterator[Difference]:
    for name in ("kernel", "driver_version", "cuda_version"):
        was, present = getattr(recorded, name), getattr(now, name)
        if was is not None and present is not None and was != present:
            yield Difference(kind="changed", what=_words(name), was=was, now=present)


def _gpus(recorded: Fingerprint, now: Fingerprint) -> Iterator[Difference]:
    if not recorded.gpus:
        return
    if now.gpus is None:
        count = f"{len(recorded.gpus)}"
        yield Difference(kind="unknown", what="GPUs", was=count, now="not to be read")
        return
    before = {one.uuid: one for one in recorded.gpus}
    after = {one.uuid: one for one in now.gpus}
    for uuid, one in before.items():
        if uuid not in after:
            what = f"GPU {one.index} ({uuid})"
            yield Difference(
                kind="missing", what=what, was=_name(one), now="does not answer", gpu=uuid
            )
    for uuid, one in after.items():
        if uuid not in before:
            what = f"GPU {one.index} ({uuid})"
            yield Difference(kind="new", what=what, was="not there", now=_name(one), gpu=uuid)
        else:
            yield from _gpu(before[uuid], one)


def _name(one: GpuPrint) -> str:
    serial = f", serial {one.serial}" if one.serial else ""
    return f"{one.name or 'a GPU'}{serial}"


def _gpu(was: GpuPrint, now: GpuPrint) -> Iterator[Difference]:
    what = f"GPU {now.index} ({now.uuid})"
    for name in _SAME_BY_GPU:
        before, after = getattr(was, name), getattr(now, name)
        if before is not None and after is not None and before != after:
            words = f"{what} {_words(name)}"
            yield Difference(
                kind="changed", what=words, was=str(before), now=str(after), gpu=now.uuid
            )
    if now.nvlinks == was.nvlinks and now.nvlinks_up < was.nvlinks_up:
        yield Difference(
            kind="changed",
            what=f"{what} NVLinks that are up",
            was=str(was.nvlinks_up),
            now=str(now.nvlinks_up),
            gpu=now.uuid,
        )


def _speeds(recorded: Fingerprint, now: Fingerprint, tolerance: float) -> Iterator[Difference]:
    before = {one.replica: one for one in recorded.speeds}
    for one in now.speeds:
        was = before.get(one.replica)
        if was is not None and (was.model, was.engine) == (one.model, one.engine):
            yield from slower(was, one, tolerance=tolerance)


def slower(was: Speed, now: Speed, *, tolerance: float = TOLERANCE) -> Iterator[Difference]:
    """By how much a replica is slower than it *was*; nothing where others were served as well."""
    if not (was.quiet and now.quiet):
        return
    if now.tokens_per_second < was.tokens_per_second * (1 - tolerance):
        yield Difference(
            kind="slower",
            what=f"replica {now.replica} tokens per second",
            was=f"{was.tokens_per_second:.1f}",
            now=f"{now.tokens_per_second:.1f}",
            replica=now.replica,
        )
    later = now.first_token_seconds - was.first_token_seconds
    if later > max(LATER_SECONDS, was.first_token_seconds * tolerance):
        yield Difference(
            kind="slower",
            what=f"replica {now.replica} seconds to the first token",
            was=f"{was.first_token_seconds:.3f}",
            now=f"{now.first_token_seconds:.3f}",
            replica=now.replica,
        )


def _words(name: str) -> str:
    return name.replace("_", " ")
