"""Puts units of engines back to those from before, as root: atomic, repeatable, without a restart.

Killed after any line, it can be done again: the mark says which unit is to stand there, and it does
or does not. The unit that is left is kept as the previous one if the replica was warm with it;
then another time goes forward to it again. Else there is nothing to go back to after this.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from farrier_agent.control.errors import ControlError, RefusedError
from farrier_agent.control.protocol import Done, Result
from farrier_agent.draining.record import Record
from farrier_agent.draining.store import DEFAULT_DIRECTORY, Store, StoreError
from farrier_agent.durable import replace
from farrier_agent.rollout.previous import (
    DIRECTORY,
    MARK,
    UNITS,
    Mark,
    PreviousError,
    config_hash,
    differences,
    mark_in,
    program_of,
    proven,
    read_unit,
)

__all__ = ["Places", "put_back"]

STATE = "put back"


@dataclass(frozen=True)
class Places:
    """Where things are on this host."""

    units: Path = UNITS
    previous: Path = DIRECTORY
    started: Path = Path("/run/farrier/started")
    records: Path = DEFAULT_DIRECTORY


@dataclass(frozen=True)
class _Change:
    """*replica*: its unit as it stands there, the one to put back (None: it was), and its mark."""

    replica: str
    unit: Path
    now: str
    then: str | None
    proven: bool


def put_back(replicas: Sequence[str], rollout: str | None, places: Places) -> Done:
    """Put the units of *replicas* back for *rollout*, all or none.

    Raises RefusedError where one has nothing to go back to, ControlError when it fails.
    """
    changes = [_planned(one, rollout, places) for one in replicas]
    results = []
    try:
        for one in changes:
            results.append(_result(one))
            if one.then is not None:
                _put(one, one.then, rollout, places)
    except OSError as error:
        raise ControlError(
            f"{error.filename or places.units}: {error.strerror}; ask again: it can be done twice",
            f"df -h {places.units}",
        ) from error
    _reload([one.unit.name for one in changes])
    return Done(results=tuple(results))


def _planned(replica: str, rollout: str | None, places: Places) -> _Change:
    name = f"engine-{replica}.service"
    look = f"ls -l {places.previous}"
    try:
        now = read_unit(places.units / name)
        if now is None:
            raise RefusedError(f"replica {replica} has no unit on this host; nothing was done")
        warm = proven(_record(replica, places), _started(replica, places), config_hash(now))
        mark = mark_in(places.previous, name)
        if mark and mark.to == config_hash(now) and (mark.rollout == rollout or not warm):
            return _Change(replica, places.units / name, now, None, warm)
        then = read_unit(places.previous / name)
    except PreviousError as error:
        raise RefusedError(f"replica {replica}: {error}; nothing was done", look) from error
    if then is None or config_hash(then) == config_hash(now):
        raise RefusedError(
            f"replica {replica}: there is nothing to go back to: no other configuration was warm"
            " before this one; nothing was done",
            look,
        )
    if not Path(program_of(then)).exists():
        raise RefusedError(
            f"replica {replica}: what it would go back to is gone: {program_of(then)};"
            " nothing was done",
            "put the version that you want into the inventory, then farrier rollout converge",
        )
    return _Change(replica, places.units / name, now, then, warm)


def _put(one: _Change, then: str, rollout: str | None, places: Places) -> None:
    places.previous.mkdir(mode=0o755, exist_ok=True)
    to = config_hash(then)
    assert to is not None  # noqa: S101 - it was read as a unit
    mark = Mark(to=to, left=config_hash(one.now), rollout=rollout, at=time.time())
    beside = places.previous / one.unit.name
    replace(beside.with_suffix(MARK), msgspec.json.encode(mark) + b"\n")
    replace(one.unit, then.encode())
    if one.proven:
        replace(beside, one.now.encode())
    else:
        beside.unlink(missing_ok=True)


def _result(one: _Change) -> Result:
    if one.then is None:
        return Result(replica=one.replica, state=STATE, changed=False, text="was put back already")
    return Result(replica=one.replica, state=STATE, text=differences(one.now, one.then))


def _reload(units: Sequence[str]) -> None:
    done = subprocess.run(
        ["systemctl", "daemon-reload"], capture_output=True, text=True, check=False
    )
    if done.returncode:
        why = " ".join(done.stderr.split()) or f"status {done.returncode}"
        raise ControlError(
            f"systemctl daemon-reload: {why}; the units were put back, and systemd does not know",
            "systemctl daemon-reload",
        )
    # one that fell into systemd's limit of starts may be started again
    subprocess.run(
        ["systemctl", "reset-failed", *units], capture_output=True, text=True, check=False
    )


def _record(replica: str, places: Places) -> Record | None:
    try:
        return Store(places.records).load(replica)
    except StoreError:
        return None


def _started(replica: str, places: Places) -> str | None:
    try:
        return (places.started / replica).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return None
