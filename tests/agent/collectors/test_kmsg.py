"""Reading the kernel's log: a device, a FIFO, a growing file, and what cannot be read."""

from __future__ import annotations

import asyncio
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest
from farrier_agent.collectors.kmsg import Kmsg, KmsgError, Position, read_device
from farrier_agent.collectors.slot import Slot
from farrier_agent.collectors.xid import XidError, Xids

from tests.agent.collectors.logs import FALLEN, Fifo, Ring, log_of, xid
from tests.agent.collectors.running import run
from tests.agent.collectors.xids import GPUS, once, shown, told, until


def test_an_overrun_is_survived() -> None:
    answers: list[bytes | OSError] = [
        b"4,7,0,-;NVRM: one\n",
        BrokenPipeError(32, "overrun"),
        b"4,20,0,-;NVRM: two\n",
        OSError(22, "longer than the buffer"),
        b"no record at all",
        b"4,x,0,-;NVRM: none\n",
        b"4,22,0,-;NVRM: three\n",
        BlockingIOError(11, "the end"),
    ]

    def read() -> bytes:
        answer = answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        return answer

    batch, position = read_device(read, Position())
    assert [one.text for one in batch.records] == ["NVRM: one", "NVRM: two", "NVRM: three"]
    assert (batch.lost, batch.drained, batch.waits, position.seq) == (13, True, True, 22)


def test_a_device_that_begins_with_its_oldest_record_again() -> None:
    answers = [f"4,{number},0,-;NVRM: {number}\n".encode() for number in range(5, 10)]

    def read() -> bytes:
        if not answers:
            raise BlockingIOError(11, "the end")
        return answers.pop(0)

    batch, position = read_device(read, Position(seq=7))
    assert [one.text for one in batch.records] == ["NVRM: 8", "NVRM: 9"]
    assert (batch.lost, position.seq) == (0, 9)


def test_a_fifo_is_only_waited_for_while_somebody_has_it_open(tmp_path: Path) -> None:
    """One without a writer is always readable, at its end."""
    fifo = Fifo(tmp_path / "kmsg")
    log = Kmsg(fifo.path)
    assert not log.read().waits
    writer = os.open(fifo.path, os.O_WRONLY)
    assert log.read().waits
    os.write(writer, FALLEN.encode() + b"\n")
    assert [one.text for one in log.read().records] == [FALLEN]
    os.close(writer)
    assert not log.read().waits
    log.close()


def test_a_device_that_only_fails_is_given_up() -> None:
    def read() -> bytes:
        raise BrokenPipeError(32, "always")

    with pytest.raises(BrokenPipeError):
        read_device(read, Position())


def test_the_real_log_of_this_machine_can_be_read_or_says_why() -> None:
    log, why = Kmsg(Path("/dev/kmsg")), ""
    try:
        batch = log.read()
    except KmsgError as error:
        why = str(error)
    if why:
        assert why.startswith("/dev/kmsg ")
        assert "79, 119 and 120" in why
    else:
        assert (batch.lost, batch.waits, log.position.seq is not None) == (0, True, True)
    log.close()


def test_the_log_is_read_when_it_is_written_to(tmp_path: Path, ring: Ring) -> None:
    async def look() -> None:
        log = log_of(ring.path, tmp_path)
        await log.collect(5.0)
        ring.write(FALLEN)
        # nobody asks
        while not (log.latest and log.latest.counts):
            await asyncio.sleep(0.01)
        assert shown(log.latest) == [("", 79, 1)]
        await log.close()

    run(look)


def test_a_fifo_whose_writers_come_and_go(tmp_path: Path) -> None:
    fifo = Fifo(tmp_path / "kmsg")

    async def look() -> None:
        log = log_of(fifo.path, tmp_path)
        log.learn(GPUS)
        assert shown(await log.collect(5.0)) == []
        fifo.write(FALLEN)
        assert shown(await log.collect(5.0)) == [("GPU-1", 79, 1)]
        fifo.write(f"4,1,2,-;{xid(31)}\n SUBSYSTEM=pci")
        fifo.write(xid(62), end="")
        found = await log.collect(5.0)
        assert shown(found) == [("GPU-1", 31, 1), ("GPU-1", 62, 1), ("GPU-1", 79, 1)]
        # another FIFO in its place
        fifo.path.unlink()
        with pytest.raises(XidError, match="is not there"):
            await log.collect(5.0)
        os.mkfifo(fifo.path)
        await log.collect(5.0)
        fifo.write(xid(94))
        assert ("GPU-1", 94, 1) in shown(await log.collect(5.0))
        await log.close()

    run(look)


