"""``systemctl restart`` of an engine under load: whoever was let in is served to the end."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

import pytest

from tests.roles.fleet import Answer, Fleet, until

STREAMS = 12
TOKENS = {"gpu01": 1900, "gpu02": 150, "gpu03": 150}
"""For some seconds of work: the stand-in makes 50 tokens a second, the real engine some hundred."""


@dataclass
class Clients:
    """Answers, as clients got them; *broken* are connections that ended without one."""

    streams: list[Answer] = field(default_factory=list)
    posts: list[Answer] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)

    def stream(self, fleet: Fleet, host: str) -> None:
        try:
            self.streams.append(
                fleet.chat(host, stream=True, ignore_eos=True, max_tokens=TOKENS[host])
            )
        except OSError as error:
            self.broken.append(f"stream: {error!r}")

    def post(self, fleet: Fleet, host: str, over: threading.Event) -> None:
        while not over.is_set():
            try:
                self.posts.append(fleet.chat(host))
            except OSError as error:
                self.broken.append(f"post: {error!r}")
            over.wait(0.05)


def assert_nothing_lost(clients: Clients) -> None:
    assert clients.broken == []
    for answer in (*clients.streams, *clients.posts):
        assert answer.status in {200, 503}, answer
        if answer.status == 503:
            assert "retry-after" in answer.headers
    accepted = [answer for answer in clients.streams if answer.status == 200]
    assert [one for one in accepted if not one.text.endswith("data: [DONE]\n\n")] == []
    assert [one for one in accepted if "abort" in one.text] == []


def in_flight(fleet: Fleet, host: str) -> int:
    sockets = fleet.root(host, "ss -Htn state established '( dport = :8101 )' | wc -l")
    return int(sockets)


@pytest.mark.parametrize(
    ("host", "command"),
    [
        ("gpu01", "systemctl restart engine-tiny"),  # the real vLLM
        ("gpu03", "systemctl restart engine-tiny"),  # a stand-in that dies at once on SIGTERM
        # systemd's own end of things, without the agent, on Debian 12
        ("gpu02", "systemctl stop farrier-agent; systemctl restart engine-tiny"),
    ],
)
def test_a_restart_under_load_cuts_nobody(fleet: Fleet, host: str, command: str) -> None:
    clients, over = Clients(), threading.Event()
    streams = [threading.Thread(target=clients.stream, args=(fleet, host)) for _ in range(STREAMS)]
    posts = [threading.Thread(target=clients.post, args=(fleet, host, over)) for _ in range(3)]
    before = fleet.unit(host, "engine-tiny", "MainPID")
    try:
        for thread in (*streams, *posts):
            thread.start()
        until(lambda: in_flight(fleet, host) >= STREAMS, 30, "every stream is at the engine")
        fleet.root(host, command)
        assert fleet.unit(host, "engine-tiny", "MainPID") != before
    finally:
        fleet.root(host, "systemctl start farrier-agent")
        until(lambda: fleet.gate(host), 180, "the engine is warm and its gate open again")
        over.set()
        for thread in (*streams, *posts):
            if thread.ident:
                thread.join()
    assert len(clients.streams) == STREAMS
    assert {answer.status for answer in clients.streams} == {200}
    assert 200 in {answer.status for answer in clients.posts}
    assert 503 in {answer.status for answer in clients.posts}
    assert_nothing_lost(clients)
    said = fleet.root(host, "journalctl -q -u engine-tiny -n 400 -o cat")
    assert "nothing in flight any more" in said, said[-3000:]


def test_a_drain_that_is_killed_is_carried_on(fleet: Fleet) -> None:
    """ExecStop= is named twice: when the first is killed, the second goes on where it was."""
    host = "gpu03"
    clients = Clients()
    streams = [threading.Thread(target=clients.stream, args=(fleet, host)) for _ in range(4)]
    for thread in streams:
        thread.start()
    try:
        until(lambda: in_flight(fleet, host) >= 4, 30, "every stream is at the engine")
        fleet.root(host, "systemctl restart --no-block engine-tiny")
        until(lambda: not fleet.gate(host), 20, "its gate is closed")
        control = fleet.unit(host, "engine-tiny", "ControlPID")
        assert int(control) > 1
        fleet.root(host, f"kill -9 {control}")
        second = until(
            lambda: {fleet.unit(host, "engine-tiny", "ControlPID")} - {control, "0"},
            20,
            "the second ExecStop= runs",
        )
        assert second
    finally:
        for thread in streams:
            thread.join()
        until(lambda: fleet.gate(host), 180, "the engine is warm and its gate open again")
    assert {answer.status for answer in clients.streams} == {200}
    assert_nothing_lost(clients)
