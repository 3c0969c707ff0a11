"""Which GPUs are meant, who gives way, and what may be better after a reset. No host."""

from __future__ import annotations

import pytest

from farrier.rollout.board_plan import of_boards
from farrier.rollout.errors import RefusedError, RolloutError, UsageError
from farrier.rollout.host import Look
from farrier.rollout.ledger import Options
from farrier.rollout.plan import Wanted, make_plan
from farrier.rollout.seen import BoardSeen, HostSeen, ReplicaSeen
from tests.unit.test_rollout_gates import BEFORE, GPU, gates, now
from tests.unit.test_rollout_plan import fleet, host, names, replica

A, B, C = "GPU-1a2b", "GPU-1a9c", "GPU-77aa"


def seen(*, linked: tuple[str, ...] = (), replicas: tuple[ReplicaSeen, ...] | None = None) -> Look:
    boards = tuple(BoardSeen(one, at, linked=one in linked) for at, one in enumerate((A, B, C)))
    both = (replica("left", gpus=(0,)), replica("right", gpus=(1,)))
    return Look(HostSeen(host="gpu01", replicas=replicas or both, boards=boards), None)


def options(kind: str, word: str | None, look: Look | None, *limit: str) -> Options:
    given = Options(limit=limit or ("gpu01",), diag=2)
    return of_boards(kind, given, {"gpu01": look, "gpu02": look}, word)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("word", "linked", "gpus", "replicas"),
    [
        ("1", (), (B,), ("right",)),
        ("1a2", (), (A,), ("left",)),
        # NVLinks tie them together: nvidia-smi refuses one alone
        ("1", (B, C), (A, B, C), ()),
        ("0", (B, C), (A,), ("left",)),
        (None, (), (A, B, C), ()),
        # nobody uses it: NVIDIA's services have to let go all the same
        (C, (), (C,), ()),
    ],
)
def test_a_reset_is_of_the_gpu_and_of_those_that_hang_on_it(
    word: str | None, linked: tuple[str, ...], gpus: tuple[str, ...], replicas: tuple[str, ...]
) -> None:
    found = options("gpu-reset", word, seen(linked=linked))
    assert (found.gpus, found.replicas) == (gpus, replicas)


def test_a_diagnosis_asks_for_no_more_than_its_gpu() -> None:
    found = options("gpu-diag", "1", seen(linked=(A, B, C)))
    assert (found.gpus, found.replicas) == ((B,), ("right",))
    assert options("gpu-diag", None, seen()).gpus == ()


def test_what_makes_no_sense_is_said() -> None:
    with pytest.raises(UsageError, match="gpu01: 2 GPUs begin with 1a"):
        options("gpu-reset", "1a", seen())
    with pytest.raises(UsageError, match="one host at a time, and not gpu01, gpu02"):
        options("gpu-reset", None, seen(), "gpu01", "gpu02")
    with pytest.raises(RolloutError, match="could not be asked"):
        options("gpu-reset", None, None)
    with pytest.raises(RefusedError, match="knows no GPU"):
        options("gpu-reset", None, Look(HostSeen(host="gpu01"), None))
    with pytest.raises(RefusedError, match="NVML was let go of") as told:
        options("gpu-reset", None, Look(HostSeen(host="gpu01", nvml="released"), None))
    assert told.value.next == "farrier exec --sudo gpu01 -- farrier-agent nvml acquire"


SICK = "farrier-agent (GPU health): GPU 1: XID 64"


def test_a_replica_that_is_drained_for_its_gpus_health_gives_way_too() -> None:
    sick = replica("right", gpus=(1,), phase="drained", gate_open=False, held_by=(SICK,))
    both = fleet(host("gpu01", replica("left", gpus=(0,)), sick), host("gpu02"))
    wanted = Wanted("gpu-reset", limit=("gpu01",), replicas=("right",))
    (one,) = make_plan(wanted, both).hosts
    assert (one.host, [it.name for it in one.replicas]) == ("gpu01", ["right"])
    # and is no reason to leave its host out of a reboot, which is what its GPU may need
    assert names(make_plan(Wanted("reboot"), both)) == [["gpu01"], ["gpu02"]]
    held = fleet(host("gpu01", replica(held_by=(SICK, "bob: bad fan"))))
    assert make_plan(Wanted("reboot"), held).left_out[0].why == "kept drained by bob: bad fan"


@pytest.mark.parametrize("kind", ["gpu-reset", "reboot", "gpu-diag"])
def test_a_gpu_that_comes_back_passes(kind: str) -> None:
    before = now(gpus=(GPU,))
    found = gates(now(), before, kind=kind)["gpus"]
    assert found.ok is True
    assert found.note == "came back: GPU-1"
    assert gates(now(), before, kind="driver")["gpus"].ok is False
    assert gates(before, now(), kind=kind)["gpus"].ok is False


def test_ecc_that_was_switched_on_takes_effect() -> None:
    off = now({"ecc_enabled": False})
    assert gates(now(), off, kind="gpu-reset")["ecc"].ok is True
    assert gates(now(), off, kind="driver")["ecc"].ok is False
    assert gates(off, BEFORE, kind="gpu-reset")["ecc"].ok is False
