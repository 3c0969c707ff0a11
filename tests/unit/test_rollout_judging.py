"""Is a host as well as before? And what a ledger keeps of it. No host."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from farrier.rollout.counts import Counts, FirstByte, in_between, parse, requests
from farrier.rollout.errors import RefusedError
from farrier.rollout.judging import problems, soaked
from farrier.rollout.ledger import (
    HostRecord,
    Ledger,
    LedgerError,
    Operator,
    Options,
    ReplicaRecord,
    decode,
    encode,
)
from farrier.rollout.seen import HostSeen
from farrier.rollout.store import Store, new_id
from tests.unit.test_rollout_plan import replica

PAGE = """\
# HELP llm_requests_total Requests
llm_requests_total{model="m/x",replica="tiny",code="200"} 90.0
llm_requests_total{model="m/x",replica="tiny",code="503"} 4.0
llm_incomplete_responses_total{model="m/x",replica="tiny",by="client"} 1.0
llm_incomplete_responses_total{model="m/x",replica="tiny",by="engine"} 2.0
llm_time_to_first_byte_seconds_bucket{model="m/x",replica="tiny",le="0.1"} 50.0
llm_time_to_first_byte_seconds_bucket{model="m/x",replica="tiny",le="1.0"} 90.0
llm_time_to_first_byte_seconds_bucket{model="m/x",replica="tiny",le="+Inf"} 90.0
vllm:num_requests_waiting{replica="tiny",model="m/x",engine="0"} 2.0
vllm:num_requests_waiting{replica="tiny",model="m/x",engine="1"} 1.0
vllm:num_requests_running{replica="tiny"} 7
llm_requests_total{broken
"""


def test_a_page_of_metrics_is_read() -> None:
    counts = parse(PAGE)
    assert counts.statuses == {"tiny": {"200": 90.0, "503": 4.0}}
    assert (counts.left, counts.broken) == ({"tiny": 1.0}, {"tiny": 2.0})
    assert counts.waiting == {"tiny": 3}
    assert counts.first_byte["tiny"].quantile(0.5) == pytest.approx(0.09)


def test_between_two_looks_and_over_a_new_agent() -> None:
    before = parse(PAGE)
    after = parse(PAGE.replace("90.0", "97.0"))
    assert requests(in_between(before, after)).by_status == {"200": 7}
    anew = parse(PAGE.replace("90.0", "5.0").replace("} 4.0", "} 1.0"))
    assert requests(in_between(before, anew)).by_status == {"200": 5, "503": 1}


def record(**more: Any) -> HostRecord:
    one = ReplicaRecord(
        name="tiny", model="tiny", invocation_before="old", verdict_before="healthy"
    )
    values: dict[str, Any] = {"verdict_before": "healthy", "gpus_before": ("GPU-1", "GPU-2")}
    return HostRecord(host="gpu01", batch=0, replicas=[one], **(values | more))


def now(**more: Any) -> HostSeen:
    values: dict[str, Any] = {"phase": "drained", "gate_open": False, "invocation": "new"}
    return HostSeen(
        host="gpu01",
        verdict="healthy",
        gpus=("GPU-1", "GPU-2"),
        replicas=(replica(**(values | more)),),
    )


def test_a_host_as_well_as_before_has_no_problems() -> None:
    assert list(problems("restart", record(), now())) == []


@pytest.mark.parametrize(
    ("seen", "says"),
    [
        (now(invocation="old"), "it was not restarted"),
        (now(pending=True), "restart pending"),
        (now(verdict="unhealthy"), "its verdict is unhealthy"),
        (now(up=False), "tiny: its engine did not answer"),
        (now(phase="failed", reason="warm-up failed: stream"), "warm-up failed: stream"),
        (HostSeen(host="gpu01"), "the agent does not know it"),
        (HostSeen(host="gpu01", gpus=("GPU-2",), replicas=now().replicas), "GPU-1"),
        (
            HostSeen(
                host="gpu01",
                verdict="unhealthy",
                reasons=("disk full",),
                gpus=("GPU-1", "GPU-2"),
                replicas=now().replicas,
            ),
            "disk full",
        ),
    ],
)
def test_what_is_worse_than_before_is_said(seen: HostSeen, says: str) -> None:
    assert any(says in one for one in problems("restart", record(), seen))


def test_what_was_bad_before_is_nobodys_fault() -> None:
    sick = record(verdict_before="unhealthy", gpus_before=None)
    sick.replicas[0].verdict_before = "unhealthy"
    seen = HostSeen(host="gpu01", verdict="unhealthy", replicas=(replica(verdict="unhealthy",
        invocation="new", phase="drained"),))  # fmt: skip
    assert list(problems("restart", sick, seen)) == []


def counts(good: int, bad: int = 0, fast: int = 0, slow: int = 0) -> Counts:
    times = FirstByte({"0.1": fast, "1.0": fast, "10.0": fast + slow, "+Inf": fast + slow})
    return Counts(statuses={"tiny": {"200": good, "502": bad}}, first_byte={"tiny": times})


def test_a_soak_compares_errors_and_times() -> None:
    before = counts(1000, 2, fast=1000)
    assert soaked(before, counts(500, 1, fast=500)).bad is None
    assert "5 of 105 answers were errors" in (soaked(before, counts(100, 5, fast=105)).bad or "")
    assert "median" in (soaked(before, counts(100, slow=100)).bad or "")
    assert "95 %" in (soaked(before, counts(100, fast=90, slow=10)).bad or "")
    few = soaked(before, counts(3, slow=3))
    assert few.bad is None
    assert "too few" in few.line
    assert soaked(None, before).bad is None


def ledger(**more: Any) -> Ledger:
    values: dict[str, Any] = {
        "id": "r-20261122-0110-x7",
        "kind": "restart",
        "options": Options(soak=3.5, first=("gpu01",)),
        "operators": [Operator(holder="alice@laptop", since_at=1.0)],
        "hosts": [record(counts_before=parse(PAGE))],
        "planned_at": 1.0,
        "counted": {"gpu01": parse(PAGE)},
    }
    return Ledger(**(values | more))


def test_a_ledger_is_written_and_read(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with store.driving("r-20261122-0110-x7"):
        store.save(ledger())
        assert store.load("r-20261122-0110-x7") == ledger()
        assert store.is_driven("r-20261122-0110-x7")
        with (
            pytest.raises(RefusedError, match="another process"),
            Store(tmp_path).driving("r-20261122-0110-x7"),
        ):
            pass
    assert not store.is_driven("r-20261122-0110-x7")
    (tmp_path / "r-broken.json").write_text("{")
    assert [one.id for one in store.all()] == ["r-20261122-0110-x7"]
    assert store.path("r-20261122-0110-x7").stat().st_mode & 0o777 == 0o600


def test_a_ledger_of_a_newer_farrier_is_refused() -> None:
    newer = encode(ledger()).replace(b'"schema": 1', b'"schema": 2')
    with pytest.raises(LedgerError, match="version 2"):
        decode(newer)
    with pytest.raises(LedgerError, match="not the ledger"):
        decode(b"[]")


def test_the_newer_copy_is_that_of_who_went_on() -> None:
    old = ledger(serial=90)
    new = ledger(serial=40, operators=[*old.operators, Operator(holder="bob@desk", since_at=2.0)])
    assert new.age > old.age
    assert ledger(serial=91).age > old.age


def test_an_id_tells_when_and_is_one_for_a_lease() -> None:
    one = new_id(0.0)
    assert one.startswith("r-19700101-0000-")
    assert len(one) == 18
