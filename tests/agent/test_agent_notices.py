"""Notices of a cloud's metadata service, and what the running agent does about them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from farrier_agent.control.protocol import Done, Ready

from tests.agent import replicas
from tests.agent.host import Host, free_port, replica, until
from tests.agent.replicas import counts, needs_another_user
from tests.agent.test_notices import Cloud, metadata

pytestmark = needs_another_user

READY = Ready(replicas=("tiny",), wait=True)


@pytest.fixture
def cloud() -> Iterator[Cloud]:
    with metadata() as one:
        yield one


def soon(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + seconds))


def serving(host: Host, cloud: Cloud, name: str = "aws", **fields: Any) -> int:
    """One replica that serves on a host of the cloud *name*. Returns its engine's port."""
    address = {"notices": name, "notices_address": f"127.0.0.1:{cloud.port}"}
    return replicas.serving(host, **(address | fields)).port


def test_a_spot_instance_is_drained_before_it_is_taken_away(host: Host, cloud: Cloud) -> None:
    port = serving(host, cloud)
    assert host.snapshot().notices == ()
    host.nginx.hold(port, 2)
    at = soon(120)
    cloud.announce(spot={"action": "terminate", "time": at})
    until(lambda: host.phase() == "draining")
    until(lambda: counts(host, 2))
    (notice,) = host.snapshot().notices
    assert (notice.cloud, notice.kind, notice.drains) == ("aws", "preempt", True)
    assert 100 < notice.at - time.time() <= 121
    drain = host.replica().drain
    assert drain is not None
    assert drain.policy == "force"
    assert 90 < drain.deadline_at - time.time() < notice.at - time.time()
    assert drain.asked_by == ("aws (notice)",)
    assert at in drain.reasons[0]
    assert host.check() == "up drain\n"
    assert "notice of aws: preempt" in host.log()
    assert "the host is drained for it" in host.log()
    assert (
        host.value("farrier_host_notice_timestamp_seconds", cloud="aws", kind="preempt") is not None
    )
    host.nginx.let_go()
    until(lambda: host.phase() == "drained")
    assert any("aws (notice)" in reason for reason in host.reasons())


def test_what_is_left_when_the_time_is_up_is_counted(host: Host, cloud: Cloud) -> None:
    port = serving(host, cloud)
    host.nginx.hold(port, 3)
    until(lambda: host.replica().in_flight == 3)
    cloud.announce(spot={"action": "stop", "time": soon(15)})
    until(lambda: host.phase() == "drained")
    drain = host.replica().drain
    assert drain is not None
    until(lambda: getattr(host.replica().drain, "cut", None) == 3)


@pytest.mark.parametrize(
    ("name", "state"),
    [
        ("gcp", {"preempted": True}),
        (
            "azure",
            {
                "events": [
                    {
                        "EventId": "602d9444",
                        "EventType": "Preempt",
                        "ResourceType": "VirtualMachine",
                        "Resources": ["gpu01"],
                        "EventStatus": "Scheduled",
                        "NotBefore": "",
                        "Description": "",
                    }
                ]
            },
        ),
    ],
)
def test_the_other_clouds(host: Host, cloud: Cloud, name: str, state: dict[str, Any]) -> None:
    serving(host, cloud, name)
    cloud.announce(**state)
    until(lambda: host.phase() == "drained")
    assert [one.cloud for one in host.snapshot().notices] == [name]


def test_what_only_slows_it_down_is_told_and_no_more(host: Host, cloud: Cloud) -> None:
    serving(host, cloud)
    cloud.announce(rebalance={"noticeTime": soon(0)})
    until(lambda: host.snapshot().notices)
    (notice,) = host.snapshot().notices
    assert (notice.kind, notice.drains) == ("rebalance", False)
    host.turns(6)
    assert host.gate()
    assert host.get("/readyz")[0] == 200
    assert "nothing is done for it" in host.log()


def test_a_notice_that_is_over_leaves_the_drain_to_a_person(host: Host, cloud: Cloud) -> None:
    serving(host, cloud)
    cloud.announce(spot={"action": "stop", "time": soon(100)})
    until(lambda: host.phase() == "drained")
    cloud.announce(spot=None)
    until(lambda: not host.snapshot().notices)
    assert "withdrawn or over; what it drained stays drained" in host.log()
    host.turns()
    assert host.phase() == "drained"
    final = host.ask(READY)
    assert isinstance(final, Done)
    assert final.results[0].state == "ready"


def test_a_person_overrules_a_notice_also_over_a_restart_of_the_agent(
    host: Host, cloud: Cloud
) -> None:
    serving(host, cloud)
    cloud.announce(spot={"action": "stop", "time": soon(200)})
    until(lambda: host.phase() == "drained")
    assert isinstance(host.ask(READY), Done)
    host.turns(8)
    assert host.gate(), "who says ready knows of the notice"
    host.stop()
    host.start()
    until(lambda: host.snapshot().notices)
    host.turns(8)
    assert host.gate()


@pytest.mark.parametrize("broken", ["silent", "garbage", 500])
def test_a_service_that_does_not_answer_is_said_and_drains_nothing(
    host: Host, cloud: Cloud, broken: Any
) -> None:
    serving(host, cloud)
    cloud.announce(broken=broken)
    until(lambda: "notices of aws: " in host.log())
    until(lambda: host.value("farrier_collector_success", collector="notices") == 0)
    host.turns(6)
    assert host.gate()
    assert host.check() == "up ready 100%\n"
    cloud.announce(broken=None, spot={"action": "stop", "time": soon(100)})
    until(lambda: host.phase() == "drained")


def test_nobody_asks_where_no_cloud_is_named(host: Host) -> None:
    one = replica()
    host.configure(one, notices_address=f"127.0.0.1:{free_port()}")
    host.unit(one.unit, run=1)
    host.engine(one.port, "tiny")
    host.start()
    until(lambda: host.get("/readyz")[0] == 200)
    assert "notice" not in host.log()
