"""What the agent logged, read back from the journal by ``journalctl``.

It is journalctl's work to find entries in files that journald writes meanwhile; the agent only
follows what it prints, line by line, and ends it with whoever asked. Its user has to be a member
of the group ``systemd-journal``, else it is shown nothing.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import msgspec

from farrier_agent.control.errors import ControlError
from farrier_agent.control.protocol import Entry

__all__ = ["MAX_LINE", "MAX_MESSAGE", "MAX_READERS", "Lines", "command", "entries", "entry_in"]

UNIT = "farrier-agent.service"
MAX_READERS = 8
"""So many journalctls at once: each is a process of the agent's unit, and of its memory."""
MAX_LINE = 256 * 1024
"""Bytes of a line of journalctl's; a longer one is passed over."""
MAX_MESSAGE = 8 * 1024
"""Characters of a message; what is longer is shortened."""
_CHUNK = 64 * 1024
_FIELDS = "MESSAGE,PRIORITY,FARRIER_REPLICA,FARRIER_CAUSE"
_PATIENCE = 2.0  # seconds that a journalctl has to end in

_running: set[asyncio.subprocess.Process] = set()


def command(
    replica: str | None,
    lines: int,
    *,
    follow: bool,
    machine: str | None = None,
    program: Sequence[str] = ("journalctl",),
) -> list[str]:
    """The command that prints the last *lines* entries, of one *replica* or of all, oldest first.

    *follow*: and then those that come, of the host whose machine-id(5) is *machine*.
    """
    asked = [*program, "--quiet", "--no-pager", "--output=json", f"--output-fields={_FIELDS}"]
    # without --all a message of more than 4096 bytes is null (journalctl(1))
    asked += ["--all", f"--unit={UNIT}", f"--lines={lines}"]
    if follow:
        # --follow alone implies --boot, of which the unit's sandbox may see another id than the
        # host has (measured in a container, systemd 252: no entry at all). --merge takes that away,
        # and lets in what journals of other hosts lie here.
        asked += ["--follow", "--merge"]
        if machine is not None:
            asked.append(f"_MACHINE_ID={machine}")
    if replica is not None:
        asked.append(f"FARRIER_REPLICA={replica}")
    return asked


async def entries(
    replica: str | None,
    lines: int,
    *,
    follow: bool = False,
    program: Sequence[str] = ("journalctl",),
) -> AsyncGenerator[Entry, None]:
    """The last *lines* entries of one *replica* or of all; *follow*: and then those that come.

    The journalctl behind it ends with this iterator: close it (:func:`contextlib.aclosing`) when
    it is not read to its end. Raises ControlError when the journal cannot be read.
    """
    asked = command(replica, lines, follow=follow, machine=_machine(), program=program)
    process = await _started(asked)
    try:
        assert process.stdout is not None  # noqa: S101 - it is piped
        cut = Lines()
        while data := await process.stdout.read(_CHUNK):
            for line in cut.add(data):
                if (entry := entry_in(line)) is not None:
                    yield entry
        await _succeeded(process)
    finally:
        await _ended(process)
        _running.discard(process)


def _machine(path: Path = Path("/etc/machine-id")) -> str | None:
    try:
        text = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None
    return text if re.fullmatch(r"[0-9a-f]{32}", text) else None


async def _started(asked: list[str]) -> asyncio.subprocess.Process:
    if len(_running) >= MAX_READERS:
        raise ControlError(
            f"the journal is being read by {len(_running)} others already",
            f"journalctl --unit={UNIT}",
        )
    try:
        process = await asyncio.create_subprocess_exec(
            *asked,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C.UTF-8"},
        )
    except OSError as error:
        raise ControlError(
            f"{asked[0]} cannot be run: {error.strerror or error}", f"journalctl --unit={UNIT}"
        ) from error
    _running.add(process)
    return process


async def _succeeded(process: asyncio.subprocess.Process) -> None:
    assert process.stderr is not None  # noqa: S101 - it is piped
    said = (await process.stderr.read(_CHUNK)).decode("utf-8", "replace").strip()
    code = await process.wait()
    if code:
        last = said.splitlines()[-1] if said else f"it ended with {code}"
        raise ControlError(f"journalctl: {last}", f"journalctl --unit={UNIT}")


async def _ended(process: asyncio.subprocess.Process) -> None:
    """End *process*, also when this is cancelled: by SIGTERM, and by SIGKILL if that is no use."""
    if process.returncode is not None:
        return
    with suppress(ProcessLookupError):
        process.terminate()
    try:
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(process.wait(), _PATIENCE)
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()


class Lines:
    """Cuts what comes in pieces into lines, and passes over those of more than MAX_LINE bytes."""

    def __init__(self) -> None:
        self._heard = b""
        self._passing = False

    def add(self, data: bytes) -> list[bytes]:
        """The lines that are whole with *data*, without their newlines."""
        *whole, rest = (self._heard + data).split(b"\n")
        if whole and self._passing:
            whole, self._passing = whole[1:], False
        if self._passing or len(rest) > MAX_LINE:
            rest, self._passing = b"", True
        self._heard = rest
        return [line for line in whole if len(line) <= MAX_LINE]


# A field's value is text; bytes as numbers where it is not UTF-8; an array of either where the
# field is there several times; null where it is too long (systemd.journal-fields, JOURNAL_EXPORT).
_Bytes = list[Annotated[int, msgspec.Meta(ge=0, le=255)]]


class _Line(msgspec.Struct):
    at: object = msgspec.field(name="__REALTIME_TIMESTAMP", default=None)
    priority: object = msgspec.field(name="PRIORITY", default=None)
    message: object = msgspec.field(name="MESSAGE", default=None)
    replica: object = msgspec.field(name="FARRIER_REPLICA", default=None)
    cause: object = msgspec.field(name="FARRIER_CAUSE", default=None)


_line = msgspec.json.Decoder(_Line)


def entry_in(line: bytes) -> Entry | None:
    """The entry in a *line* of ``journalctl --output=json``; None where there is none in it."""
    try:
        found = _line.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    at = _number(found.at)
    if at is None:
        return None
    priority = _number(found.priority)
    return Entry(
        at=at / 1_000_000,
        priority=priority if priority is not None and priority <= 7 else 6,
        message=_text(found.message) or "",
        replica=_text(found.replica),
        cause=_text(found.cause),
    )


def _text(value: object) -> str | None:
    """The text of a field's *value*, of the first one where there are several."""
    if isinstance(value, list) and value and isinstance(value[0], list | str):
        value = value[0]
    if isinstance(value, list):
        try:
            value = bytes(msgspec.convert(value, _Bytes)).decode("utf-8", "replace")
        except msgspec.ValidationError:
            return None
    if not isinstance(value, str):
        return None
    if len(value) > MAX_MESSAGE:
        return f"{value[:MAX_MESSAGE]}… ({len(value)} characters)"
    return value


def _number(value: object) -> int | None:
    text = _text(value)
    # no more digits than a time in microseconds has
    return int(text) if text and len(text) <= 16 and text.isascii() and text.isdigit() else None
