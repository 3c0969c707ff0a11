"""The program of ExecStop=: it waits for the last request, whoever else is alive."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import pytest
from farrier_agent.draining.events import DrainAsked, Resumed
from farrier_agent.draining.record import Phase

from tests.agent.draining.scene import USER, Scene
from tests.agent.draining.stories import ANNA
from tests.agent.host import until


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    with Scene(tmp_path) as one:
        yield one


def counting(scene: Scene, in_flight: int) -> bool:
    drain = scene.record().drain
    return drain is not None and drain.closed and drain.in_flight == in_flight


# -- without an agent ------------------------------------------------------------------------------


def test_without_an_agent_it_closes_counts_and_waits(scene: Scene) -> None:
    scene.serves().begin(3)
    stop = scene.stop()
    until(lambda: counting(scene, 3))
    assert not scene.gate_open
    scene.finish(2)
    until(lambda: counting(scene, 1))
    assert stop.runs
    scene.finish()
    ended = time.monotonic()
    assert stop.ends() == 0
    assert time.monotonic() - ended >= 1.9, "three looks, a second apart"
    record = scene.record()
    assert (record.phase, record.stopping) == (Phase.DRAINED, True)
    assert record.drain is not None
    assert (record.drain.in_flight_at_close, record.drain.forced) == (3, False)
    assert "the agent does not answer" in stop.said()
    assert "ready -> draining (closed): the unit is being stopped (asked by systemd)" in stop.said()


def test_it_asks_systemd_for_time_again_and_again_and_says_what_for(scene: Scene) -> None:
    scene.serves().begin(2)
    stop = scene.stop("--cap=1000")
    until(lambda: counting(scene, 2))
    told = scene.hears(4)
    assert all(one.seconds == 30 for one in told)
    assert "STATUS=draining: requests in flight: 2; waits 99" in told[-1].text
    gaps = [later.when - earlier.when for earlier, later in pairwise(told)]
    assert max(gaps) < 3
    scene.finish()
    assert stop.ends() == 0


def test_it_asks_for_no_time_beyond_its_cap(scene: Scene) -> None:
    scene.serves().begin(2)
    begun = time.monotonic()
    stop = scene.stop("--cap=4")
    assert stop.ends() == 0
    late = [one for one in scene.told() if "waits" in one.text]
    assert max(one.seconds for one in late) <= 5
    assert time.monotonic() - begun < 12


def test_a_second_run_after_a_drain_ends_at_once(scene: Scene) -> None:
    scene.serves()
    assert scene.stop().ends() == 0
    begun = time.monotonic()
    assert scene.stop().ends() == 0
    assert time.monotonic() - begun < 10


def test_a_program_that_is_killed_is_carried_on_by_its_next_run(scene: Scene) -> None:
    scene.serves().begin(2)
    first = scene.stop()
    until(lambda: counting(scene, 2))
    begun = scene.record().stop_began
    first.kill()
    second = scene.stop()
    scene.finish(1)
    until(lambda: counting(scene, 1))
    assert scene.record().stop_began == begun
    scene.finish()
    assert second.ends() == 0
    assert scene.record().phase is Phase.DRAINED


def test_a_program_that_is_killed_is_carried_on_by_the_agent(scene: Scene) -> None:
    scene.serves().begin(1)
    stop = scene.stop()
    until(lambda: counting(scene, 1))
    stop.kill()
    step = scene.keeper.tell("tiny", Resumed())
    assert step.record.counting
    assert step.record.stopping


def test_the_cap_ends_it_and_says_how_many_are_cut(scene: Scene) -> None:
    scene.serves().begin(3)
    stop = scene.stop("--cap=2")
    assert stop.ends() == 0
    drain = scene.record().drain
    assert drain is not None
    assert (drain.forced, drain.cut) == (True, 3)
    assert "systemd waits no longer: 3 requests still in flight" in stop.said()


def test_force_ends_it_at_its_deadline(scene: Scene) -> None:
    scene.serves().begin(1)
    stop = scene.stop("--deadline=1", "--on-deadline=force")
    assert stop.ends() == 0
    assert "its deadline passed: 1 requests still in flight" in stop.said()


def test_a_forced_drain_of_before_is_not_waited_for_again(scene: Scene) -> None:
    scene.serves().begin(2)
    scene.keeper.tell("tiny", DrainAsked(ANNA, settle=0, seconds=0, policy="force"))
    scene.finish(1)
    begun = time.monotonic()
    assert scene.stop().ends() == 0
    assert time.monotonic() - begun < 10
    drain = scene.record().drain
    assert drain is not None
    assert drain.cut == 1, "counted again just before the engine is told to end"


def test_told_to_end_it_ends_and_records_what_is_cut(scene: Scene) -> None:
    scene.serves().begin(2)
    stop = scene.stop()
    until(lambda: counting(scene, 2))
    begun = time.monotonic()
    stop.process.send_signal(signal.SIGTERM)
    assert stop.ends() == 1
    assert time.monotonic() - begun < 1
    drain = scene.record().drain
    assert drain is not None
    assert (drain.forced, drain.cut) == (True, 2)


def test_what_is_cut_is_counted_at_the_end(scene: Scene) -> None:
    scene.serves().begin(3)
    stop = scene.stop()
    until(lambda: counting(scene, 3))
    stop.process.send_signal(signal.SIGSTOP)
    scene.finish(2)
    stop.process.send_signal(signal.SIGTERM)
    stop.process.send_signal(signal.SIGCONT)
    assert stop.ends() == 1
    drain = scene.record().drain
    assert drain is not None
    assert (drain.forced, drain.cut) == (True, 1)


def test_an_engine_that_ended_by_itself_is_not_waited_for(scene: Scene) -> None:
    scene.serves().begin(1)
    assert scene.stop(environment={"MAINPID": ""}).ends() == 0
    assert not scene.gate_open


def test_a_gate_that_somebody_opened_by_hand_is_closed_and_waited_for(scene: Scene) -> None:
    scene.serves()
    assert scene.stop().ends() == 0
    scene.gates.open("tiny")
    scene.begin(1)
    stop = scene.stop()
    until(lambda: counting(scene, 1))
    assert not scene.gate_open
    assert stop.runs
    scene.finish()
    assert stop.ends() == 0


def test_strangers_are_reported_and_not_waited_for(scene: Scene) -> None:
    scene.serves().begin(2)
    stop = scene.stop("--nginx-user=daemon")
    assert stop.ends() == 0
    assert f"not waited for: 2 connections of {USER} (uid {os.getuid()})" in stop.said()


def test_where_nginx_s_user_is_not_known_everybody_is_waited_for(scene: Scene) -> None:
    scene.serves().begin(1)
    stop = scene.stop("--nginx-user=nginx-of-nowhere")
    until(lambda: counting(scene, 1))
    assert "no user 'nginx-of-nowhere'" in stop.said()
    scene.finish()
    assert stop.ends() == 0


def test_a_client_that_still_reads_its_answer_is_waited_for_a_little(scene: Scene) -> None:
    scene.serves()
    with socket.socket() as nginx:
        nginx.bind(("127.0.0.1", 0))
        nginx.listen()
        port = nginx.getsockname()[1]
        client = socket.create_connection(("127.0.0.1", port))
        answering, _ = nginx.accept()
        with client, answering:
            answering.setblocking(False)
            with suppress(BlockingIOError):
                while True:  # until the client's buffer is full, and ours too
                    answering.send(bytes(65536))
            slow = scene.stop(f"--client-ports={port}", "--client-seconds=600")
            until(lambda: any("1 clients still read" in one.text for one in scene.told()))
            assert slow.runs
            assert scene.stop(f"--client-ports={port}", "--client-seconds=0.3").ends() == 0
        assert slow.ends() == 0


# -- without a record ------------------------------------------------------------------------------


def test_a_lock_that_is_held_does_not_keep_it_from_draining(scene: Scene) -> None:
    scene.serves().begin(1)
    with scene.store.locked("tiny"):
        stop = scene.stop()
        until(lambda: "held by another process" in stop.said())
        until(lambda: not scene.gate_open)
        scene.finish()
        assert stop.ends() == 0


def test_a_state_directory_that_cannot_be_written(scene: Scene) -> None:
    scene.serves().begin(1)
    stop = scene.stop(f"--state-dir={scene.root / 'notify'}")
    until(lambda: not scene.gate_open)
    stop.until_it_says("draining (closed)")
    assert "goes on without its record" in stop.said()
    assert stop.runs
    scene.finish()
    assert stop.ends() == 0


@pytest.mark.parametrize("damage", ["garbage", "deleted", "directory"])
def test_a_record_that_is_lost_meanwhile(scene: Scene, damage: str) -> None:
    scene.serves().begin(1)
    stop = scene.stop()
    until(lambda: counting(scene, 1))
    path = scene.store.path("tiny")
    path.unlink()
    if damage == "garbage":
        path.write_text("{")
    elif damage == "directory":
        path.mkdir()
    scene.told()
    scene.hears(3)
    assert stop.runs
    assert not scene.gate_open
    scene.finish()
    assert stop.ends() == 0


# -- with an agent ---------------------------------------------------------------------------------


def test_with_an_agent_it_waits_for_the_agent(scene: Scene) -> None:
    scene.serves().begin(2)
    agent = scene.agent()
    stop = scene.stop()
    agent.until_it_says("draining 2")
    assert stop.runs
    scene.finish()
    assert stop.ends() == 0
    assert "drained 0" in agent.said()
    assert "not by the agent" not in stop.said()


def test_an_agent_that_dies_meanwhile(scene: Scene) -> None:
    scene.serves().begin(2)
    agent = scene.agent()
    stop = scene.stop()
    agent.until_it_says("draining 2")
    begun = scene.record().stop_began
    agent.kill()
    stop.until_it_says("drained here, not by the agent")
    scene.finish(1)
    until(lambda: counting(scene, 1))
    assert scene.record().stop_began == begun
    scene.finish()
    assert stop.ends() == 0


def test_an_agent_that_dies_while_it_settles(scene: Scene) -> None:
    scene.serves().begin(1)
    agent = scene.agent()
    stop = scene.stop()
    agent.until_it_says("asked")
    agent.kill()
    until(lambda: counting(scene, 1))
    assert not scene.gate_open
    scene.finish()
    assert stop.ends() == 0


@pytest.mark.parametrize("manner", ["idle", "silent"])
def test_an_agent_that_does_not_get_on(scene: Scene, manner: str) -> None:
    scene.serves().begin(1)
    scene.agent(manner)
    stop = scene.stop()
    until(lambda: counting(scene, 1), 8)
    assert "drained here, not by the agent" in stop.said()
    scene.finish()
    assert stop.ends() == 0


def test_an_agent_that_hangs_in_the_middle(scene: Scene) -> None:
    scene.serves().begin(1)
    agent = scene.agent()
    stop = scene.stop()
    agent.until_it_says("draining 1")
    agent.process.send_signal(signal.SIGSTOP)
    stop.until_it_says("drained here, not by the agent")
    scene.finish()
    assert stop.ends() == 0
    assert scene.record().phase is Phase.DRAINED


def test_told_to_end_while_the_agent_drains(scene: Scene) -> None:
    scene.serves().begin(2)
    agent = scene.agent()
    stop = scene.stop()
    agent.until_it_says("draining 2")
    stop.process.send_signal(signal.SIGTERM)
    assert stop.ends() == 1
    drain = scene.record().drain
    assert drain is not None
    assert drain.forced
