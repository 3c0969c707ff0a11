"""The agent's units client against real systemds, over their real buses."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from farrier_agent.units import bus
from farrier_agent.units.state import UnitsError, UnitState
from farrier_agent.units.watch import WAITING, Units

from farrier.lab import Lab
from tests.lab.guest_bus import Machine, command, until, watching

SIMPLE = "[Service]\nType=exec\nExecStart=sleep infinity\n"
RESTARTED = f"{SIMPLE}Restart=always\nRestartSec=100ms\n"
SLOW_STOP = f"{SIMPLE}ExecStop=sh -c 'until [ -e /run/probe-go ]; do sleep 0.05; done'\n"
SLOW_STOP += "TimeoutStopSec=60\n"


@pytest.fixture(scope="module", params=["gpu01", "gpu03"], ids=["bookworm", "trixie"])
def guest(lab: Lab, request: pytest.FixtureRequest) -> Machine:
    return Machine(lab, request.param)


@pytest.fixture
def machine(guest: Machine) -> Iterator[Machine]:
    guest.root("rm -f /run/probe-go")
    yield guest
    guest.clear()


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        await asyncio.wait_for(test(), 120)

    asyncio.run(main())


def known(units: Units, name: str) -> UnitState:
    state = units.state(name)
    assert state is not None, units.problem(name)
    return state


def test_a_unit_is_what_systemctl_shows(machine: Machine, tmp_path: Path) -> None:
    name = machine.unit("probe-a.service", SIMPLE)
    machine.root(f"systemctl start {name}")

    async def main() -> None:
        async with watching(machine, tmp_path, name, "probe-absent.service") as (units, seen, _):
            one = known(units, name)
            assert one.active
            assert one.sub_state == "running"
            assert one.invocation_id == machine.shown(name, "InvocationID")
            assert one.main_pid == int(machine.shown(name, "MainPID"))
            assert one.restarts == 0
            assert one.started_at == pytest.approx(time.time(), abs=30)
            assert one.ended_at is None
            assert not one.needs_reload
            absent = known(units, "probe-absent.service")
            assert (absent.load_state, absent.invocation_id) == ("not-found", None)
            assert [before for before, _ in seen.changes] == [None, None]

    run(main)


def test_start_stop_and_restart_end_in_the_units_own_state(
    machine: Machine, tmp_path: Path
) -> None:
    name = machine.unit("probe-a.service", SIMPLE)

    async def main() -> None:
        async with watching(machine, tmp_path, name) as (units, _, _):
            first = await units.start(name, within=10)
            assert (first.job, first.unit.active) == ("done", True)
            second = await units.restart(name, within=10)
            assert (second.job, second.unit.active) == ("done", True)
            assert second.unit.invocation_id != first.unit.invocation_id
            assert second.unit.main_pid != first.unit.main_pid
            assert [one.automatic for one in second.unit.starts] == [False, False]
            assert second.unit.starts[-1].invocation_id == second.unit.invocation_id
            last = await units.stop(name, within=10)
            assert (last.job, last.unit.active_state) == ("done", "inactive")
            assert last.unit.main_pid is None

    run(main)


def test_a_crash_and_its_restart_are_told_at_once_and_not_polled(
    machine: Machine, tmp_path: Path
) -> None:
    name = machine.unit("probe-a.service", RESTARTED)
    machine.root(f"systemctl start {name}")

    async def main() -> None:
        async with watching(machine, tmp_path, name) as (units, seen, _):
            before = known(units, name)
            await command(machine, f"systemctl kill -s KILL {name}")
            await until(lambda: known(units, name).restarts == 1, 5)
            await until(lambda: known(units, name).active, 5)
            now = known(units, name)
            assert now.invocation_id != before.invocation_id
            assert [one.automatic for one in now.starts] == [True]
            assert now.starts[0].at == now.started_at
            states = [one.active_state for _, one in seen.changes]
            assert "activating" in states  # the pause between the crash and the restart
            by_hand = await units.restart(name, within=10)
            assert by_hand.unit.restarts == 0
            assert [one.automatic for one in by_hand.unit.starts] == [True, False]

    run(main)


def test_a_unit_that_cannot_start_is_failed_whatever_the_job_says(
    machine: Machine, tmp_path: Path
) -> None:
    name = machine.unit("probe-a.service", "[Service]\nType=exec\nExecStart=/nonexistent\n")

    async def main() -> None:
        async with watching(machine, tmp_path, name, "probe-absent.service") as (units, _, _):
            outcome = await units.start(name, within=10)
            assert (outcome.job, outcome.unit.active_state) == ("failed", "failed")
            assert outcome.unit.result == "exit-code"
            with pytest.raises(
                UnitsError, match=r"does not start probe-absent.service: .*not found"
            ):
                await units.start("probe-absent.service", within=10)

    run(main)


def test_a_long_stop_is_waited_for_and_can_be_cancelled(machine: Machine, tmp_path: Path) -> None:
    """As of a unit whose ExecStop drains: a start meanwhile cancels the stop (systemd 252, 257)."""
    name = machine.unit("probe-a.service", SLOW_STOP)
    machine.root(f"systemctl start {name}")

    async def main() -> None:
        async with watching(machine, tmp_path, name) as (units, _, _):
            early = await units.stop(name, within=0.5)
            assert (early.job, early.unit.active_state) == (WAITING, "deactivating")
            stopping = asyncio.create_task(units.stop(name, within=30))
            await until(lambda: known(units, name).job is not None)
            await command(machine, f"systemctl --no-block start {name}")
            outcome = await stopping
            assert outcome.job == "canceled"
            assert outcome.unit.active_state == "deactivating"
            await command(machine, "touch /run/probe-go")
            await until(lambda: known(units, name).active)

    run(main)


def test_a_daemon_reexec_in_the_middle_of_a_stop_loses_nothing(
    machine: Machine, tmp_path: Path
) -> None:
    name = machine.unit("probe-a.service", SLOW_STOP)
    machine.root(f"systemctl start {name}")

    async def main() -> None:
        async with watching(machine, tmp_path, name) as (units, _, _):
            stopping = asyncio.create_task(units.stop(name, within=60))
            await until(lambda: known(units, name).active_state == "deactivating")
            await command(machine, "systemctl daemon-reexec")
            await until(lambda: units.state(name))
            assert not stopping.done()
            await command(machine, "touch /run/probe-go")
            outcome = await stopping
            assert outcome.job in {"done", None}
            assert outcome.unit.active_state == "inactive"
            # and signals still come
            await command(machine, f"systemctl start {name}")
            await until(lambda: known(units, name).active, 5)

    run(main)


def test_without_a_bus_nothing_is_known_and_with_one_again_everything(
    machine: Machine, tmp_path: Path
) -> None:
    name = machine.unit("probe-a.service", SIMPLE)
    machine.root(f"systemctl start {name}")

    async def main() -> None:
        async with watching(machine, tmp_path, name) as (units, seen, cable):
            before = known(units, name)
            await cable.cut()
            await until(lambda: units.state(name) is None)
            assert "bus" in str(units.problem(name))
            with pytest.raises(UnitsError, match="systemd cannot be asked"):
                await units.restart(name, within=5)
            await command(machine, f"systemctl restart {name}")
            await cable.plug()
            await until(lambda: units.state(name))
            now = known(units, name)
            assert now.invocation_id not in {None, before.invocation_id}
            assert seen.changes[-1] == (before, now)
            assert [one.invocation_id for one in now.starts] == [now.invocation_id]

    run(main)


def test_a_bus_that_is_lost_during_a_job_is_asked_again(machine: Machine, tmp_path: Path) -> None:
    name = machine.unit("probe-a.service", SLOW_STOP)
    machine.root(f"systemctl start {name}")

    async def main() -> None:
        async with watching(machine, tmp_path, name) as (units, _, cable):
            stopping = asyncio.create_task(units.stop(name, within=60))
            await until(lambda: known(units, name).active_state == "deactivating")
            await cable.cut()
            await until(lambda: units.state(name) is None)
            await command(machine, "touch /run/probe-go")
            await cable.plug()
            outcome = await stopping
            assert outcome.job in {"done", None}
            assert outcome.unit.active_state == "inactive"

    run(main)


def test_a_bus_that_hangs_is_left_and_tried_again(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bus, "PATIENCE", 0.5)
    name = machine.unit("probe-a.service", SIMPLE)

    async def main() -> None:
        async with watching(machine, tmp_path, name) as (units, _, cable):
            cable.free.clear()
            with pytest.raises(UnitsError, match="not answered within"):
                await units.read(name)
            await until(lambda: units.state(name) is None)
            cable.free.set()
            await until(lambda: units.state(name))

    run(main)


def test_a_changed_file_is_seen_and_a_reload_by_somebody_else_too(
    machine: Machine, tmp_path: Path
) -> None:
    name = machine.unit("probe-a.service", SIMPLE)
    machine.root(f"systemctl start {name}")  # an idle one is forgotten, and read when asked for

    async def main() -> None:
        async with watching(machine, tmp_path, name) as (units, _, _):
            assert not known(units, name).needs_reload
            machine.put(name, RESTARTED)
            assert (await units.read(name)).needs_reload
            await command(machine, "systemctl daemon-reload")
            await until(lambda: not known(units, name).needs_reload)

    run(main)


def test_a_unit_may_be_called_by_its_alias(machine: Machine, tmp_path: Path) -> None:
    name = machine.unit("probe-a.service", SIMPLE)
    machine.root(f"ln -sf {name} /run/systemd/system/probe-alias.service; systemctl daemon-reload")

    async def main() -> None:
        async with watching(machine, tmp_path, "probe-alias.service") as (units, _, _):
            outcome = await units.start("probe-alias.service", within=10)
            assert outcome.job == "done"
            await command(machine, f"systemctl stop {name}")
            await until(lambda: not known(units, "probe-alias.service").active, 5)

    try:
        run(main)
    finally:
        machine.root("rm -f /run/systemd/system/probe-alias.service")
