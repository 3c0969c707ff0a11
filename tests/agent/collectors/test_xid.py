"""XIDs are counted once each, whoever tells them, and whatever happens to the log."""

from __future__ import annotations

import time
from pathlib import Path

from farrier_agent.gpus import Gpu, Gpus

from tests.agent.collectors.logs import C1, FALLEN, Ring, log_of, xid
from tests.agent.collectors.running import run
from tests.agent.collectors.xids import GPUS, once, shown, told, until

OTHER_BOOT = "22222222-2222-2222-2222-222222222222"


def test_a_fault_is_one_however_often_it_is_told(tmp_path: Path, ring: Ring) -> None:
    ring.write(FALLEN)
    ring.write("NVRM: GPU 0000:c1:00.0: GPU has fallen off the bus.")
    ring.write(xid(31, "0000:18:00"))

    async def look() -> None:
        log = log_of(ring.path, tmp_path)
        log.learn(GPUS)
        log.add([told(79, time.time())])
        found = await log.collect(5.0)
        assert shown(found) == [("", 31, 1), ("GPU-1", 79, 1)]
        fallen = found.counts[1]
        assert (fallen.pci_bus_id, fallen.text) == (C1, FALLEN)
        assert [one.xid for one in found.recent] == [79, 31]
        assert abs(fallen.last_at - found.recent[0].at) < 0.001
        # and NVML tells one that the log does not have
        log.add([told(48, time.time())])
        assert shown(await log.collect(5.0)) == [("", 31, 1), ("GPU-1", 48, 1), ("GPU-1", 79, 1)]
        await log.close()

    run(look)


def test_what_nvml_told_first_gets_its_line(tmp_path: Path, ring: Ring) -> None:
    async def look() -> None:
        log = log_of(ring.path, tmp_path)
        log.learn(GPUS)
        log.add([told(154, time.time() - 1)])
        assert (await log.collect(5.0)).recent[0].text == ""
        line = xid(154, rest="GPU recovery action changed from 0x0 (None) to 0x1 (PF FLR)")
        ring.write(line, seconds=time.monotonic())
        found = await until(log, lambda one: one.recent[0].text == line)
        (event,) = found.recent
        assert (event.source, event.recovery_action, event.uuid) == ("kmsg", "gpu_reset", "GPU-1")
        assert [(one.count, one.text) for one in found.counts] == [(1, line)]
        await log.close()

    run(look)


def test_a_restart_counts_nothing_twice_and_misses_nothing(tmp_path: Path, ring: Ring) -> None:
    ring.write(FALLEN)
    ring.write(xid(31))
    assert shown(once(log_of(ring.path, tmp_path))) == [("GPU-1", 31, 1), ("GPU-1", 79, 1)]
    ring.replay()
    again = once(log_of(ring.path, tmp_path), gpus=None)
    assert shown(again) == [("GPU-1", 31, 1), ("GPU-1", 79, 1)]
    assert [one.xid for one in again.recent] == [79, 31]
    ring.replay()
    ring.write(xid(62))
    found = once(log_of(ring.path, tmp_path), gpus=None)
    assert shown(found) == [("", 62, 1), ("GPU-1", 31, 1), ("GPU-1", 79, 1)]


def test_after_a_reboot_counts_go_on_and_recent_begins_anew(tmp_path: Path, ring: Ring) -> None:
    ring.write(FALLEN)
    ring.write(xid(31, "0000:18:00"))
    once(log_of(ring.path, tmp_path))
    fresh = Ring()  # the numbers of its records begin anew
    fresh.write(FALLEN)
    gpus = Gpus(
        count=2,
        devices=(
            *GPUS.devices,
            Gpu(uuid="GPU-2", index=1, up=True, pci_bus_id="00000000:18:00.0"),
        ),
    )
    found = once(log_of(fresh.path, tmp_path, OTHER_BOOT), gpus=gpus)
    # who was at 18:00 in the other boot nobody knows
    assert shown(found) == [("", 31, 1), ("GPU-1", 79, 2)]
    assert [one.xid for one in found.recent] == [79]
    fresh.close()


def test_records_that_were_overwritten_are_counted(tmp_path: Path, ring: Ring) -> None:
    ring.write(FALLEN)
    ring.write(xid(31), skip=17)
    found = once(log_of(ring.path, tmp_path))
    assert found.lost_total == 17
    assert len(found.counts) == 2


def test_the_time_is_the_kernels_but_never_wrong_by_its_drift(tmp_path: Path, ring: Ring) -> None:
    async def look() -> None:
        ring.write(xid(31), seconds=time.monotonic() - 100)
        log = log_of(ring.path, tmp_path)
        began = time.time()
        first = (await log.collect(5.0)).recent[0].at
        assert abs(began - 100 - first) < 2
        # a clock that is slow or fast by minutes: it came since the last look, and before now
        ring.write(xid(32), seconds=time.monotonic() - 500)
        ring.write(xid(33), seconds=time.monotonic() + 500)
        found = await until(log, lambda one: len(one.recent) == 3)
        assert all(began <= one.at <= time.time() for one in found.recent if one.xid > 31)
        await log.close()

    run(look)


def test_a_uuid_that_is_learnt_later(tmp_path: Path, ring: Ring) -> None:
    async def look() -> None:
        ring.write(FALLEN)
        log = log_of(ring.path, tmp_path)
        assert shown(await log.collect(5.0)) == [("", 79, 1)]
        log.learn(GPUS)
        found = await log.collect(5.0)
        assert shown(found) == [("GPU-1", 79, 1)]
        assert found.recent[0].uuid == "GPU-1"
        await log.close()

    run(look)
