"""What can be asked on the control socket. How it is spoken stands in :mod:`.protocol`."""

from __future__ import annotations

from typing import Annotated, Literal, Union

import msgspec

from farrier_agent.config import Label

__all__ = [
    "VERSION",
    "Ack",
    "Act",
    "Audit",
    "Drain",
    "Evidence",
    "Fingerprint",
    "Journal",
    "Lease",
    "Ledger",
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
Token = Annotated[int, msgspec.Meta(ge=1, lt=2**53)]
"""The number of a lease: greater than that of every earlier one on this host."""
RolloutId = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")]
MAX_LEDGER = 2 * 1024 * 1024
"""Bytes of a ledger."""


class _Request(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="verb"
):
    version: Annotated[int, msgspec.Meta(ge=1, le=VERSION)] = VERSION


class _Of(_Request, frozen=True, kw_only=True):
    """A request about ``replicas``, or about ``all`` of the host.

    With a ``token`` it is a rollout's: it is refused unless that is the present lease's. Without
    one it is a person's. ``holder`` is who asks and from where, where the kernel cannot know it.
    """

    replicas: Names = ()
    all: bool = False
    token: Token | None = None
    holder: Line = ""

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


class Fingerprint(_Request, frozen=True, kw_only=True, tag="fingerprint"):
    """What this host is made of and how fast its replicas are. Answered with
    :class:`Fingerprinted`.

    ``record`` keeps it, ``check`` compares with what was kept, ``show`` tells that, ``measure``
    tells how the host is now, and keeps and compares nothing. Each of
    ``replicas`` (all, without one) generates for ``seconds``; 0: nothing is measured. A replica
    may be slower by the share ``tolerance``.
    """

    action: Literal["record", "check", "show", "measure"]
    replicas: Names = ()
    seconds: Annotated[float, msgspec.Meta(ge=0, le=600)] = 20.0
    tolerance: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.1


class Lease(_Request, frozen=True, kw_only=True, tag="lease"):
    """The lease of a rollout on this host. Answered with :class:`Leased`.

    ``take`` it as ``rollout`` for ``holder``, for ``seconds``; of another rollout that has not
    ended what it did here, only with ``takeover``. ``renew`` (for ``seconds``, None: as it was
    taken) and ``release`` the one of ``token``. ``show`` who has it.
    """

    action: Literal["take", "renew", "release", "show"]
    rollout: RolloutId | None = None
    holder: Line = ""
    seconds: Annotated[float, msgspec.Meta(gt=0, le=3600)] | None = None
    takeover: bool = False
    token: Token | None = None

    def __post_init__(self) -> None:
        if self.action == "take" and (self.rollout is None or not self.holder):
            raise ValueError("a lease is taken for a rollout, by a holder: name both")
        if self.action in {"renew", "release"} and self.token is None:
            raise ValueError(f"whose lease? {self.action} needs its token")


_Marked = Literal["restart", "converge", "reboot", "run", "let-go", "gpu-reset", "gpu-diag"]
_Said = Literal["ran", "back", "put-back", "take-up", "ended", "done"]


class Act(_Request, frozen=True, kw_only=True, tag="act"):
    """The rollout of ``token`` lays hands on the host: kept durably before anything is done.

    From then on nothing that the rollout drained returns by itself, until ``done``. ``restart``
    restarts units of drained replicas and warms them up behind their closed gates: answered with
    :class:`Done`. One that is in another run of its unit than ``runs`` says was restarted already,
    and is only waited for: so the same may be asked again. The others are answered with
    :class:`Leased`: what they stand for (``converge``, ``reboot``, ``run`` with its ``command`` for
    the audit) is the asker's to do, and ``ran`` says with which exit ``code`` a command ended.
    ``back`` marks nothing: who asks puts units of ``replicas`` back, and ``put-back`` says with
    which ``code`` that ended. ``done`` without a token is a person's, and refused while a lease is
    alive.

    ``let-go`` marks ``deed``, for which who asks stops engines of ``replicas``, all drained, and
    what else has the GPUs; ``take-up`` marks nothing: who asks starts that again. ``ended`` says
    how (``command``, in words) and with which ``code`` either of them ended. Between the two who
    asks has GPUs reset or diagnosed (``gpu-reset``, ``gpu-diag``; ``ran`` says how that ended).
    """

    action: Literal[_Marked, _Said]
    token: Token | None = None
    replicas: Names = ()
    all: bool = False
    runs: dict[Label, str] = {}
    command: Line = ""
    code: int | None = None
    deed: Literal["driver", "gpu-reset", "gpu-diag"] | None = None

    def __post_init__(self) -> None:
        if (self.deed is not None) != (self.action == "let-go"):
            raise ValueError("let-go, and nothing else, is for a deed: name it")
        if self.token is None and self.action != "done":
            raise ValueError(f"{self.action} is a rollout's: it needs the token of its lease")
        if self.action == "restart" and self.all == bool(self.replicas):
            raise ValueError("name replicas, or say all: one of the two")
        if self.action in {"back", "put-back", "let-go", "take-up", "ended"}:
            if self.all or not self.replicas:
                raise ValueError(f"{self.action} is about replicas: name them")
        elif self.action != "restart" and (self.all or self.replicas):
            raise ValueError(f"{self.action} is about the host, not about replicas")


class Audit(_Request, frozen=True, kw_only=True, tag="audit"):
    """The last ``lines`` of what was done to this host, and by whom: :class:`Audited`.

    With a ``note`` one more line is written first: root did something here without the agent, for
    the rollout ``rollout`` of ``holder``.
    """

    lines: Annotated[int, msgspec.Meta(ge=0, le=5000)] = 100
    note: Line = ""
    holder: Line = ""
    rollout: RolloutId | None = None


class Ledger(_Request, frozen=True, kw_only=True, tag="ledger"):
    """Copies of rollouts' ledgers. Answered with :class:`Ledgers`.

    ``put`` keeps the ``size`` bytes of JSON that follow the request's line as the ledger ``id``,
    which is that of the lease of ``token``. ``get`` answers with one, ``list`` with all, without
    their content.
    """

    action: Literal["put", "get", "list"]
    id: RolloutId | None = None
    token: Token | None = None
    size: Annotated[int, msgspec.Meta(ge=0, le=MAX_LEDGER)] = 0

    def __post_init__(self) -> None:
        if self.action != "list" and self.id is None:
            raise ValueError(f"which ledger? {self.action} needs its id")
        if self.action == "put" and self.token is None:
            raise ValueError("put is a rollout's: it needs the token of its lease")
        if self.action != "put" and self.size:
            raise ValueError(f"nothing follows a {self.action}")


Request = Union[  # noqa: UP007 - 3.10
    Status,
    Drain,
    Stopping,
    Ready,
    Restart,
    Evidence,
    Fingerprint,
    Journal,
    Ack,
    Nvml,
    Lease,
    Act,
    Audit,
    Ledger,
]
