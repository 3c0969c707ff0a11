"""The unit that a replica's engine had before, and what it means to go back to it.

Beside the units in ``/etc/systemd/system`` there is root's directory of their predecessors:

    engine-X.service     the last unit with which the replica was warm, and which another replaced
    engine-X.put-back    which unit was put back last, for which rollout: :class:`Mark`

A unit names the environment of its engine by its version, so a unit is a version and its arguments.
Of a unit counts what its ``X-FarrierConfigHash=`` says; the agent cannot write there.
"""

from __future__ import annotations

import difflib
import os
import re
import shlex
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from farrier_agent.draining.record import Phase, Record

__all__ = [
    "DIRECTORY",
    "MARK",
    "UNITS",
    "Mark",
    "PreviousError",
    "config_hash",
    "differences",
    "mark_in",
    "program_of",
    "proven",
    "read_unit",
]

UNITS = Path("/etc/systemd/system")
DIRECTORY = Path("/var/lib/farrier/previous")
MARK = ".put-back"
_MAX_SIZE = 256 * 1024
_HASH = re.compile(r"^X-FarrierConfigHash=([0-9a-f]{64})$", re.MULTILINE)
_PROGRAM = re.compile(r"^/opt/farrier/([^/]+)/([^/]+)/")
_TOLD = 4
"""So many differences of arguments are told one by one."""


class PreviousError(RuntimeError):
    """A file is no unit of an engine's; the message says which one, and what is wrong with it."""


class Mark(msgspec.Struct, frozen=True, kw_only=True):
    """The unit with the hash ``to`` was put back ``at`` (seconds since the epoch).

    It says something as long as that unit stands there. ``rollout`` wanted it, ``left`` is the hash
    of the unit that stood there before.
    """

    to: str
    left: str | None = None
    rollout: str | None = None
    at: float = 0.0


_mark = msgspec.json.Decoder(Mark)


def read_unit(path: Path) -> str | None:
    """The text of the unit at *path*, None where there is nothing.

    Raises PreviousError for what an engine's unit cannot be. No link is followed.
    """
    data = _read(path)
    if data is None:
        return None
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise PreviousError(f"{path}: not the unit of an engine: {error}") from error
    if len(data) > _MAX_SIZE or config_hash(text) is None or not _command(text):
        raise PreviousError(f"{path}: not the unit of an engine, as Farrier writes them")
    return text


def mark_in(directory: Path, unit: str) -> Mark | None:
    """The mark of *unit*; None where there is none that can be read."""
    try:
        data = _read(directory / f"{unit.removesuffix('.service')}{MARK}")
        return None if data is None else _mark.decode(data)
    except (PreviousError, msgspec.DecodeError, UnicodeDecodeError):
        return None


def config_hash(text: str) -> str | None:
    """The hash by which the unit *text* is known."""
    found = _HASH.findall(text)
    return found[0] if len(found) == 1 else None


def proven(record: Record | None, started: str | None, configuration: str | None) -> bool:
    """Whether the present run was started with *configuration*, and was warm.

    *started* is the hash that the run was started with. A replica that drains was warm, unless it
    was closed before it could be.
    """
    if record is None or configuration is None or started != configuration:
        return False
    if record.phase is Phase.READY:
        return True
    drains = record.phase in {Phase.DRAINING, Phase.DRAINED}
    return drains and record.engine_runs and record.drain is not None and record.drain.warm


def differences(now: str, then: str) -> str:
    """What *then* has otherwise than the unit *now*, in words; of an environment only names."""
    told = [*_versions(now, then), *_arguments(now, then), *_surroundings(now, then)]
    if not told:
        told = [f"configuration {(config_hash(now) or '?')[:8]} → {(config_hash(then) or '?')[:8]}"]
    return "; ".join(told)


def program_of(text: str) -> str:
    """The program that the unit *text* starts."""
    return next(iter(_command(text)), "")


def _read(path: Path) -> bytes | None:
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise PreviousError(f"{path}: {error.strerror}") from error
    with os.fdopen(handle, "rb") as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise PreviousError(f"{path}: not a plain file")
        return file.read(_MAX_SIZE + 1)


def _command(text: str) -> list[str]:
    """The words of the engine's command line."""
    line = next((one for one in text.splitlines() if one.startswith("ExecStart=")), "")
    try:
        return shlex.split(line.partition("=")[2])
    except ValueError:
        return line.partition("=")[2].split()


def _program(text: str) -> tuple[str, str]:
    """What runs, and in which version, by the environment that it is started from."""
    words = _command(text)
    found = _PROGRAM.match(words[0]) if words else None
    return (found[1], found[2]) if found else (words[0] if words else "?", "")


def _versions(now: str, then: str) -> Iterator[str]:
    (what, old), (other, new) = _program(now), _program(then)
    if (what, old) != (other, new):
        yield f"{what} {old} → {other if other != what else ''} {new}".replace("  ", " ").strip()


def _arguments(now: str, then: str) -> Iterator[str]:
    old, new = _options(_command(now)[1:]), _options(_command(then)[1:])
    blocks = difflib.SequenceMatcher(a=old, b=new, autojunk=False).get_opcodes()
    changed = [(old[a:b], new[c:d]) for tag, a, b, c, d in blocks if tag != "equal"]
    for gone, come in changed[:_TOLD]:
        yield f"{' '.join(gone) or 'nothing'} → {' '.join(come) or 'nothing'}"
    if len(changed) > _TOLD:
        yield f"{len(changed) - _TOLD} more arguments"


def _options(words: Iterable[str]) -> list[str]:
    """Options with their values, as a person reads them."""
    found: list[str] = []
    for word in words:
        if found and found[-1].startswith("--") and " " not in found[-1] and word[:1] != "-":
            found[-1] += f" {word}"
        else:
            found.append(word)
    return found


def _surroundings(now: str, then: str) -> Iterator[str]:
    old, new = _environment(now), _environment(then)
    if names := sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name)):
        yield f"environment: {', '.join(names)}"


def _environment(text: str) -> dict[str, str]:
    lines = (line for line in text.splitlines() if line.startswith("Environment="))
    pairs = (line.partition("=")[2].strip('"').partition("=") for line in lines)
    return {name: value for name, _, value in pairs}
