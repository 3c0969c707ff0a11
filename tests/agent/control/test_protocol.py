"""What is spoken on the control socket: read back as it was said, and garbage refused by name."""

from __future__ import annotations

import json

import msgspec
import pytest
from farrier_agent import status
from farrier_agent.control import protocol
from farrier_agent.control.errors import ProtocolError
from farrier_agent.control.protocol import (
    Accepted,
    Act,
    Audit,
    Audited,
    AuditLine,
    Beat,
    Bundle,
    Done,
    Drain,
    Entry,
    Evidence,
    Failed,
    Journal,
    Lease,
    Leased,
    Ledger,
    LedgerCopy,
    Ledgers,
    Progress,
    Ran,
    Ready,
    Reply,
    Report,
    Request,
    Restart,
    Result,
    Status,
    Stopping,
    decode_reply,
    decode_request,
    encode,
    exit_code,
)
from hypothesis import given
from hypothesis import strategies as st

REQUESTS: list[Request] = [
    Status(),
    Drain(replicas=("tiny",), deadline=3, on_deadline="abort", wait=True, reason="a new kernel"),
    Stopping(replica="tiny", main_pid=4711),
    Ready(all=True),
    Restart(replicas=("tiny", "tiny-2"), on_deadline="force"),
    Evidence(replica="tiny"),
    Journal(replica="tiny", lines=5, follow=True),
    Lease(action="take", rollout="r-20261122-0110-x7", holder="alice@laptop", seconds=60.0),
    Drain(all=True, token=7, holder="alice@laptop"),
    Act(action="restart", token=7, replicas=("tiny",), runs={"tiny": "a" * 32}),
    Act(action="done"),
    Audit(lines=5),
    Ledger(action="put", id="r-1", token=7, size=2),
]

REPLIES: list[Reply] = [
    Accepted(agent="1.2.3"),
    Beat(),
    Progress(replica="tiny", state="draining", in_flight=3, remaining=12.5, text="gate closed"),
    Entry(at=1.5, message="drained", replica="tiny", cause="root"),
    Done(results=(Result(replica="tiny", state="drained", cut=2, seconds=3.5),)),
    Report(
        status=status.Status(
            host="gpu01",
            at=1.0,
            accelerator="cpu",
            agent=status.Agent(version="1", python="3.11", pid=1, started_at=0.5),
            ready=True,
        )
    ),
    Bundle(path="/var/lib/farrier/evidence/x", size_bytes=3, missing=("nvidia-smi",)),
    Leased(token=7, rollout="r-1", holder="alice@laptop", expires_in=42.5, acting="restart"),
    Audited(lines=(AuditLine(at=1.0, by="root", verb="drain", outcome="done", token=7),)),
    Ledgers(ledgers=(LedgerCopy(id="r-1", size_bytes=3, at=1.0, content='{"ä":\n1}'),)),
    Ran(status=-9, seconds=1.5, output="one\ntwo\n"),
    Failed(code=3, error="systemd stops the unit", next="farrier-agent status"),
]


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda one: type(one).__name__)
def test_a_request_is_one_line_and_reads_back(request_: Request) -> None:
    line = encode(request_)
    assert line.count(b"\n") == 1
    assert decode_request(line) == request_


@pytest.mark.parametrize("reply", REPLIES, ids=lambda one: type(one).__name__)
def test_a_reply_is_one_line_and_reads_back(reply: Reply) -> None:
    line = encode(reply)
    assert line.count(b"\n") == 1
    assert decode_reply(line) == reply


