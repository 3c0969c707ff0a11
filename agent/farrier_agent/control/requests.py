"""What can be asked on the control socket. How it is spoken stands in :mod:`.protocol`."""

from __future__ import annotations

from typing import Annotated, Literal, Union

import msgspec

from farrier_agent.config import Label

__all__ = [
    "VERSION",
    "Ack",
    "Drain",
    "Evidence",
    "Journal",
    "Nvml",
    "Ready",
    "Request",
    "Restart",
    "Status",
    "Stopping",
]

VERSION = 1
"""Version of this protocol. The agent refuses a request of a newer one, a client a newer agent."""

Names = Annotated[tuple[Label, ...], msgspec.Meta(max_length=256)]
Line = Annotated[str, msgspec.Meta(max_length=200, pattern=r"^[^\x00-\x1f\x7f-\x9f]*\Z")]
Seconds = Annotated[float, msgspec.Meta(ge=0, le=7 * 86400)]
Policy = Literal["extend", "abort", "force"]


class _Request(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="verb"
):
    version: Annotated[int, msgspec.Meta(ge=1, le=VERSION)] = VERSION


class _Of(_Request, frozen=True, kw_only=True):
    """A request about ``replicas``, or about ``all`` of the host."""

    replicas: Names = ()
    all: bool = False

    def __post_init__(self) -> None:
        if self.all == bool(self.replicas):
            raise ValueError("name replicas, or say all: one of the two")


class Status(_Request, frozen=True, kw_only=True, tag="status"):
    """What the agent knows. Answered with :class:`Report`."""


class Drain(_Of, frozen=True, kw_only=True, tag="drain"):
    """Let no new request in and the running ones finish.

    After ``deadline`` seconds (None: as configured) ``on_deadline`` happens: wait on, take the
    drain back, or go on although requests are cut. With ``wait`` the last word comes when it is
    drained, else as soon as it drains. ``reason`` goes to the journal.
    """

    deadline: Seconds | None = None
    on_deadline: Policy | None = None
    wait: bool = False
    reason: Line = ""


class Stopping(_Request, frozen=True, kw_only=True, tag="stopping"):
    """systemd stops the replica's unit: drain, without a way back.

    Asked by the unit's ExecStop program. ``main_pid`` and ``invocation_id`` are what systemd told
    it, None where it told nothing. ``deadline`` and ``on_deadline`` are the unit's, ``cap`` the
    seconds after which systemd waits no longer. Answered when the replica is drained.
    """

    replica: Label
    main_pid: Annotated[int, msgspec.Meta(ge=1)] | None = None
    invocation_id: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{32}\Z")] | None = None
    deadline: Seconds = 900.0
    on_deadline: Literal["extend", "force"] = "extend"
    cap: Seconds = 1380.0


class Ready(_Of, frozen=True, kw_only=True, tag="ready"):
    """Take a drain back. With ``wait`` the last word comes when the gate is open."""

    wait: bool = False
    reason: Line = ""


class Restart(_Of, frozen=True, kw_only=True, tag="restart"):
    """Drain, restart the unit, warm up. ``wait``: the last word comes when it is ready again."""

    deadline: Seconds | None = None
    on_deadline: Policy | None = None
    wait: bool = False
    reason: Line = ""


class Evidence(_Request, frozen=True, kw_only=True, tag="evidence"):
    """Collect a bundle of evidence about a replica, now. Answered with :class:`Bundle`."""

    replica: Label
    reason: Line = ""


class Journal(_Request, frozen=True, kw_only=True, tag="journal"):
    """The last ``lines`` of what the agent logged, of one ``replica`` or of all: :class:`Entry`.

    ``follow``: then go on with what is logged until the asker goes away.
    """

    replica: Label | None = None
    lines: Annotated[int, msgspec.Meta(ge=0, le=10_000)] = 100
    follow: bool = False


class Ack(_Request, frozen=True, kw_only=True, tag="ack"):
    """A fault that is latched was seen to: its verdict clears, until it is observed again.

    ``rule`` and ``gpu`` (a uuid or an index) say which; None: every one. Of a missing GPU it also
    says that it will not come back. Answered with :class:`Told`.
    """

    rule: Line | None = None
    gpu: Line | None = None
    reason: Line = ""


class Nvml(_Request, frozen=True, kw_only=True, tag="nvml"):
    """Let go of the driver, for a reset or an upgrade, or take it up again.

    Released, the agent has no NVIDIA device open; after ``seconds`` it takes the driver up by
    itself. Answered with :class:`Told`.
    """

    action: Literal["release", "acquire"]
    seconds: Annotated[float, msgspec.Meta(gt=0, le=86400)] = 900.0


Request = Union[  # noqa: UP007 - 3.10
    Status, Drain, Stopping, Ready, Restart, Evidence, Journal, Ack, Nvml
]