def test_a_growing_file_is_read_once_through_restart_and_rotation(tmp_path: Path) -> None:
    path = tmp_path / "kern.log"
    path.write_text(f"{FALLEN}\n{xid(31)}")
    assert shown(once(log_of(path, tmp_path))) == [("GPU-1", 79, 1)]
    with path.open("a") as file:
        file.write(" and its end\n")

    async def look() -> None:
        log = log_of(path, tmp_path)
        log.learn(GPUS)
        assert shown(await log.collect(5.0)) == [("GPU-1", 31, 1), ("GPU-1", 79, 1)]
        with path.open("a") as file:
            file.write(xid(62) + "\n")
        path.rename(tmp_path / "kern.log.1")
        path.write_text(xid(94) + "\n")
        want = [("GPU-1", number, 1) for number in (31, 62, 79, 94)]
        await until(log, lambda found: shown(found) == want)
        path.write_text(f"{xid(8)}\n")  # shorter than what was read
        await until(log, lambda found: ("GPU-1", 8, 1) in shown(found))
        await log.close()

    run(look)


def test_a_log_that_cannot_be_read_says_why_and_costs_only_itself(tmp_path: Path) -> None:
    path = tmp_path / "kmsg"

    async def look() -> None:
        log = log_of(path, tmp_path)
        slot: Slot[Xids] = Slot("xid", tick=1.0)
        assert await slot.attempt(lambda: log.collect(5.0)) is None
        error = slot.report(time.monotonic()).error
        assert error is not None
        assert f"{path} is not there; next: say in agent.toml where it is (kmsg)" in error
        assert "XIDs come from NVML alone, which does not tell 79, 119 and 120" in error
        # what NVML tells is counted all the same
        log.add([told(48, time.time())])
        assert await slot.attempt(lambda: log.collect(5.0)) is None
        assert log.latest is not None
        assert shown(log.latest) == [("GPU-1", 48, 1)]
        path.mkdir()
        with pytest.raises(XidError, match="is no device, FIFO or file"):
            await log.collect(5.0)
        path.rmdir()
        path.write_text(FALLEN + "\n")
        assert shown(await log.collect(5.0)) == [("", 79, 1), ("GPU-1", 48, 1)]
        await log.close()

    run(look)


def test_a_log_that_is_forbidden_says_what_the_unit_needs(tmp_path: Path) -> None:
    path = tmp_path / "kmsg"
    path.touch(mode=0o000)
    program = """
import os, sys
from pathlib import Path
from farrier_agent.collectors.kmsg import Kmsg, KmsgError
if os.getuid() == 0:
    os.setuid(65534)
try:
    Kmsg(Path(sys.argv[1])).read()
except KmsgError as error:
    print(error)
"""
    argv = [sys.executable, "-c", program, str(path)]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert "the agent's unit needs CAP_SYSLOG, and no ProtectKernelLogs=" in done.stdout


def lines_of_a_dying_gpu(number: int) -> bytes:
    lines = (
        f"4,{one},{one},-;NVRM: Xid (PCI:0000:{one % 8:02x}:00): {13 + one % 40}, pid={one},"
        f" name=python3, Graphics Exception: ESR 0x57c730=0xc04000b\n"
        for one in range(number)
    )
    return "".join(lines).encode()


@pytest.mark.parametrize("kind", ["file", "fifo"])
def test_a_flood_does_not_hold_up_the_loop(tmp_path: Path, kind: str) -> None:
    number = 100_000
    flood = tmp_path / "flood"
    flood.write_bytes(lines_of_a_dying_gpu(number) + f"{xid(62, '0000:ff:00')}\n".encode())
    kmsg = flood
    if kind == "fifo":
        kmsg = tmp_path / "kmsg"
        os.mkfifo(kmsg)

    async def look() -> None:
        log = log_of(kmsg, tmp_path)
        lags: list[float] = []

        async def beat() -> None:
            while True:
                begun = time.thread_time()
                await asyncio.sleep(0.01)
                lags.append(time.thread_time() - begun)

        beating = asyncio.create_task(beat())
        if kind == "fifo":
            await log.collect(5.0)
            writer = await asyncio.create_subprocess_exec("cp", str(flood), str(kmsg))
        begun = time.monotonic()
        found = await until(log, lambda one: any(each.xid == 62 for each in one.counts))
        seconds = time.monotonic() - begun
        if kind == "fifo":
            assert await writer.wait() == 0
        beating.cancel()
        assert len(found.counts) == 41
        assert len(found.recent) <= 200
        assert found.dropped_total == 0
        lags.sort()
        often, longest = lags[int(0.95 * len(lags))], lags[-1]
        print(f"{kind}: {number} lines in {seconds:.2f} s; lag {often:.3f} s, once {longest:.3f} s")
        # of 5 s that a tick has; the loop's own time, for other programs hold it up as well
        assert often < 0.1
        assert longest < 1.0
        await log.close()

    run(look)


def test_garbage_costs_nothing(tmp_path: Path) -> None:
    path = tmp_path / "kmsg"
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with path.open("wb") as file:
        file.write(b"NVRM: Xid (" * 2_000_000 + b"\0" * 5_000_000 + os.urandom(5_000_000))
        file.write(b"\n" + b"NVRM: \xff\xfe" * 1000 + b"\n" + FALLEN.encode() + b"\n")

    async def look() -> None:
        log = log_of(path, tmp_path)
        log.learn(GPUS)
        found = await until(log, lambda one: len(one.counts) > 0)
        assert shown(found) == [("GPU-1", 79, 1)]
        await log.close()

    run(look)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 60_000, f"{grown} KiB"
