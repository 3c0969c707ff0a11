"""What a converge keeps of an engine before it writes another unit."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from farrier_agent.draining.record import Phase
from farrier_agent.rollout.previous import DIRECTORY, UNITS

from roles.engine.previous import keeping
from roles.engine.state import ReplicaStates
from tests.unit.test_role_engine_state import CLOSED, record

OLD, NEW = "0" * 64, "f" * 64


@pytest.fixture
def places(tmp_path: Path) -> tuple[Path, Path]:
    """Where the units and those before them are, in a directory."""
    units, previous = tmp_path / "units", tmp_path / "farrier/previous"
    units.mkdir()
    (units / "engine-tiny.service").write_text("the old one")
    return units, previous


def run(script: str, places: tuple[Path, Path]) -> None:
    units, previous = places
    script = script.replace(str(UNITS), str(units)).replace(str(DIRECTORY), str(previous))
    subprocess.run(["sh", "-euc", script], check=True)


def test_the_unit_that_was_warm_is_kept(places: tuple[Path, Path]) -> None:
    units, previous = places
    run(keeping("tiny", proven=True), places)
    kept = previous / "engine-tiny.service"
    assert kept.read_text() == "the old one"
    assert kept.stat().st_mode & 0o777 == 0o644
    assert previous.stat().st_mode & 0o777 == 0o755
    # what an interrupted run left is overwritten, and the mark of a rollback is over
    (previous / "engine-tiny.service.farrier-new").symlink_to(units / "elsewhere")
    (previous / "engine-tiny.put-back").write_text("{}")
    (units / "engine-tiny.service").write_text("the next one")
    run(keeping("tiny", proven=True), places)
    assert kept.read_text() == "the next one"
    assert [one.name for one in previous.iterdir()] == ["engine-tiny.service"]
    assert not (units / "elsewhere").exists()


def test_what_never_was_warm_takes_nobodys_place(places: tuple[Path, Path]) -> None:
    units, previous = places
    run(keeping("tiny", proven=True), places)
    (previous / "engine-tiny.put-back").write_text("{}")
    (units / "engine-tiny.service").write_text("what does not start")
    run(keeping("tiny", proven=False), places)
    assert (previous / "engine-tiny.service").read_text() == "the old one"
    assert not (previous / "engine-tiny.put-back").exists()


def test_a_unit_is_proven_by_the_run_that_it_started() -> None:
    warm = replace(CLOSED, unit=OLD, started=OLD, record=record(Phase.READY))
    assert warm.proven
    assert not replace(warm, started=NEW).proven
    assert not replace(warm, started="-").proven
    assert not replace(warm, unit="-", started="-").proven
    assert not replace(warm, record=record(Phase.FAILED)).proven
    assert not replace(warm, record=None).proven


def test_the_hash_of_the_unit_on_the_disk_is_read(tmp_path: Path) -> None:
    (tmp_path / "engine-a.service").write_text(
        f"# X-FarrierConfigHash={NEW}\n[Unit]\nX-FarrierConfigHash={OLD}\nX-Farrier=1\n"
    )
    (tmp_path / "engine-b.service").write_text("[Unit]\n")
    command = ReplicaStates().command(["a", "b", "c"]).replace(str(UNITS), str(tmp_path))
    shown = "".join(
        f"Id=engine-{one}.service\nActiveState=active\nInvocationID=\n\n" for one in "abc"
    )
    command = command.replace("systemctl show", f"printf %s '{shown}'; : show")
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True)
    found = ReplicaStates().process(done.stdout.splitlines())
    assert {name: one.unit for name, one in found.items()} == {"a": OLD, "b": "-", "c": "-"}
