"""Crashes, jobs, reloads and a bus that is cut, in any order: the picture is true (5 min)."""

from __future__ import annotations

import asyncio
import random
import time
from functools import partial
from pathlib import Path

import pytest
from farrier_agent.units.state import UnitsError
from farrier_agent.units.watch import Units

from farrier.lab import Lab
from tests.lab.guest_bus import Cable, Machine, command, until, watching

SECONDS = 120
RESTARTED = """\
[Unit]
StartLimitIntervalSec=0
[Service]
Type=exec
ExecStart=sleep infinity
Restart=always
RestartSec=100ms
"""


@pytest.mark.parametrize("host", ["gpu01", "gpu03"], ids=["bookworm", "trixie"])
def test_whatever_happens_the_picture_is_systemds_own(lab: Lab, tmp_path: Path, host: str) -> None:
    machine = Machine(lab, host)
    names = [machine.unit(f"probe-s{number}.service", RESTARTED) for number in range(4)]
    try:
        asyncio.run(_rounds(machine, tmp_path, names))
    finally:
        machine.clear()


async def _rounds(machine: Machine, directory: Path, names: list[str]) -> None:
    chance = random.Random(4)  # noqa: S311 - the same events in each run
    async with watching(machine, directory, *names) as (units, seen, cable):
        end = time.monotonic() + SECONDS
        events = 0
        while time.monotonic() < end:
            await _event(chance, machine, units, cable, chance.choice(names))
            events += 1
        print(f"{machine.host}: {events} events, {len(seen.changes)} changes")
        for name in names:
            await until(partial(_is_true, machine, units, name), 15)
        assert len(seen.changes) > events / 4


async def _event(
    chance: random.Random, machine: Machine, units: Units, cable: Cable, name: str
) -> None:
    commands = (
        f"systemctl kill -s KILL {name} || true",
        f"systemctl --no-block restart {name}",
        f"systemctl --no-block stop {name}",
        f"systemctl --no-block start {name}",
        "systemctl daemon-reexec",
        "systemctl --no-block daemon-reload",
    )
    what = chance.randrange(len(commands) + 2)
    if what < len(commands):
        await command(machine, commands[what])
    elif what == len(commands):
        await cable.cut()
        await cable.plug()
    else:
        try:
            outcome = await units.restart(name, within=10)
        except UnitsError:
            return  # there was no bus to ask
        assert outcome.unit.name == name


def _is_true(machine: Machine, units: Units, name: str) -> bool:
    state = units.state(name)
    if state is None:
        return False
    shown = {
        "ActiveState": state.active_state,
        "SubState": state.sub_state,
        "InvocationID": state.invocation_id or "",
        "MainPID": str(state.main_pid or 0),
        "NRestarts": str(state.restarts),
    }
    return all(machine.shown(name, key) == value for key, value in shown.items())
