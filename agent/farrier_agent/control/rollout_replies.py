"""The last words about a rollout on this host: its lease, its deeds, and what is kept of it."""

from __future__ import annotations

import msgspec

from farrier_agent.boards.told import AfterReset, Tested
from farrier_agent.control.replies import Said
from farrier_agent.rollout.audit import AuditLine

__all__ = [
    "Audited",
    "Diagnosed",
    "GpuReset",
    "Leased",
    "LedgerCopy",
    "Ledgers",
    "LetGo",
    "Ran",
    "TakenUp",
]


class Leased(Said, frozen=True, kw_only=True, tag="leased"):
    """The last word about a lease: who has it, for how many seconds more, and what it does.

    ``rollout`` and ``holder`` are None where there is no lease, ``expires_in`` where it is not
    alive; ``token`` is then the last one that was given. ``acting`` is what a rollout is doing to
    this host: ``restart``, ``converge``, ``reboot``, ``run``, ``driver``, ``gpu-reset``,
    ``gpu-diag``, or ``unknown`` where that was lost; None: nothing. It outlives the lease:
    ``acting_rollout`` is whose doing it is.
    """

    token: int
    rollout: str | None = None
    holder: str | None = None
    expires_in: float | None = None
    acting: str | None = None
    acting_rollout: str | None = None


class Audited(Said, frozen=True, kw_only=True, tag="audited"):
    """The last word of ``audit``: the oldest line first."""

    lines: tuple[AuditLine, ...] = ()


class LedgerCopy(msgspec.Struct, frozen=True, kw_only=True):
    """The ledger ``id`` as it lies on this host, since ``at``. ``content`` is its JSON."""

    id: str
    size_bytes: int
    at: float
    content: str | None = None


class Ledgers(Said, frozen=True, kw_only=True, tag="ledgers"):
    """The last word about ledgers: the newest first."""

    ledgers: tuple[LedgerCopy, ...] = ()


class Ran(Said, frozen=True, kw_only=True, tag="ran"):
    """The last word of ``act run``: how the command ended, and the end of what it wrote.

    ``status`` is its exit status (negative: the signal that ended it). Of the agent's replies it
    is none: who runs the command says it.
    """

    status: int
    seconds: float
    output: str = ""


class LetGo(Said, frozen=True, kw_only=True, tag="let-go"):
    """The last word of ``act let-go``: who has the GPUs no more, and who still does.

    ``stopped`` are the units that do not run for it, whenever they were stopped. ``unloaded``:
    the driver's modules are out of the kernel; False: they are not, and ``why`` says why; None: the
    deed needs no such thing. ``holders`` are processes that have an NVIDIA device open.
    """

    stopped: tuple[str, ...] = ()
    unloaded: bool | None = None
    why: str = ""
    holders: tuple[str, ...] = ()


class TakenUp(Said, frozen=True, kw_only=True, tag="taken-up"):
    """The last word of ``act take-up``: the units that were ``started``, and those that ``failed``.

    Engines are started and not waited for.
    """

    started: tuple[str, ...] = ()
    failed: dict[str, str] = msgspec.field(default_factory=dict)


class GpuReset(Said, frozen=True, kw_only=True, tag="gpu-reset"):
    """The last word of ``act gpu-reset``: how nvidia-smi ended, its ``words``, the GPUs after it.

    Of the agent's replies it is none, as :class:`Ran`.
    """

    status: int
    seconds: float
    words: str = ""
    gpus: tuple[AfterReset, ...] = ()

    @property
    def well(self) -> bool:
        """They were reset, and are as they should be."""
        return self.status == 0 and not any(one.amiss for one in self.gpus)


class Diagnosed(Said, frozen=True, kw_only=True, tag="diagnosed"):
    """The last word of ``act gpu-diag``: each test on each GPU. None of the agent's replies."""

    level: int
    seconds: float
    results: tuple[Tested, ...] = ()
