"""A diagnosis by DCGM, under a rollout's lease, and its results as typed values.

It takes minutes to hours. What came of it is kept until another one is made, so that who asks again
because the connection broke is told the same, and no second one is begun; who has had the result
asks for the next attempt.
"""

from __future__ import annotations

import argparse
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from farrier_agent.boards.dcgm import DcgmError, discovered, results
from farrier_agent.boards.running import Said, run_to_end, tell
from farrier_agent.boards.smi import UnsafeError, program
from farrier_agent.boards.told import Tested, worst
from farrier_agent.control.again import ask_again
from farrier_agent.control.errors import ControlError, RefusedError
from farrier_agent.control.protocol import Act, Diagnosed, Final
from farrier_agent.control.running import agent_of
from farrier_agent.durable import replace
from farrier_agent.rollout.deed import perform
from farrier_agent.wording import printable

__all__ = ["NOTE", "PACKAGES", "SECONDS", "gpu_diag"]

NOTE = "gpu-diag.json"
"""What came of the last one, beside the lease."""
PACKAGES = "datacenter-gpu-manager-4-core datacenter-gpu-manager-4-cuda13"
"""What brings it, from NVIDIA's repository; for a driver before 580 it is ``-cuda12``."""
SECONDS = {1: 300.0, 2: 1800.0, 3: 2 * 3600.0, 4: 6 * 3600.0}
"""Seconds that each level may take; NVIDIA says: seconds, 2 minutes, 15 minutes, an hour."""
UNITS = ("nvidia-dcgm.service", "dcgm.service", "nv-hostengine.service")
"""Who runs nv-hostengine."""
_MAX = 4 * 1024 * 1024
_LINE = 180


class _Note(msgspec.Struct, frozen=True, kw_only=True):
    rollout: str | None
    level: int
    gpus: tuple[str, ...]
    done: Diagnosed
    attempt: int = 0

    @property
    def asked(self) -> tuple[object, ...]:
        """What was asked for."""
        return (self.rollout, self.level, self.gpus, self.attempt)


_note = msgspec.json.Decoder(_Note)


def gpu_diag(arguments: argparse.Namespace) -> int:
    """Mark, then diagnose. Returns the exit code: 1 where a test failed, 3 without DCGM."""
    gpus = tuple(dict.fromkeys(arguments.gpus))
    level: int = arguments.level
    attempt: int = arguments.attempt
    on = f" on {', '.join(gpus)}" if gpus else ""
    words = printable(f"dcgmi diag -r {level}{on}")[:_LINE]

    def deed(final: Final, lock: int) -> Final:
        rollout = getattr(final, "rollout", None)
        path = arguments.note_dir / NOTE
        kept = _kept(path)
        if kept is not None and kept.asked == (rollout, level, gpus, attempt):
            return kept.done
        dcgmi = _dcgmi()
        tell(f"{words}: it may take a while", as_json=arguments.json)
        with _host_engine():
            done = _diagnosed(dcgmi, level, gpus, lock)
        note = _Note(rollout=rollout, level=level, gpus=gpus, done=done, attempt=attempt)
        with suppress(OSError):  # then another one is made, if it is asked for again
            replace(path, msgspec.json.encode(note) + b"\n")
        with suppress(ControlError):  # it is in the reply, too
            code = 1 if worst(done.results) == "fail" else 0
            told = Act(action="ran", token=arguments.token, command=words, code=code)
            ask_again(agent_of(arguments), told)
        return done

    act = Act(action="gpu-diag", token=arguments.token, command=words)
    return perform(arguments, act, deed, patience=SECONDS[level])


def _dcgmi() -> str:
    try:
        return program("dcgmi")
    except UnsafeError as error:
        raise RefusedError(
            f"{error}: nothing was diagnosed; NVIDIA's repository has it",
            f"apt-get install {PACKAGES}",
        ) from error


def _diagnosed(dcgmi: str, level: int, gpus: Sequence[str], lock: int) -> Diagnosed:
    listed = run_to_end((dcgmi, "discovery", "-l"), 60, keep=(lock,))
    known = discovered(listed.out)
    if not known:
        raise ControlError(
            f"DCGM finds no GPU: {listed.words[:500]}",
            "systemctl status nvidia-dcgm; dcgmi discovery -l",
        )
    numbers = [number for number, uuid in known.items() if uuid in gpus]
    if lacking := [one for one in gpus if one not in known.values()]:
        raise ControlError(f"DCGM does not have {', '.join(lacking)}", "dcgmi discovery -l")
    which = ("-i", ",".join(map(str, numbers))) if numbers else ()
    seconds = SECONDS[level]
    said = run_to_end((dcgmi, "diag", "-r", str(level), "-j", *which), seconds, keep=(lock,))
    if said.status is None:
        raise ControlError(
            f"dcgmi diag -r {level} did not end within {seconds:.0f} s", "nvidia-smi; dmesg | tail"
        )
    return Diagnosed(level=level, seconds=said.seconds, results=_results(said, known))


def _results(said: Said, known: dict[int, str]) -> tuple[Tested, ...]:
    try:
        return results(said.out, known)
    except DcgmError as error:
        more = " ".join(said.err.split())[:500]
        raise ControlError(
            f"{error} (exit status {said.status}{': ' if more else ''}{more})",
            "journalctl -u nvidia-dcgm -n 50",
        ) from error


@contextmanager
def _host_engine() -> Iterator[None]:
    """Have nv-hostengine run; started here, it is stopped again."""
    states = {unit: _state(unit) for unit in UNITS}
    started = None
    if "active" not in states.values() and (there := [one for one, it in states.items() if it]):
        started = there[0]
        done = subprocess.run(
            ["systemctl", "start", "--", started], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise ControlError(
                f"{started} could not be started: {' '.join(done.stderr.split())}",
                f"systemctl status {started}",
            )
    try:
        yield
    finally:
        if started:
            command = ["systemctl", "stop", "--", started]
            subprocess.run(command, capture_output=True, text=True, check=False)


def _state(unit: str) -> str:
    """The ActiveState of *unit*; "" where there is none."""
    command = ["systemctl", "show", "-p", "Id,LoadState,ActiveState", "--", unit]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    said = dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)
    there = said.get("LoadState") not in {None, "not-found"}
    return said.get("ActiveState", "") if there else ""


def _kept(path: Path) -> _Note | None:
    try:
        with path.open("rb") as file:
            return _note.decode(file.read(_MAX))
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return None
