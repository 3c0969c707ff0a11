"""The verbs over a restart of the agent: servers that go and come back on one real socket."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest
from farrier_agent import status
from farrier_agent.control import protocol
from farrier_agent.control.again import MOST, Agent, ask_until_done, judged, restart_and_watch
from farrier_agent.control.errors import LostError, NoAgentError
from farrier_agent.control.peer import Asker
from farrier_agent.control.protocol import Done, Drain, Final, Ready, Restart
from farrier_agent.control.server import Tell

from tests.agent.control.house import SNAPSHOT, Recorder, house
from tests.agent.host import until


@contextmanager
def command(path: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-m", "farrier_agent.cli", *arguments, f"--socket={path}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=20)
    return process.returncode, out, err


def replica(run: int | None, phase: str | None, *, gate: str = "closed") -> status.Replica:
    active = {"ready": "active", "warming": "active", "draining": "active"}.get(phase or "", "?")
    unit = status.Unit(
        name="engine-tiny.service",
        load_state="loaded",
        active_state=active,
        sub_state="x",
        invocation_id=None if run is None else f"{run:032x}",
    )
    return status.Replica(
        name="tiny",
        model="tiny",
        engine="vllm",
        unit=unit.name,
        port=1,
        unit_state=unit,
        phase=phase,
        gate="open" if gate == "open" else "closed",
        reason="a reason",
    )


def seeing(*replicas: status.Replica) -> type[Recorder]:
    """Handlers of an agent that sees *replicas*, and whose restarts never end."""

    class Seeing(Recorder):
        def __init__(self) -> None:
            super().__init__()
            self.snapshot = msgspec.structs.replace(SNAPSHOT, replicas=replicas)

        async def restart(self, request: protocol.Restart, asker: Asker, tell: Tell) -> Final:
            self.waiting += 1
            await asyncio.Event().wait()
            raise AssertionError

    return Seeing


# -- drain and ready ---------------------------------------------------------------------------


def test_a_drain_goes_on_with_the_agent_that_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    with (
        house(path) as first,
        command(path, "drain", "tiny", "--wait", "--deadline=500") as waiting,
    ):
        until(lambda: first.handlers.waiting == 1)
        first.close()
        with house(path) as second:
            until(lambda: second.handlers.waiting == 1)
            second.drained()
            code, out, err = ended(waiting)
            (asked,) = second.handlers.asked
    assert (code, out) == (0, "tiny: drained, after 1.5 s\n")
    begun, lost = err.splitlines()
    assert begun == "tiny: draining, 2 in flight"
    assert lost.startswith("farrier-agent: the agent fell silent: ")
    assert lost.endswith("; asking again, for 60 s")
    assert isinstance(asked, Drain)
    assert asked.deadline is not None
    assert 490 < asked.deadline < 500


def test_for_a_program_too_and_standard_output_stays_lines_of_json(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    with house(path) as first, command(path, "drain", "tiny", "--wait", "--json") as waiting:
        until(lambda: first.handlers.waiting == 1)
        first.close()
        with house(path) as second:
            until(lambda: second.handlers.waiting == 1)
            second.drained()
            code, out, _ = ended(waiting)
    assert [json.loads(line)["kind"] for line in out.splitlines()] == ["progress"] * 2 + ["done"]
    assert code == 0


def quick(path: Path) -> tuple[Agent, list[str]]:
    notes: list[str] = []
    agent = Agent(path, lambda _: None, notes.append, back_within=0.3, still=0.3, pause=0.02)
    return agent, notes


def test_an_agent_that_does_not_come_back_is_not_waited_for_for_ever(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"

    class Ending(Recorder):
        async def ready(self, *_: object) -> Final:
            one.close(wait=False)
            await asyncio.Event().wait()
            raise AssertionError

    agent, notes = quick(path)
    with house(path, Ending) as one, pytest.raises(LostError, match="carries on when") as caught:
        ask_until_done(agent, Ready(replicas=("tiny",), wait=True))
    assert len(notes) == 1
    assert caught.value.next == "systemctl status farrier-agent"


def test_one_that_is_not_there_at_first_is_not_waited_for(tmp_path: Path) -> None:
    agent, notes = quick(tmp_path / "none.sock")
    with pytest.raises(NoAgentError):
        ask_until_done(agent, Drain(replicas=("tiny",)))
    with pytest.raises(NoAgentError):
        restart_and_watch(agent, Restart(replicas=("tiny",)))
    assert notes == []


def test_an_agent_that_a_question_ends_is_not_asked_it_without_end(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    asked = 0

    def fall_silent() -> None:
        nonlocal asked
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                connection.recv(65536)
                asked += 1
                connection.sendall(protocol.encode(protocol.Accepted(agent="1")))

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        thread = threading.Thread(target=fall_silent)
        thread.start()
        agent, notes = quick(path)
        with pytest.raises(LostError):
            ask_until_done(agent, Drain(replicas=("tiny",)))
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(10)
    assert asked == MOST + 1
    assert len(notes) == MOST


# -- restart -----------------------------------------------------------------------------------


@pytest.mark.parametrize("wait", [True, False])
@pytest.mark.parametrize(
    ("now", "waiting", "not_waiting"),
    [
        (replica(2, "ready", gate="open"), 0, 0),
        (replica(2, "warming"), None, 0),
        (replica(2, "ready"), None, 0),  # its gate is about to open
        (replica(2, "failed"), 1, 1),
        (replica(2, "drained"), 1, 1),
        (replica(1, "draining"), None, 1),
        (replica(1, "ready", gate="open"), None, 1),
        (replica(None, "stopped"), None, None),
        (replica(2, None), None, None),
        (None, None, None),
    ],
)
def test_what_is_certain_of_a_lost_restart(
    now: status.Replica | None, waiting: int | None, not_waiting: int | None, *, wait: bool
) -> None:
    result = judged(replica(1, "ready", gate="open"), now, wait=wait)
    assert (result.code if result else None) == (waiting if wait else not_waiting)


def test_a_unit_that_did_not_run_before_runs_anew_when_it_runs() -> None:
    result = judged(replica(None, "stopped"), replica(1, "ready", gate="open"), wait=True)
    assert result is not None
    assert (result.code, result.text) == (0, "runs anew")


def test_a_restart_that_is_seen_to_be_done_is_done(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    with (
        house(path, seeing(replica(1, "ready", gate="open"))) as first,
        command(path, "restart", "tiny", "--wait") as waiting,
    ):
        until(lambda: first.handlers.waiting == 1)
        first.close()
        with house(path, seeing(replica(2, "warming"))) as second:
            assert waiting.stderr is not None
            assert "watching what becomes of the restart" in waiting.stderr.readline()
            assert waiting.stderr.readline() == "tiny: warming, a reason\n"
            ready = replica(2, "ready", gate="open")
            second.handlers.snapshot = msgspec.structs.replace(SNAPSHOT, replicas=(ready,))
            code, out, err = ended(waiting)
            assert second.handlers.waiting == 0  # it was not asked for a second time
    assert (code, out, err) == (0, "tiny: ready: runs anew\n", "tiny: ready, a reason\n")


@pytest.mark.parametrize("everything", [True, False])
def test_a_restart_of_which_nothing_is_seen_is_no_success(
    tmp_path: Path, *, everything: bool
) -> None:
    path = tmp_path / "control.sock"
    request = Restart(all=True) if everything else Restart(replicas=("tiny",), wait=True)
    agent, notes = quick(path)
    finals: list[Final] = []
    same = seeing(replica(1, "ready", gate="open"))
    with house(path, same) as first:
        asking = threading.Thread(target=lambda: finals.append(restart_and_watch(agent, request)))
        asking.start()
        until(lambda: first.handlers.waiting == 1)
        first.close()
        with house(path, same):
            asking.join(10)
    (final,) = finals
    assert isinstance(final, Done)
    (result,) = final.results
    assert protocol.exit_code(final) == 1
    assert result.state == "ready"
    assert "not known to be restarted: it is in the run that it was in" in result.text
    assert "farrier-agent restart tiny" in result.text
    assert len(notes) == 1


def test_one_who_may_not_ask_for_a_restart_is_told_so(tmp_path: Path) -> None:
    class Refusing(Recorder):
        async def status(self, *_: object) -> Final:
            return protocol.Failed(code=3, error="not allowed")

    path = tmp_path / "control.sock"
    with house(path, Refusing):
        agent, _ = quick(path)
        final = restart_and_watch(agent, Restart(replicas=("tiny",)))
    assert protocol.exit_code(final) == 3
