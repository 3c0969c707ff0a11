"""What is spoken on the control socket: one request, then replies until the last word.

Every message is a line of JSON. A connection carries one request; the agent answers with
:class:`Accepted` at once, then with any number of :class:`Progress`, :class:`Entry` and
:class:`Beat` (a sign of life in a long wait), and ends with one of :data:`Final`.

Within one version fields are only added. A reader of replies ignores what it does not know; a
request with an unknown field is refused, for what it asks for beyond that would silently not be
done. A drain is asked for, not owned: the asker may go away, the drain goes on.
"""

from __future__ import annotations

from typing import TypeVar, Union

import msgspec

from farrier_agent.boards.told import worst
from farrier_agent.control.errors import ProtocolError
from farrier_agent.control.replies import (
    Accepted,
    Beat,
    Bundle,
    Done,
    Entry,
    Failed,
    Fingerprinted,
    Progress,
    Report,
    Result,
    Told,
)
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
from farrier_agent.control.rollout_replies import (
    Audited,
    Diagnosed,
    GpuReset,
    Leased,
    LedgerCopy,
    Ledgers,
    LetGo,
    Ran,
    TakenUp,
)
from farrier_agent.rollout.audit import AuditLine

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
