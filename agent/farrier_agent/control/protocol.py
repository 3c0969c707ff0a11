"""What is spoken on the control socket: one request, then replies until the last word.

Every message is a line of JSON. A connection carries one request; the agent answers with
:class:`Accepted` at once, then with any number of :class:`Progress`, :class:`Entry` and
:class:`Beat` (a sign of life in a long wait), and ends with one of :data:`Final`.

Within one version fields are only added. A reader of replies ignores what it does not know; a
request with an unknown field is refused, for what it asks for beyond that would silently not be
done. A drain is asked for, not owned: the asker may go away, the drain goes on.
"""

from __future__ import annotations

from typing import Literal, TypeVar, Union

import msgspec

from farrier_agent.boards.told import AfterReset, Tested, worst
from farrier_agent.control.errors import Code, ProtocolError
from farrier_agent.control.requests import (
    VERSION,
    Ack,
    Act,
    Audit,
    Drain,
    Evidence,
    Fingerprint,
    Journal,
    Lease,
    Ledger,
    Nvml,
    Ready,
    Request,
    Restart,
    Status,
    Stopping,
)
from farrier_agent.fingerprint.made import Fingerprint as Print
from farrier_agent.rollout.audit import AuditLine
from farrier_agent.status import Difference
from farrier_agent.status import Status as Snapshot

__all__ = [
    "BEAT",
    "MAX_REPLY",
    "MAX_REQUEST",
    "VERSION",
    "Accepted",
    "Ack",
    "Act",
    "Audit",
    "AuditLine",
    "Audited",
    "Beat",
    "Bundle",
    "Diagnosed",
    "Done",
    "Drain",
    "Entry",
    "Evidence",
    "Failed",
    "Final",
    "Fingerprint",
    "Fingerprinted",
    "GpuReset",
    "Journal",
    "Lease",
    "Leased",
    "Ledger",
    "LedgerCopy",
    "Ledgers",
    "LetGo",
    "News",
    "Nvml",
    "Progress",
    "Ran",
    "Ready",
    "Reply",
    "Report",
    "Request",
    "Restart",
    "Result",
    "Status",
    "Stopping",
    "TakenUp",
    "Told",
    "decode_reply",
    "decode_request",
    "encode",
    "exit_code",
]

MAX_REQUEST = 16 * 1024
"""Bytes of a request, newline included."""
MAX_REPLY = 4 * 1024 * 1024
"""Bytes of a reply, newline included."""
BEAT = 5.0
"""Seconds: the agent is never silent for longer while it works on a request."""


