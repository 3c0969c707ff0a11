"""The stand-in for systemd, asked by the agent's own client.

What it has to do was seen of real ones: most of these are tests/lab/test_units_over_dbus.py's.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from farrier_agent.units import bus, calls
from farrier_agent.units.state import UnitsError, UnitState
from farrier_agent.units.watch import WAITING, Units

from tests.fakes.systemd1.control import Systemd

NAME = "probe-a.service"
SLEEP = ["sleep", "600"]


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[Systemd]:
    one = Systemd(tmp_path)
    one.start()
    yield one
    one.stop()


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        await asyncio.wait_for(test(), 60)

    asyncio.run(main())


async def until(question: Callable[[], object]) -> None:
    async def wait() -> None:
        while not question():
            await asyncio.sleep(0.01)

    await asyncio.wait_for(wait(), 15)


@contextlib.asynccontextmanager
async def watching(
    systemd: Systemd, *names: str
) -> AsyncIterator[tuple[Units, list[tuple[str, str]]]]:
    seen: list[tuple[str, str]] = []

    def changed(_: UnitState | None, now: UnitState) -> None:
        seen.append((now.active_state, now.sub_state))

    units = Units(names, path=systemd.bus, changed=changed)
    task = asyncio.create_task(units.run())
    try:
        await until(lambda: all(units.state(name) for name in names) or task.done())
        yield units, seen
    finally:
        task.cancel()
        await asyncio.wait({task}, timeout=10)
        assert task.cancelled()


def known(units: Units, name: str = NAME) -> UnitState:
    state = units.state(name)
    assert state is not None, units.problem(name)
    return state


def test_a_unit_is_what_the_file_says_and_changes_are_told(systemd: Systemd) -> None:
    async def main() -> None:
        systemd.unit(NAME, ActiveState="active", SubState="running", InvocationID="ab" * 16)
        async with watching(systemd, NAME, "absent.service") as (units, _):
            assert known(units).active
            assert known(units).invocation_id == "ab" * 16
            assert known(units, "absent.service").load_state == "not-found"
            before = len(systemd.calls("GetAll"))
            systemd.unit(NAME, ActiveState="failed", SubState="failed", Result="oom-kill")
            await until(lambda: known(units).result == "oom-kill")
            assert len(systemd.calls("GetAll")) > before

    run(main)


def test_nothing_is_told_to_one_who_did_not_ask_for_it(systemd: Systemd) -> None:
    async def main() -> None:
        heard: list[str] = []
        systemd.unit(NAME, ActiveState="active")
        line = await bus.connect(systemd.bus, lambda one: heard.append(str(one.body[0])))
        try:
            await calls.watch_unit(line, await calls.load(line, NAME))
            systemd.unit(NAME, ActiveState="failed")
            await calls.ping(line)
            assert heard == [], "not before Subscribe"
            await calls.subscribe(line)
            systemd.unit("other.service", ActiveState="active")
            systemd.unit(NAME, ActiveState="active")
            await calls.ping(line)
            assert heard == [f"{calls.NAME}.Service", f"{calls.NAME}.Unit"]
        finally:
            line.close()

    run(main)


def test_start_stop_and_restart_of_a_real_program(systemd: Systemd) -> None:
    async def main() -> None:
        systemd.programs(NAME, exec=SLEEP)
        async with watching(systemd, NAME) as (units, seen):
            assert known(units).active_state == "inactive"
            first = await units.start(NAME, within=10)
            assert (first.job, first.unit.active) == ("done", True)
            assert first.unit.main_pid is not None
            assert b"sleep" in Path(f"/proc/{first.unit.main_pid}/cmdline").read_bytes()
            second = await units.restart(NAME, within=10)
            assert (second.job, second.unit.active) == ("done", True)
            assert second.unit.invocation_id != first.unit.invocation_id
            assert second.unit.main_pid != first.unit.main_pid
            assert [one.automatic for one in second.unit.starts] == [False, False]
            last = await units.stop(NAME, within=10)
            assert (last.job, last.unit.active_state) == ("done", "inactive")
            assert last.unit.main_pid is None
            assert not Path(f"/proc/{second.unit.main_pid}").exists()
            assert ("deactivating", "stop-sigterm") in seen

    run(main)


def test_the_programs_around_it_run_in_their_order(systemd: Systemd, tmp_path: Path) -> None:
    log = tmp_path / "log"

    def note(word: str) -> list[str]:
        return ["sh", "-c", f'echo "{word} $MAINPID" >> {log}']

    async def main() -> None:
        systemd.programs(
            NAME,
            exec=["sh", "-c", f"echo main >> {log}; exec sleep 600"],
            start_pre=[note("pre")],
            stop=[["-", "false"], note("stop"), note("stop")],
            stop_post=[note("post")],
        )
        async with watching(systemd, NAME) as (units, seen):
            await units.start(NAME, within=10)
            await until(lambda: "main" in log.read_text())
            pid = known(units).main_pid
            await units.restart(NAME, within=10)
            stop = ["stop " + str(pid)]
            assert log.read_text().splitlines()[:6] == ["pre ", "main", *stop * 2, "post ", "pre "]
            assert ("deactivating", "stop") in seen
            assert ("deactivating", "stop-post") in seen
            assert ("activating", "start-pre") in seen

    run(main)


def test_a_crash_is_counted_and_restarted(systemd: Systemd) -> None:
    async def main() -> None:
        systemd.programs(NAME, exec=SLEEP, restart_seconds=0.1)
        async with watching(systemd, NAME) as (units, seen):
            before = (await units.start(NAME, within=10)).unit
            assert before.main_pid is not None
            os.kill(before.main_pid, signal.SIGKILL)
            await until(lambda: known(units).restarts == 1 and known(units).active)
            assert known(units).invocation_id != before.invocation_id
            assert [one.automatic for one in known(units).starts] == [False, True]
            assert ("activating", "auto-restart") in seen
            by_hand = await units.restart(NAME, within=10)
            assert by_hand.unit.restarts == 0

    run(main)


def test_what_cannot_start_is_failed_whatever_the_job_says(systemd: Systemd) -> None:
    async def main() -> None:
        systemd.programs(NAME, exec=["/nonexistent"])
        systemd.programs("probe-b.service", exec=SLEEP, start_pre=[["false"]])
        async with watching(systemd, NAME, "probe-b.service") as (units, _):
            for name in (NAME, "probe-b.service"):
                outcome = await units.start(name, within=10)
                assert (outcome.job, outcome.unit.active_state) == ("failed", "failed")
                assert outcome.unit.result == "exit-code"
        async with watching(systemd, "absent.service") as (units, _):
            with pytest.raises(UnitsError, match=r"does not start absent.service: .*not found"):
                await units.start("absent.service", within=10)

    run(main)


@pytest.mark.parametrize(("status", "ends"), [(0, ("done", "inactive")), (3, ("failed", "failed"))])
def test_the_end_of_a_oneshot_is_its_jobs(
    systemd: Systemd, status: int, ends: tuple[str, str]
) -> None:
    async def main() -> None:
        systemd.programs(NAME, exec=["sh", "-c", f"exit {status}"], oneshot=True)
        async with watching(systemd, NAME) as (units, _):
            outcome = await units.start(NAME, within=10)
            assert (outcome.job, outcome.unit.active_state) == ends

    run(main)


def test_a_long_stop_is_waited_for_and_its_job_can_be_cancelled(
    systemd: Systemd, tmp_path: Path
) -> None:
    go = tmp_path / "go"

    async def main() -> None:
        wait = ["sh", "-c", f"until [ -e {go} ]; do sleep 0.02; done"]
        systemd.programs(NAME, exec=SLEEP, stop=[wait])
        async with watching(systemd, NAME) as (units, _):
            await units.start(NAME, within=10)
            early = await units.stop(NAME, within=0.2)
            assert (early.job, early.unit.active_state) == (WAITING, "deactivating")
            stopping = asyncio.create_task(units.stop(NAME, within=30))
            await until(lambda: len(systemd.calls("StopUnit")) == 2)
            async with watching(systemd, NAME) as (other, _):
                starting = asyncio.create_task(other.start(NAME, within=30))
                outcome = await stopping
                assert (outcome.job, outcome.unit.active_state) == ("canceled", "deactivating")
                go.touch()
                assert (await starting).unit.active

    run(main)


def test_faults_on_order(systemd: Systemd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bus, "PATIENCE", 0.5)

    async def main() -> None:
        systemd.unit(NAME, ActiveState="active")
        async with watching(systemd, NAME) as (units, _):
            denied = ["org.freedesktop.DBus.Error.AccessDenied", "Permission denied"]
            systemd.order(fail={"StartUnit": denied})
            with pytest.raises(UnitsError, match="does not let this user start"):
                await units.start(NAME, within=5)
            systemd.order(fail=None, hang=["GetAll"])
            with pytest.raises(UnitsError, match="not answered within"):
                await units.read(NAME)
            await until(lambda: units.state(NAME) is None)
            systemd.order(hang=None)
            await until(lambda: units.state(NAME))
            systemd.order(drop=True)
            await until(lambda: units.state(NAME) is None)
            systemd.order(drop=None)
            await until(lambda: units.state(NAME))

    run(main)


def test_systemd_goes_and_comes_back_and_reloads(systemd: Systemd) -> None:
    async def main() -> None:
        systemd.unit(NAME, ActiveState="active")
        async with watching(systemd, NAME) as (units, _):
            systemd.order(away=True)
            with pytest.raises(UnitsError, match="not provided"):
                await units.read(NAME)
            systemd.order(away=None)
            await until(lambda: len(systemd.calls("Subscribe")) >= 2)
            await until(lambda: units.state(NAME))
            systemd.unit(NAME, ActiveState="failed")
            await until(lambda: known(units).active_state == "failed")
            before = len(systemd.calls("Subscribe"))
            systemd.order(reload=1)
            await until(lambda: len(systemd.calls("Subscribe")) > before)

    run(main)


def test_what_waits_for_a_file_holds_for_the_next_call(systemd: Systemd, tmp_path: Path) -> None:
    flag = tmp_path / "flag"

    async def main() -> None:
        systemd.unit(NAME, ActiveState="active")
        then = {"units": {NAME: {"ActiveState": "failed"}}}
        systemd.order(once={"exists": str(flag), "then": then})
        async with watching(systemd, NAME) as (units, _):
            assert (await units.read(NAME)).active_state == "active"
            flag.touch()
            assert (await units.read(NAME)).active_state == "failed"
            flag.unlink()
            assert (await units.read(NAME)).active_state == "failed"

    run(main)


def test_its_end_is_the_end_of_what_it_runs(tmp_path: Path) -> None:
    systemd = Systemd(tmp_path)
    systemd.start()

    async def main() -> int:
        systemd.programs(NAME, exec=["sh", "-c", "trap '' TERM; sleep 600 & wait"])
        async with watching(systemd, NAME) as (units, _):
            return (await units.start(NAME, within=10)).unit.main_pid or 0

    pid = asyncio.run(main())
    assert Path(f"/proc/{pid}").exists()
    systemd.stop()
    assert not Path(f"/proc/{pid}").exists()
