"""What is known of GPUs outlives the agent, and no file can do harm."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest
from farrier_agent.collectors.inventory import Inventory

from tests.agent.collectors.boards import NOW, bus, enumerated, shown
from tests.agent.collectors.running import run


def at(tmp_path: Path) -> Path:
    return tmp_path / "state" / "gpus.json"


def test_it_is_known_after_a_restart(tmp_path: Path) -> None:
    async def first() -> None:
        inventory = Inventory(at(tmp_path))
        await inventory.read(5.0)
        inventory.merge(enumerated(0, 1), bus(0, 1))
        await inventory.close()

    async def second() -> None:
        inventory = Inventory(at(tmp_path))
        await inventory.read(5.0)
        assert shown(inventory.merge(enumerated(1), bus(1))) == [(0, "0", "gone"), (1, "1", None)]
        assert not inventory.forget("GPU-1")  # it is here
        assert not inventory.forget("GPU-7")
        assert inventory.forget("GPU-0")
        assert shown(inventory.merge(enumerated(1), bus(1))) == [(0, "1", None)]
        await inventory.close()

    async def third() -> None:
        inventory = Inventory(at(tmp_path))
        await inventory.read(5.0)
        assert [one.uuid for one in inventory.known] == ["GPU-1"]

    run(first)
    run(second)
    run(third)


def test_before_the_file_is_read_nothing_is_missing_and_nothing_overwritten(
    tmp_path: Path,
) -> None:
    path = at(tmp_path)
    path.mkdir(parents=True)  # cannot be read

    async def look() -> None:
        inventory = Inventory(path)
        await inventory.read(5.0)
        found = inventory.merge(enumerated(0), bus(0, 1))
        assert found is not None
        (problem,) = found.problems
        assert (
            problem
            == f"{path} cannot be read: Is a directory; a GPU that is missing cannot be told"
        )
        assert inventory.merge(None, bus()) is None
        path.rmdir()
        await inventory.read(5.0)
        found = inventory.merge(enumerated(0), bus(0))
        assert found is not None
        assert found.problems == ()
        await inventory.close()

    run(look)
    assert b"GPU-0" in path.read_bytes()


def test_it_is_written_when_it_changes_and_not_each_tick(tmp_path: Path) -> None:
    path = at(tmp_path)
    now = [NOW]

    async def look() -> None:
        inventory = Inventory(path, clock=lambda: now[0])
        await inventory.read(5.0)
        written = set()
        for _ in range(100):
            now[0] += 5.0
            inventory.merge(enumerated(0, 1), bus(0, 1))
            await asyncio.sleep(0.001)
            if path.exists():
                written.add(path.stat().st_ino)
        assert len(written) == 1
        await inventory.close()

    run(look)


@pytest.mark.parametrize("data", [b"", b"\xff", b'{"schema":1,"kept":[{"uuid":7}]}'])
def test_a_file_of_no_use_is_begun_anew(
    tmp_path: Path, data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    at(tmp_path).parent.mkdir()
    at(tmp_path).write_bytes(data)

    async def look() -> None:
        inventory = Inventory(at(tmp_path))
        await inventory.read(5.0)
        assert shown(inventory.merge(enumerated(0), bus(0))) == [(0, "0", None)]
        await inventory.close()

    run(look)
    assert "begun anew, for it is of no use" in caplog.text
    assert b"GPU-0" in at(tmp_path).read_bytes()


KILLED = """
import asyncio, os, signal, sys
from pathlib import Path
from farrier_agent.collectors.inventory import Inventory
from farrier_agent.gpus import Gpu, Gpus

def kill(event, arguments):
    if event == "os.rename":
        os.kill(os.getpid(), signal.SIGKILL)

async def main():
    inventory = Inventory(Path(sys.argv[1]))
    await inventory.read(5.0)
    inventory.merge(Gpus(count=1, devices=(Gpu(uuid="GPU-new", index=0, up=True),)), None)
    await inventory.close()

sys.addaudithook(kill)
asyncio.run(main())
"""


def test_killed_between_write_and_rename_the_old_memory_stands(tmp_path: Path) -> None:
    path = at(tmp_path)

    async def first() -> None:
        inventory = Inventory(path)
        await inventory.read(5.0)
        inventory.merge(enumerated(0), bus(0))
        await inventory.close()

    run(first)
    before = path.read_bytes()
    argv = [sys.executable, "-c", KILLED, os.fspath(path)]
    assert subprocess.run(argv, check=False).returncode == -9
    assert path.read_bytes() == before
    assert b"GPU-new" in path.with_suffix(".new").read_bytes()
