"""The program of an engine unit's ``ExecStartPre=+``: the last run is gone and the GPUs are free.

It closes the gate first: what starts now is cold. It records that a run begins, so that a start
which no agent saw is known all the same. Then it looks at the unit's control group and at the GPUs:
after a stop systemd still kills left-over workers, and a GPU's memory is freed some time after its
process has ended, so it waits a little, and then refuses and names who is in the way.

Exit codes: 0 the engine may start; 1 it must not, the last line says why; 2 wrong usage.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from farrier_agent.draining.book import say
from farrier_agent.draining.events import UnitSeen
from farrier_agent.draining.holders import Held, HoldersError, holders
from farrier_agent.draining.keeping import Keeper
from farrier_agent.draining.leftovers import CGROUP, PROC, describe, left_over, unit_of
from farrier_agent.draining.record import Now
from farrier_agent.draining.store import DEFAULT_DIRECTORY, Store, StoreError
from farrier_agent.gate import Gates

__all__ = ["main", "taken"]

GIB = 1024**3
EVERY = 0.5
"""Seconds between two looks."""


class RefusedError(Exception):
    """The engine must not start; the message says what is in the way and what to do about it."""


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line, as the role writes it into the unit."""
    parser = argparse.ArgumentParser(
        prog="farrier_agent.draining.start_check",
        description=(__doc__ or "").split("\n", maxsplit=1)[0],
    )
    add = parser.add_argument
    add("replica")
    add("--member", action="store_true", help="a share of a replica: it has no gate, no record")
    add("--unit", required=True, help="the engine's unit")
    add("--gpus", type=_numbers, default=[], help="NVML indices, as 0,1; none on a CPU host")
    add("--may-share", nargs="*", default=(), metavar="UNIT", help="units on the same GPUs")
    add("--idle-mib", type=int, default=1024, help="in use on a GPU that is free [%(default)s]")
    add("--patience", type=float, default=20.0, help="seconds to wait [%(default)s]")
    add("--gate-dir", type=Path, default=Path("/run/farrier/open"))
    add("--state-dir", type=Path, default=DEFAULT_DIRECTORY)
    add("--nvml-library", default=None, help="a path to load NVML from")
    add("--proc", type=Path, default=PROC)
    add("--cgroup", type=Path, default=CGROUP)
    return parser.parse_args(arguments)


def _numbers(text: str) -> list[int]:
    return [int(word) for word in text.split(",") if word]


def main(arguments: Sequence[str] | None = None) -> int:
    """Say whether the engine may start. Returns the exit code."""
    options = parse(arguments)
    try:
        if not options.member:
            _close(options)
            _record(options)
        end = time.monotonic() + options.patience
        _until_free(lambda: _left_over(options), end)
        if options.gpus:
            _until_free(lambda: _gpus(options), end)
    except RefusedError as error:
        say("ERROR", f"replica {options.replica} does not start: {error}")
        return 1
    return 0


def _close(options: argparse.Namespace) -> None:
    gates = Gates(options.gate_dir)
    try:
        gates.close(options.replica)
    except OSError as error:
        path = gates.path(options.replica)
        raise RefusedError(
            f"its gate {path} cannot be closed, and a cold engine would be served:"
            f" {error.strerror}; next: rm {path}"
        ) from error


def _record(options: argparse.Namespace) -> None:
    keeper = Keeper(Store(options.state_dir), Gates(options.gate_dir))
    try:
        now = Now.read(options.proc)
        run = os.environ.get("INVOCATION_ID")
        step = keeper.tell(options.replica, UnitSeen("activating", "start-pre", run, now.boot))
    except (StoreError, OSError) as error:
        # the gate is closed, and the agent sees a run that it does not know
        say("WARNING", f"replica {options.replica}: its start is not recorded: {error}")
    else:
        if step.log:
            say(step.level, step.log)


def _until_free(problem: Callable[[], str | None], end: float) -> None:
    """Look until there is no *problem*. Raises :class:`RefusedError` with the last one."""
    told = ""
    while (found := problem()) is not None:
        if time.monotonic() >= end:
            raise RefusedError(found)
        if found != told:
            say("INFO", f"waiting: {found}")
            told = found
        time.sleep(EVERY)


def _left_over(options: argparse.Namespace) -> str | None:
    """What is left of the last run, in words."""
    try:
        pids = left_over(options.unit, proc=options.proc, cgroup=options.cgroup)
    except OSError as error:
        raise RefusedError(f"its control group cannot be read: {error}") from error
    if not pids:
        return None
    who = ", ".join(describe(pid, proc=options.proc) for pid in pids[:5])
    more = f" and {len(pids) - 5} more" if len(pids) > 5 else ""
    return (
        f"left over from its last run: {who}{more};"
        f" next: systemctl kill --signal=SIGKILL {options.unit}; a process that outlives it hangs"
        " in a driver, which a reboot ends"
    )


def _gpus(options: argparse.Namespace) -> str | None:
    """What holds the GPUs, in words."""
    try:
        found = holders(options.gpus, library=options.nvml_library)
    except HoldersError as error:
        raise RefusedError(f"{error}; next: nvidia-smi") from error

    def shares(pid: int) -> bool:
        return unit_of(pid, proc=options.proc) in set(options.may_share)

    problems = (
        taken(
            one,
            idle_bytes=options.idle_mib * 1024**2,
            shares=shares,
            describe=lambda pid: describe(pid, proc=options.proc),
        )
        for one in found
    )
    return next((problem for problem in problems if problem), None)


def taken(
    held: Held,
    *,
    idle_bytes: int,
    shares: Callable[[int], bool],
    describe: Callable[[int], str],
) -> str | None:
    """Why a GPU is not free, None when it is.

    Free is one without foreign processes and with at most *idle_bytes* in use. A process that
    *shares* it by configuration is not foreign, and what it holds cannot be told from the rest.
    """
    foreign = [pid for pid in sorted(held.processes) if not shares(pid)]
    if foreign:
        who = ", ".join(f"{describe(pid)} with {_size(held.processes[pid])}" for pid in foreign[:5])
        more = f" and {len(foreign) - 5} more" if len(foreign) > 5 else ""
        return (
            f"GPU {held.index} is used by {who}{more}; next: end it, or give the replica"
            " another GPU"
        )
    if held.processes or held.used_bytes is None or held.used_bytes <= idle_bytes:
        return None
    return (
        f"GPU {held.index} has {_size(held.used_bytes)} in use and no process that NVML knows: one"
        " that is being torn down, hangs, or is in a container;"
        " next: fuser -v /dev/nvidia* and nvidia-smi"
    )


def _size(count: int | None) -> str:
    if count is None:
        return "an unknown amount of memory"
    return f"{count / GIB:.1f} GiB" if count >= GIB else f"{count / 1024**2:.0f} MiB"


if __name__ == "__main__":
    sys.exit(main())
