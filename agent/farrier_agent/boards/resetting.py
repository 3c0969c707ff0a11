"""A reset of GPUs, under a rollout's lease: by nvidia-smi, and looked at afterwards.

Nobody may have the GPUs then: the rollout let go of them before. The agent takes NVML up again for
the look, and it is its judgement whether the reset was seen.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress

from farrier_agent.boards.running import run_to_end, tell
from farrier_agent.boards.smi import UnsafeError, program
from farrier_agent.boards.told import AfterReset
from farrier_agent.control.again import Agent, ask_again
from farrier_agent.control.errors import ControlError
from farrier_agent.control.protocol import (
    Act,
    Failed,
    Final,
    GpuReset,
    Nvml,
    Report,
    Status,
)
from farrier_agent.control.running import agent_of
from farrier_agent.rollout.deed import perform
from farrier_agent.status import Status as Snapshot
from farrier_agent.wording import printable

__all__ = ["RULES", "amiss", "gpu_reset"]

SECONDS = 300.0
"""Seconds that nvidia-smi may take for all of them."""
SEEN_SECONDS = 60.0
"""Seconds within which the agent has to see them well: it wants two good looks in a row."""
PATIENCE = 600.0
"""Seconds to wait for a deed under way: the same one, whose asker was cut off, as a rule."""
RULES = frozenset(
    {
        *("gpu-lost", "gpu-hangs", "gpu-missing"),
        *("gpu-recovery-action", "row-remap-pending", "row-remap-failed", "sram-threshold"),
        *("ecc-uncorrected", "xid-reset", "xid-reboot", "fabric-not-ready"),
    }
)
"""What must not hold against a GPU after its reset."""
_LINE = 180


def gpu_reset(arguments: argparse.Namespace) -> int:
    """Mark, then reset, then look. Returns the exit code."""
    gpus = tuple(dict.fromkeys(arguments.gpus))
    words = printable(f"nvidia-smi --gpu-reset -i {','.join(gpus)}")[:_LINE]

    def deed(_: Final, lock: int) -> Final:
        done = _reset(arguments, gpus, lock)
        with suppress(ControlError):  # it is in the reply, too
            code = 0 if isinstance(done, GpuReset) and done.well else 1
            told = Act(action="ran", token=arguments.token, command=words, code=code)
            ask_again(agent_of(arguments), told)
        return done

    act = Act(action="gpu-reset", token=arguments.token, command=words)
    return perform(arguments, act, deed, patience=PATIENCE)


def _reset(arguments: argparse.Namespace, gpus: Sequence[str], lock: int) -> Final:
    try:
        smi = program("nvidia-smi")
    except UnsafeError as error:
        return Failed(code=1, error=f"{error}: nothing was reset", next="dpkg -S nvidia-smi")
    tell(f"resetting {', '.join(gpus)}", as_json=arguments.json)
    said = run_to_end((smi, "--gpu-reset", "-i", ",".join(gpus)), SECONDS, keep=(lock,))
    if said.status is None:
        return Failed(
            code=1,
            error=f"nvidia-smi --gpu-reset did not end within {SECONDS:.0f} s: {said.words[:500]}",
            next="farrier rollout reboot: only a reboot brings such a GPU back",
        )
    agent = agent_of(arguments)
    after: tuple[AfterReset, ...] = ()
    if said.status == 0:
        since = time.time()
        ask_again(agent, Nvml(action="acquire"))
        tell("reset; waiting until the agent sees them well", as_json=arguments.json)
        after = _looked(agent, gpus, since)
    return GpuReset(status=said.status, seconds=said.seconds, words=said.words[:2000], gpus=after)


def _looked(agent: Agent, gpus: Sequence[str], since: float) -> tuple[AfterReset, ...]:
    end = time.monotonic() + SEEN_SECONDS
    while True:
        final = agent.ask_when_back(Status())
        if isinstance(final, Report):
            found = tuple(_after(final.status, one, since) for one in gpus)
            if not any(one.amiss for one in found) or time.monotonic() >= end:
                return found
        elif time.monotonic() >= end:
            return tuple(AfterReset(uuid=one, amiss=("the agent says nothing",)) for one in gpus)
        time.sleep(0.5)


def _after(status: Snapshot, uuid: str, since: float) -> AfterReset:
    devices = status.gpus.devices if status.gpus else ()
    index = next((one.index for one in devices if one.uuid == uuid), None)
    return AfterReset(uuid=uuid, index=index, amiss=tuple(amiss(status, uuid, since)))


def _looked_since(status: Snapshot, since: float) -> bool:
    """Whether NVML was read anew: a status is made when it is asked for, of the last reading."""
    for one in status.collectors:
        if one.name == "gpu" and one.last_success_at is not None:
            return one.last_success_at - (one.duration_seconds or 0.0) >= since
    return False


def amiss(status: Snapshot, uuid: str, since: float) -> Iterator[str]:
    """What of the GPU *uuid* is not as a reset leaves it, in a look later than *since*. Pure."""
    if not _looked_since(status, since) or status.gpus is None or status.gpus.count is None:
        why = status.nvml.detail if status.nvml and status.nvml.detail else "no look since"
        yield f"NVML does not say how it is: {why}"
        return
    gpu = next((one for one in status.gpus.devices if one.uuid == uuid), None)
    if gpu is None or not gpu.up:
        yield f"it does not answer: {gpu.problem if gpu else 'NVML does not have it'}"
        return
    if gpu.remapped_rows is not None and gpu.remapped_rows.pending:
        yield "rows of its memory are still to be exchanged"
    if gpu.retired_pages_pending:
        yield "pages of its memory are still to be retired"
    if gpu.recovery_action not in {None, "none"}:
        yield f"the driver still wants done: {gpu.recovery_action}"
    verdict = status.health.gpus.get(uuid) if status.health else None
    for reason in verdict.reasons if verdict else ():
        if reason.rule in RULES:
            yield f"{reason.rule}: {reason.text}"
