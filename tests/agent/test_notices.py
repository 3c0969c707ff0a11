"""What clouds announce, asked for over HTTP, and the drain that follows from it."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
import urllib.request
from calendar import timegm
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from farrier_agent.notices import CLOUDS, Looked, Notice, NoticeError, Poller, order
from farrier_agent.notices.aws import rebalance, scheduled, spot
from farrier_agent.notices.azure import scheduled_events
from farrier_agent.notices.gcp import maintenance, preempted
from hypothesis import example, given
from hypothesis import strategies as st

from tests.agent.host import FAKES, free_port, until

NOW = float(timegm((2026, 11, 21, 15, 0, 0)))


class Cloud:
    """The fake metadata service, and a poller of it."""

    def __init__(self, port: int) -> None:
        self.port = port

    def poller(self, cloud: str, *, gpu: bool = True, deadline: float = 5.0) -> Poller:
        options: dict[str, Any] = {"port": self.port, "deadline": deadline, "clock": lambda: NOW}
        return Poller(cloud, gpu=gpu, address="127.0.0.1", **options)

    def look(self, cloud: str, **options: Any) -> Looked:
        return asyncio.run(self.poller(cloud, **options).look())

    def announce(self, **state: object) -> None:
        data = json.dumps(state).encode()
        urllib.request.urlopen(f"http://127.0.0.1:{self.port}/state", data, timeout=5).close()

    def state(self) -> dict[str, Any]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/state", timeout=5) as answer:
            state: dict[str, Any] = json.load(answer)
        return state


@contextmanager
def metadata() -> Iterator[Cloud]:
    cloud = Cloud(free_port())
    command = [sys.executable, str(FAKES / "metadata" / "metadata.py"), f"--port={cloud.port}"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            until(cloud.state)
            yield cloud
        finally:
            process.kill()


@pytest.fixture(scope="module")
def service() -> Iterator[Cloud]:
    with metadata() as cloud:
        yield cloud


@pytest.fixture
def cloud(service: Cloud) -> Cloud:
    nothing: dict[str, object] = {
        "spot": None,
        "rebalance": None,
        "scheduled": [],
        "events": [],
        "broken": None,
    }
    service.announce(preempted=False, maintenance="NONE", name="gpu01", tokens=0, **nothing)
    return service


@pytest.mark.parametrize("name", sorted(CLOUDS))
def test_no_notice_is_no_problem(cloud: Cloud, name: str) -> None:
    assert cloud.look(name) == Looked()


def test_aws_spot_interruption(cloud: Cloud) -> None:
    cloud.announce(spot={"action": "terminate", "time": "2026-11-21T15:02:00Z"})
    looked = cloud.look("aws")
    assert looked.problems == ()
    (notice,) = looked.notices
    assert (notice.kind, notice.at - NOW, notice.drains) == ("preempt", 120, True)
    assert notice.detail == "spot instance: 'terminate' at 2026-11-21T15:02:00Z"


def test_aws_token_is_kept_and_renewed_when_it_is_refused(cloud: Cloud) -> None:
    poller = cloud.poller("aws")
    cloud.announce(spot={"action": "stop", "time": "2026-11-21T15:02:00Z"})

    async def look() -> list[int]:
        given = []
        for forgotten in (False, False, True):
            if forgotten:
                await asyncio.to_thread(cloud.announce, tokens=0)
            looked = await poller.look()
            assert len(looked.notices) == 1
            assert not looked.problems
            given.append((await asyncio.to_thread(cloud.state))["tokens"])
        return given

    assert asyncio.run(look()) == [1, 1, 1]  # forgotten, then given once more


def test_aws_scheduled_events_and_advice(cloud: Cloud) -> None:
    event = {"NotBefore": "23 Nov 2026 09:00:43 GMT", "Code": "system-reboot", "EventId": "e1"}
    network = event | {"Code": "system-maintenance", "EventId": "e2"}
    over = event | {"State": "completed", "EventId": "e3"}
    unknown = event | {"Code": "instance-teleport", "EventId": "e4", "State": "active"}
    advice = {"noticeTime": "2026-11-21T14:59:00Z"}
    cloud.announce(scheduled=[event, network, over, unknown], rebalance=advice)
    notices = {one.id: (one.kind, one.drains) for one in cloud.look("aws").notices}
    assert notices == {
        "e1": ("reboot", True),
        "e2": ("maintenance", False),
        "e4": ("maintenance", True),
        "rebalance 2026-11-21T14:59:00Z": ("rebalance", False),
    }


@pytest.mark.parametrize(("gpu", "seconds"), [(True, 3600), (False, 60)])
def test_gcp_maintenance(cloud: Cloud, gpu: bool, seconds: float) -> None:
    cloud.announce(maintenance="TERMINATE_ON_HOST_MAINTENANCE")
    (notice,) = cloud.look("gcp", gpu=gpu).notices
    assert (notice.kind, notice.at - NOW, notice.drains, notice.at_once) == (
        "stop",
        seconds,
        True,
        True,
    )
    cloud.announce(maintenance="MIGRATE_ON_HOST_MAINTENANCE")
    (notice,) = cloud.look("gcp", gpu=gpu).notices
    assert not notice.drains


def test_gcp_preemption_keeps_the_time_at_which_it_was_first_seen(cloud: Cloud) -> None:
    cloud.announce(preempted=True)
    times = iter([NOW, NOW + 7])
    poller = Poller(
        "gcp", gpu=True, address="127.0.0.1", port=cloud.port, clock=lambda: next(times)
    )

    async def twice() -> list[float]:
        return [(await poller.look()).notices[0].at - NOW for _ in range(2)]

    assert asyncio.run(twice()) == [30, 30]


def test_azure_events_of_this_machine_only(cloud: Cloud) -> None:
    event = {
        "EventId": "A1",
        "EventStatus": "Scheduled",
        "EventType": "Preempt",
        "ResourceType": "VirtualMachine",
        "Resources": ["GPU01"],
        "NotBefore": "Sat, 21 Nov 2026 15:00:30 GMT",
        "DurationInSeconds": -1,
    }
    other = event | {"EventId": "A2", "Resources": ["gpu02"]}
    freeze = event | {"EventId": "A3", "EventType": "Freeze", "NotBefore": ""}
    cloud.announce(events=[event, other, freeze])
    first, second = cloud.look("azure").notices
    assert (first.id, first.kind, first.at - NOW, first.drains) == ("A1", "preempt", 30, True)
    assert (second.id, second.at, second.drains) == ("A3", NOW, False)


@pytest.mark.parametrize("name", sorted(CLOUDS))
@pytest.mark.parametrize("broken", ["500", "garbage", "silent"])
def test_a_broken_service_is_a_problem_in_words_within_the_deadline(
    cloud: Cloud, name: str, broken: str
) -> None:
    cloud.announce(broken=broken)
    begun = time.monotonic()
    looked = cloud.look(name, deadline=0.3)
    assert time.monotonic() - begun < 4
    assert looked.notices == ()
    assert looked.problems
    assert all(len(problem) < 300 for problem in looked.problems)
    cloud.announce(broken=None)
    assert cloud.look(name) == Looked()


@pytest.mark.parametrize("name", sorted(CLOUDS))
def test_without_a_service_a_problem_in_words(name: str) -> None:
    poller = Poller(name, gpu=False, address="127.0.0.1", port=free_port())
    looked = asyncio.run(poller.look())
    assert "nothing listens" in looked.problems[0]


def notice(at: float, *, drains: bool = True, at_once: bool = False, name: str = "n") -> Notice:
    return Notice(cloud="aws", kind="stop", id=name, at=at, drains=drains, at_once=at_once)


@pytest.mark.parametrize(
    ("notices", "seconds"),
    [
        ([], None),
        ([notice(NOW + 120)], 110),
        ([notice(NOW + 30)], 20),
        ([notice(NOW + 5)], 0),
        ([notice(NOW - 100)], 0),
        ([notice(NOW + 86_400)], None),
        ([notice(NOW + 3600, at_once=True)], 900),
        ([notice(NOW + 60, drains=False)], None),
        ([notice(NOW + 600), notice(NOW + 120), notice(NOW + 10, drains=False)], 110),
    ],
)
def test_a_drain_begins_in_time_and_ends_inside_the_lead(
    notices: list[Notice], seconds: float | None
) -> None:
    ordered = order(notices, NOW)
    assert (None if ordered is None else ordered.seconds) == seconds


PARSERS: list[Callable[[bytes], object]] = [
    spot,
    rebalance,
    scheduled,
    lambda body: preempted(body, NOW),
    lambda body: maintenance(body, NOW, gpu=True),
    lambda body: scheduled_events(body, "gpu01", NOW),
]


@given(st.binary(max_size=200))
@example(b"[" * 100_000)
@example(b'{"action": "stop", "time": "99999-01-01T00:00:00Z"}')
@example(b'{"action": "stop", "time": "0001-01-01T00:00:00+23:59"}')
@example(b'{"action": "stop", "time": ""}')
@example(b'[{"Code": "x", "NotBefore": "now"}]')
@example(b'[{"Code": "x", "NotBefore": "1 Jan 99999 00:00:00 GMT"}]')
@example(
    b'{"Events": [{"EventId": "a", "EventType": "b", "Resources": ["gpu01"], "NotBefore": "x"}]}'
)
def test_no_garbage_breaks_a_parser(body: bytes) -> None:
    for parse in PARSERS:
        try:
            parse(body)
        except NoticeError as error:
            assert len(str(error)) < 300  # noqa: PT017 - most of them raise, not all


@given(st.text(max_size=40))
def test_no_time_breaks_a_parser(text: str) -> None:
    bodies = (
        (spot, {"action": "stop", "time": text}),
        (scheduled, [{"Code": "system-reboot", "NotBefore": text}]),
        (rebalance, {"noticeTime": text}),
    )
    for parse, body in bodies:
        try:
            found = parse(json.dumps(body).encode())
        except NoticeError as error:
            assert "ime" in str(error) or "NotBefore" in str(error)  # noqa: PT017 - as above
        else:
            assert found
