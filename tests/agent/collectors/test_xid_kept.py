"""What is known of XIDs outlives the agent, and no file can do harm."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.agent.collectors.logs import BOOT, FALLEN, Ring, log_of, xid
from tests.agent.collectors.running import run
from tests.agent.collectors.xids import once, shown, told

GARBAGE = {
    "empty": b"",
    "no JSON": b"\xff\x00{",
    "another schema": b'{"schema":2,"kept":{}}',
    "another shape": b'{"schema":1,"kept":{"boot_id":5}}',
    "deep": b"[" * 100_000,
    "large": b" " * (5 << 20),
}


@pytest.mark.parametrize("data", GARBAGE.values(), ids=list(GARBAGE))
def test_a_memory_of_no_use_is_begun_anew(
    tmp_path: Path, ring: Ring, data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    state = tmp_path / "state" / "xids.json"
    state.parent.mkdir()
    state.write_bytes(data)
    ring.write(FALLEN)
    assert shown(once(log_of(ring.path, tmp_path))) == [("GPU-1", 79, 1)]
    assert f"{state}: begun anew, for it is of no use" in caplog.text
    ring.replay()
    assert shown(once(log_of(ring.path, tmp_path))) == [("GPU-1", 79, 1)]


def test_a_disk_that_cannot_be_written_costs_only_the_memory(
    tmp_path: Path, ring: Ring, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "state").write_text("no directory")
    ring.write(FALLEN)
    assert shown(once(log_of(ring.path, tmp_path))) == [("GPU-1", 79, 1)]
    assert "xids.json cannot be written" in caplog.text


KILLED = """
import asyncio, os, signal, sys
from pathlib import Path
from farrier_agent.collectors.xid import XidLog

def kill(event, arguments):
    if event == "os.rename" and str(arguments[0]).endswith("xids.new"):
        os.kill(os.getpid(), signal.SIGKILL)

async def main():
    log = XidLog(Path(sys.argv[1]), Path(sys.argv[2]), boot_id=sys.argv[3])
    await log.collect(5.0)
    await log.close()

sys.addaudithook(kill)
asyncio.run(main())
"""


def test_killed_between_write_and_rename_the_old_memory_stands(tmp_path: Path) -> None:
    path = tmp_path / "kern.log"
    path.write_text(FALLEN + "\n")
    once(log_of(path, tmp_path))
    state = tmp_path / "state" / "xids.json"
    before = state.read_bytes()
    with path.open("a") as file:
        file.write(xid(31) + "\n")
    argv = [sys.executable, "-c", KILLED, str(path), str(state), BOOT]
    assert subprocess.run(argv, check=False).returncode == -9
    assert state.read_bytes() == before
    assert state.with_suffix(".new").exists()
    # and the next one reads what the dead one had not kept, once
    assert shown(once(log_of(path, tmp_path))) == [("GPU-1", 31, 1), ("GPU-1", 79, 1)]
    assert not state.with_suffix(".new").exists()


def test_the_memory_is_not_written_each_time(tmp_path: Path, ring: Ring) -> None:
    async def look() -> None:
        log = log_of(ring.path, tmp_path)
        state = tmp_path / "state" / "xids.json"
        written = set()
        for number in range(1, 40):
            log.add([told(number, time.time())])
            found = await log.collect(5.0)
            assert len(found.counts) == number
            if state.exists():
                written.add(state.stat().st_ino)
        assert len(written) == 1
        await log.close()
        assert state.stat().st_ino not in written

    run(look)
