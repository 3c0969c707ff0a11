"""The steps of a host, in their order, for each kind of rollout. Pure data."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from farrier.rollout.plan import Kind

__all__ = ["SEQUENCES", "Step", "after", "first", "in_words"]


class Step(StrEnum):
    """What is done on a host; each is recorded before it begins and when it has ended."""

    HOOK_BEFORE = "hook-before"
    CONVERGE = "converge"
    PUT_BACK = "put-back"
    """Put the units back that were there before; nothing is interrupted by that."""
    DRAIN = "drain"
    ACT = "act"
    BACK = "back"
    """Wait until a rebooted host is back, and take its lease again."""
    WARM = "warm"
    CHECK = "check"
    READY = "ready"
    HOLD = "hold"
    """A canary has its share of the traffic, and is compared with the rest."""
    SOAK = "soak"
    SETTLE = "settle"
    """Take the durable mark *acting* away: all is well."""
    HOOK_AFTER = "hook-after"
    PLAN = "plan"
    """Find out what the driver's change would be; nothing is changed by that."""
    MEASURE = "measure"
    """What the host is made of and how fast it is, while it is drained."""
    LET_GO = "let-go"
    """Engines and NVIDIA's services are stopped, and nobody has the GPUs any more."""
    INSTALL = "install"
    REBOOT = "reboot"
    TAKE_UP = "take-up"
    """What was stopped to let go is started again."""


_HEAD = (Step.HOOK_BEFORE,)
_PROOF = (Step.WARM, Step.CHECK, Step.READY)
_END = (Step.SOAK, Step.SETTLE, Step.HOOK_AFTER)
_TAIL = (*_PROOF, *_END)

SEQUENCES: Mapping[Kind, tuple[Step, ...]] = {
    "restart": (*_HEAD, Step.DRAIN, Step.ACT, *_TAIL),
    "converge": (
        *(*_HEAD, Step.CONVERGE, Step.DRAIN, Step.ACT),
        *(*_PROOF, Step.HOLD, *_END),
    ),
    "reboot": (*_HEAD, Step.DRAIN, Step.MEASURE, Step.ACT, Step.BACK, *_TAIL),
    "run": (*_HEAD, Step.DRAIN, Step.ACT, *_TAIL),
    "rollback": (*_HEAD, Step.PUT_BACK, Step.DRAIN, Step.ACT, *_TAIL),
    "driver": (
        *(*_HEAD, Step.PLAN, Step.DRAIN, Step.MEASURE, Step.LET_GO, Step.INSTALL),
        *(Step.REBOOT, Step.BACK, Step.TAKE_UP, *_TAIL),
    ),
    "driver-back": (
        *(Step.DRAIN, Step.LET_GO, Step.INSTALL, Step.REBOOT, Step.BACK, Step.TAKE_UP),
        *(*_PROOF, Step.SETTLE, Step.HOOK_AFTER),
    ),
    "gpu-reset": (
        *(*_HEAD, Step.DRAIN, Step.MEASURE, Step.LET_GO, Step.ACT, Step.TAKE_UP),
        *(*_PROOF, Step.SETTLE, Step.HOOK_AFTER),
    ),
    "gpu-diag": (
        *(*_HEAD, Step.DRAIN, Step.LET_GO, Step.ACT, Step.TAKE_UP),
        *(*_PROOF, Step.SETTLE, Step.HOOK_AFTER),
    ),
}

_WORDS = {
    Step.HOOK_BEFORE: "hook before",
    Step.CONVERGE: "converging",
    Step.PUT_BACK: "putting back",
    Step.DRAIN: "draining",
    Step.ACT: "acting",
    Step.BACK: "waiting for the host",
    Step.WARM: "warming up",
    Step.CHECK: "checking",
    Step.READY: "opening",
    Step.HOLD: "holding",
    Step.SOAK: "soaking",
    Step.SETTLE: "settling",
    Step.HOOK_AFTER: "hook after",
    Step.PLAN: "planning",
    Step.MEASURE: "measuring",
    Step.LET_GO: "letting go of the GPUs",
    Step.INSTALL: "installing",
    Step.REBOOT: "rebooting",
    Step.TAKE_UP: "taking the GPUs up",
}


def first(kind: Kind) -> Step:
    """The step that a host begins with."""
    return SEQUENCES[kind][0]


def after(kind: Kind, step: Step) -> Step | None:
    """The step after *step*, None at the end."""
    sequence = SEQUENCES[kind]
    at = sequence.index(step) + 1
    return sequence[at] if at < len(sequence) else None


def in_words(step: Step) -> str:
    """For a person, while it goes on."""
    return _WORDS[step]
