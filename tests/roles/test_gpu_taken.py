"""A GPU that somebody else holds: the engine's unit refuses to start, and says who it is."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.roles.converging import Converge
from tests.roles.fleet import GPU_STATE, Fleet, until

HOST = "gpu02"
SQUATTER = "somebodys-training.service"
IDLE = "count 1\n0.temperature 41\n"


@pytest.fixture
def squatter(fleet: Fleet) -> Iterator[str]:
    """A process that holds 6 GiB of the (fake) GPU; its number."""
    fleet.root(HOST, f"systemd-run -q --collect --unit={SQUATTER} sleep infinity")
    pid = fleet.unit(HOST, SQUATTER, "MainPID")
    fleet.put(HOST, GPU_STATE, f"{IDLE}0.processes {pid}:{6 * 1024**3}\n")
    yield pid
    fleet.root(HOST, f"systemctl stop {SQUATTER}", check=False)
    fleet.put(HOST, GPU_STATE, IDLE)
    fleet.root(HOST, "systemctl reset-failed engine-tiny; systemctl start engine-tiny", check=False)
    until(lambda: fleet.gate(HOST), 60, "it serves again")


def test_a_stranger_on_the_gpu_is_named_and_nothing_starts(
    fleet: Fleet, converge: Converge, squatter: str
) -> None:
    who = f"GPU 0 is used by sleep (pid {squatter}, root, {SQUATTER}) with 6.0 GiB"
    fleet.root(HOST, "systemctl stop engine-tiny")
    run = converge(limit=[HOST])
    assert run.returncode == 1
    failed = run.last_section("Failed:")
    assert f"replica tiny does not start: {who}" in failed, failed
    assert "next: end it, or give the replica another GPU" in failed
    assert not fleet.gate(HOST)
    assert fleet.ssh(HOST, "ss -Hltn sport = :8101") == ""

    fleet.root(HOST, f"systemctl stop {SQUATTER}")
    fleet.put(HOST, GPU_STATE, IDLE)
    repaired = converge(limit=[HOST])
    assert repaired.returncode == 0, repaired.last_words()
    assert fleet.chat(HOST).status == 200