@pytest.mark.parametrize(
    ("request_", "complaint"),
    [
        ({"verb": "drain"}, "name replicas, or say all"),
        ({"verb": "drain", "all": True, "replicas": ["tiny"]}, "one of the two"),
        ({"verb": "drain", "replicas": ["Tiny"]}, r"\$\.replicas\[0\]"),
        ({"verb": "drain", "replicas": ["../etc"]}, r"\$\.replicas\[0\]"),
        ({"verb": "drain", "replicas": "tiny"}, r"\$\.replicas"),
        ({"verb": "drain", "all": True, "deadline": -1}, r"\$\.deadline"),
        ({"verb": "drain", "all": True, "on_deadline": "kill"}, r"\$\.on_deadline"),
        ({"verb": "drain", "all": True, "reason": "a\nlie in the journal"}, r"\$\.reason"),
        ({"verb": "drain", "all": True, "dry_run": True}, "dry_run"),
        ({"verb": "stopping"}, "replica"),
        ({"verb": "journal", "lines": 10**9}, r"\$\.lines"),
        ({"verb": "drain", "all": True, "token": 0}, r"\$\.token"),
        ({"verb": "lease", "action": "take", "rollout": "r-1"}, "by a holder: name both"),
        ({"verb": "lease", "action": "renew"}, "renew needs its token"),
        ({"verb": "lease", "action": "steal"}, r"\$\.action"),
        ({"verb": "act", "action": "reboot"}, "it needs the token of its lease"),
        ({"verb": "act", "action": "restart", "token": 1}, "name replicas, or say all"),
        ({"verb": "act", "action": "run", "token": 1, "all": True}, "about the host"),
        ({"verb": "ledger", "action": "get", "id": "../passwd"}, r"\$\.id"),
        ({"verb": "ledger", "action": "put", "id": "r-1"}, "needs the token"),
        ({"verb": "ledger", "action": "put", "id": "r", "token": 1, "size": 2**22}, r"\$\.size"),
        ({"verb": "format"}, "no such verb: 'format'; there are status, drain"),
        ({"verb": 3}, r"\$\.verb"),
        ({"version": 2, "verb": "new"}, "version 2, this agent speaks 1"),
        ({"version": 0, "verb": "status"}, r"\$\.version"),
        ([], "not a request"),
    ],
)
def test_a_wrong_request_is_refused_with_its_field(request_: object, complaint: str) -> None:
    if isinstance(request_, dict):
        request_ = {"version": 1, **request_}
    with pytest.raises(ProtocolError, match=complaint) as caught:
        decode_request(json.dumps(request_).encode())
    assert caught.value.code == 2


def test_a_request_says_its_version() -> None:
    with pytest.raises(ProtocolError, match="version"):
        decode_request(b'{"verb":"status"}')


def test_a_newer_agent_may_add_fields_and_kinds_but_not_change_the_version() -> None:
    assert decode_reply(b'{"kind":"beat","mood":"good"}') == Beat()
    assert decode_reply(b'{"kind":"song"}') is None
    with pytest.raises(ProtocolError, match="speaks version 2"):
        decode_reply(b'{"kind":"accepted","version":2,"agent":"9"}')


@pytest.mark.parametrize(
    ("codes", "expected"), [([], 0), ([0, 0], 0), ([0, 3], 3), ([3, 1, 0], 1), ([1], 1)]
)
def test_a_failure_outweighs_a_refusal(codes: list[int], expected: int) -> None:
    results = msgspec.convert(
        [{"replica": "a", "state": "ready", "code": code} for code in codes], tuple[Result, ...]
    )
    assert exit_code(Done(results=results)) == expected


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)
fields = st.dictionaries(
    st.sampled_from(
        ["replicas", "all", "deadline", "on_deadline", "wait", "reason", "replica", "lines", "x"]
    ),
    json_values,
)


@given(st.sampled_from(protocol._VERBS), fields)
def test_whatever_is_in_the_fields_a_request_is_typed_or_refused(
    verb: str, values: dict[str, object]
) -> None:
    line = json.dumps({"version": 1, "verb": verb, **values}).encode()
    try:
        request = decode_request(line)
    except ProtocolError:
        return
    assert decode_request(encode(request)) == request


@given(st.binary())
def test_bytes_that_are_no_message_are_refused(data: bytes) -> None:
    for decode in (decode_request, decode_reply):
        with pytest.raises(ProtocolError):
            decode(data)


def test_nesting_without_end_is_refused() -> None:
    deep = b'{"version":1,"verb":"status","x":' + b"[" * 8000 + b"]" * 8000 + b"}"
    with pytest.raises(ProtocolError):
        decode_request(deep)