class _Reply(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind"):
    pass


class Accepted(_Reply, frozen=True, kw_only=True, tag="accepted"):
    """The request was understood. ``agent`` is the agent's version, ``version`` the protocol's."""

    version: int = VERSION
    agent: str


class Beat(_Reply, frozen=True, kw_only=True, tag="beat"):
    """The agent is alive and still at it."""


class Progress(_Reply, frozen=True, kw_only=True, tag="progress"):
    """How a replica fares. ``state`` is a state of the replica, as serving names them.

    ``remaining`` are the seconds to the deadline; ``text`` is for a person.
    """

    replica: str
    state: str
    in_flight: int | None = None
    remaining: float | None = None
    text: str = ""


class Entry(_Reply, frozen=True, kw_only=True, tag="entry"):
    """One entry of the journal; ``priority`` is syslog's (3 error, 4 warning, 6 information)."""

    at: float
    priority: int = 6
    message: str
    replica: str | None = None
    cause: str | None = None


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one replica.

    ``code`` as an exit code: 0 done, 1 failed, 3 refused. ``changed`` is false when it was so
    already. ``in_flight`` when it was asked, ``cut`` requests that were not let finish,
    ``seconds`` that it took; of a rollout's restart also its parts: ``stop_seconds`` to the end of
    the engine, ``start_seconds`` until its unit was active, ``warm_seconds`` until it was warm.
    """

    replica: str
    state: str
    code: Literal[0, 1, 3] = 0
    changed: bool = True
    text: str = ""
    in_flight: int | None = None
    cut: int = 0
    seconds: float | None = None
    stop_seconds: float | None = None
    start_seconds: float | None = None
    warm_seconds: float | None = None


class Done(_Reply, frozen=True, kw_only=True, tag="done"):
    """The last word about replicas, or (without any) about a journal."""

    results: tuple[Result, ...] = ()


class Report(_Reply, frozen=True, kw_only=True, tag="report"):
    """The last word of ``status``."""

    status: Snapshot


class Bundle(_Reply, frozen=True, kw_only=True, tag="bundle"):
    """The last word of ``evidence``, and of ``gpu bundle``: where it lies on the host.

    ``missing``: what it lacks, why. ``sha256`` is the file's, and ``words`` are for who returns a
    board: both only of ``gpu bundle``.
    """

    path: str
    size_bytes: int
    missing: tuple[str, ...] = ()
    sha256: str | None = None
    words: tuple[str, ...] = ()


class Fingerprinted(_Reply, frozen=True, kw_only=True, tag="fingerprinted"):
    """The last word of ``fingerprint``: what was ``recorded``, and the host as it is ``now``.

    ``differences`` are those between the two, ``missing`` what could not be measured, and why.
    """

    action: Literal["record", "check", "show", "measure"]
    recorded: Print | None = None
    now: Print | None = None
    differences: tuple[Difference, ...] = ()
    missing: tuple[str, ...] = ()


class Told(_Reply, frozen=True, kw_only=True, tag="told"):
    """The last word where there is only something to say: ``lines`` for a person."""

    lines: tuple[str, ...] = ()


class Leased(_Reply, frozen=True, kw_only=True, tag="leased"):
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


class Audited(_Reply, frozen=True, kw_only=True, tag="audited"):
    """The last word of ``audit``: the oldest line first."""

    lines: tuple[AuditLine, ...] = ()


class LedgerCopy(msgspec.Struct, frozen=True, kw_only=True):
    """The ledger ``id`` as it lies on this host, since ``at``. ``content`` is its JSON."""

    id: str
    size_bytes: int
    at: float
    content: str | None = None


class Ledgers(_Reply, frozen=True, kw_only=True, tag="ledgers"):
    """The last word about ledgers: the newest first."""

    ledgers: tuple[LedgerCopy, ...] = ()


class Ran(_Reply, frozen=True, kw_only=True, tag="ran"):
    """The last word of ``act run``: how the command ended, and the end of what it wrote.

    ``status`` is its exit status (negative: the signal that ended it). Of the agent's replies it
    is none: who runs the command says it.
    """

    status: int
    seconds: float
    output: str = ""


class LetGo(_Reply, frozen=True, kw_only=True, tag="let-go"):
    """The last word of ``act let-go``: who has the GPUs no more, and who still does.

    ``stopped`` are the units that do not run for it, whenever they were stopped. ``unloaded``:
    the driver's modules are out of the kernel; False: they are not, and ``why`` says why; None: the
    deed needs no such thing. ``holders`` are processes that have an NVIDIA device open.
    """

    stopped: tuple[str, ...] = ()
    unloaded: bool | None = None
    why: str = ""
    holders: tuple[str, ...] = ()


class TakenUp(_Reply, frozen=True, kw_only=True, tag="taken-up"):
    """The last word of ``act take-up``: the units that were ``started``, and those that ``failed``.

    Engines are started and not waited for.
    """

    started: tuple[str, ...] = ()
    failed: dict[str, str] = {}


class GpuReset(_Reply, frozen=True, kw_only=True, tag="gpu-reset"):
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


class Diagnosed(_Reply, frozen=True, kw_only=True, tag="diagnosed"):
    """The last word of ``act gpu-diag``: each test on each GPU. None of the agent's replies."""

    level: int
    seconds: float
    results: tuple[Tested, ...] = ()


class Failed(_Reply, frozen=True, kw_only=True, tag="failed"):
    """The last word when the request as a whole came to nothing. ``code`` is the exit code."""

    code: Code
    error: str
    next: str | None = None


Final = Union[  # noqa: UP007 - 3.10
    Done,
    Report,
    Bundle,
    Fingerprinted,
    Told,
    Leased,
    Audited,
    Ledgers,
    Ran,
    LetGo,
    TakenUp,
    GpuReset,
    Diagnosed,
    Failed,
]
News = Union[Progress, Entry]  # noqa: UP007 - 3.10
Reply = Union[Accepted, Beat, News, Final]  # noqa: UP007


class _RequestHead(msgspec.Struct):
    version: int
    verb: str


class _ReplyHead(msgspec.Struct):
    kind: str
    version: int = VERSION


_VERBS = (
    *("status", "drain", "stopping", "ready", "restart", "evidence", "journal", "ack", "nvml"),
    *("lease", "act", "audit", "ledger", "fingerprint"),
)
_request: msgspec.json.Decoder[Request] = msgspec.json.Decoder(Request)
_request_head = msgspec.json.Decoder(_RequestHead)
_reply: msgspec.json.Decoder[Reply] = msgspec.json.Decoder(Reply)
_reply_head = msgspec.json.Decoder(_ReplyHead)
_T = TypeVar("_T")


def encode(message: Request | Reply) -> bytes:
    """*message* as its line."""
    return msgspec.json.encode(message) + b"\n"


def decode_request(line: bytes) -> Request:
    """The request in *line*. Raises :class:`ProtocolError` that names the field."""
    head = _decoded(_request_head, line, "not a request")
    if head.version > VERSION:
        raise ProtocolError(
            f"the request is of version {head.version}, this agent speaks {VERSION}",
            "upgrade the agent",
        )
    if head.verb not in _VERBS:
        raise ProtocolError(f"no such verb: {head.verb[:40]!r}; there are {', '.join(_VERBS)}")
    return _decoded(_request, line, head.verb)


def decode_reply(line: bytes) -> Reply | None:
    """The reply in *line*; None for a kind that this program does not know, to be passed over.

    Raises :class:`ProtocolError`.
    """
    head = _decoded(_reply_head, line, "not a reply")
    if head.version > VERSION:
        raise ProtocolError(
            f"the agent speaks version {head.version} of the protocol, this program {VERSION}",
            "use the host's own farrier-agent command, or upgrade on this side",
        )
    if head.kind not in _KINDS:
        return None
    return _decoded(_reply, line, head.kind)


def _decoded(decoder: msgspec.json.Decoder[_T], line: bytes, what: str) -> _T:
    try:
        return decoder.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError(f"{what}: {error}") from error


_KINDS = (
    *("accepted", "beat", "progress", "entry", "done", "report", "bundle", "told", "failed"),
    *("leased", "audited", "ledgers", "ran", "fingerprinted", "let-go", "taken-up"),
    *("gpu-reset", "diagnosed"),
)


def exit_code(final: Final) -> int:  # noqa: PLR0911 - one a kind
    """The exit code that *final* means: a failure outweighs a refusal, as everywhere."""
    match final:
        case Failed():
            return final.code
        case Done():
            codes = {result.code for result in final.results}
            return 1 if 1 in codes else 3 if 3 in codes else 0
        case Ran():
            # 2 and 3 say something else here: which one it was stands in the reply
            return 1 if final.status else 0
        case TakenUp():
            return 1 if final.failed else 0
        case GpuReset():
            return 0 if final.well else 1
        case Diagnosed():
            return 1 if worst(final.results) == "fail" else 0
        case Fingerprinted():
            return 1 if final.action == "check" and (final.differences or final.missing) else 0
        case _:
            return 0
