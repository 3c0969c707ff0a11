"""Reads the kernel's log without ever waiting for it. From ``/dev/kmsg``, a FIFO or a file.

``/dev/kmsg`` gives one record for each read(2), oldest first, EAGAIN after the newest, and EPIPE
once when records were overwritten before they were read.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import msgspec

from farrier_agent.collectors import CollectError
from farrier_agent.collectors.kernel_log import Lines, Record, concerns, record

__all__ = ["Batch", "Kmsg", "KmsgError", "Position", "read_device"]

LONGEST = 0.3
"""Seconds after which a batch ends, so that who waits for it gets an answer within a second."""
MOST = 1024 * 1024
"""Bytes of a file or FIFO after which a batch ends."""
MOST_RECORDS = 10_000
"""Records of a device that concern NVIDIA after which a batch ends: 0.3 s to parse."""
_CHUNK = 64 * 1024
_RECORD = 16 * 1024  # the kernel's longest is 8 KiB; a shorter buffer gets EINVAL
_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_LOST = {errno.EPIPE, errno.EINVAL}


class KmsgError(CollectError):
    """The kernel's log could not be read; the message says why, and what that costs."""


class Position(msgspec.Struct, frozen=True, kw_only=True):
    """How far the log is read: the last ``seq`` of a device, the next ``offset`` of a file."""

    seq: int | None = None
    inode: int | None = None
    offset: int = 0


class Batch(msgspec.Struct, kw_only=True):
    """``records`` that concern NVIDIA; ``lost`` were overwritten before they could be read.

    ``drained``: nothing was left. ``waits``: what comes next makes the descriptor readable, which
    of a file, and of a FIFO without a writer, cannot be said.
    """

    records: list[Record] = []
    lost: int = 0
    drained: bool = False
    waits: bool = False


def read_device(read: Callable[[], bytes], position: Position) -> tuple[Batch, Position]:
    """Records from *position* on. *read* is read(2) of a device. Raises OSError.

    The device begins again with its oldest record each time that it is opened.
    """
    batch, seq = Batch(), position.seq
    failures = 0
    end = time.monotonic() + LONGEST
    while time.monotonic() < end and len(batch.records) < MOST_RECORDS:
        try:
            raw = read()
        except BlockingIOError:
            batch.drained = batch.waits = True
            break
        except OSError as error:
            failures += 1
            if error.errno not in _LOST or failures > 100:
                raise
            # how many, the number of the next record says; EINVAL skips one record
            continue
        if not raw:
            batch.drained = True
            break
        number = _number(raw)
        if number is None or (seq is not None and number <= seq):
            continue
        if seq is not None:
            batch.lost += number - seq - 1
        seq = number
        if concerns(raw) and (one := record(raw)) is not None:
            batch.records.append(one)
    return batch, msgspec.structs.replace(position, seq=seq)


def _number(raw: bytes) -> int | None:
    parts = raw[:64].split(b",", 2)
    return int(parts[1]) if len(parts) == 3 and parts[1].isdigit() else None


class Kmsg:
    """The kernel's log at *path*. Every method but :meth:`watched` may block on a sick disk."""

    def __init__(self, path: Path, position: Position | None = None) -> None:
        self.position = position or Position()
        self._path = path
        self._handle: int | None = None
        self._device = False
        self._file = False
        self._lines = Lines()

    def read(self) -> Batch:
        """What has come since the last batch. Raises :class:`KmsgError`; the next call retries."""
        try:
            handle = self._opened()
            if self._device:
                batch, self.position = read_device(lambda: os.read(handle, _RECORD), self.position)
                return batch
            return self._read_lines(handle)
        except OSError as error:
            self.close()
            raise KmsgError(_words(self._path, error)) from error

    @property
    def watched(self) -> int | None:
        """The descriptor that becomes readable with the next record."""
        return None if self._file else self._handle

    def close(self) -> None:
        """Close the log. :meth:`read` opens it again."""
        if self._handle is not None:
            with suppress(OSError):
                os.close(self._handle)
        self._handle = None

    def _opened(self) -> int:
        if self._handle is not None and not self._device:
            now, here = self._path.stat(), os.fstat(self._handle)
            another = (now.st_dev, now.st_ino) != (here.st_dev, here.st_ino)
            if another and (not self._file or here.st_size <= self.position.offset):
                self.close()  # rotated, or made anew, and read to its end
        return self._handle if self._handle is not None else self._open()

    def _open(self) -> int:
        handle = os.open(self._path, _FLAGS)
        self._handle = handle
        found = os.fstat(handle)
        self._device, self._file = stat.S_ISCHR(found.st_mode), stat.S_ISREG(found.st_mode)
        if not self._device and not self._file and not stat.S_ISFIFO(found.st_mode):
            raise OSError(errno.ENOTSUP, "is no device, FIFO or file")
        self._lines = Lines()
        if self._file and self.position.inode != found.st_ino:
            self.position = Position(inode=found.st_ino)
        return handle

    def _read_lines(self, handle: int) -> Batch:
        batch = Batch()
        if self._file and os.fstat(handle).st_size < self.position.offset:
            self.position = msgspec.structs.replace(self.position, offset=0)  # truncated
            self._lines = Lines()
        end = time.monotonic() + LONGEST
        begun = offset = self.position.offset + self._lines.pending
        while not batch.drained and offset - begun < MOST and time.monotonic() < end:
            try:
                chunk = os.pread(handle, _CHUNK, offset) if self._file else os.read(handle, _CHUNK)
            except BlockingIOError:
                batch.drained = batch.waits = True
                break
            offset += len(chunk)
            batch.drained = not chunk
            # what writes to a FIFO has gone: its last line needs no end
            lines = self._lines.feed(chunk) if chunk or self._file else self._lines.end()
            found = (record(line) for line in lines if concerns(line))
            batch.records += [one for one in found if one is not None]
        if self._file:
            offset -= self._lines.pending
            self.position = msgspec.structs.replace(self.position, offset=offset)
        return batch


def _words(path: Path, error: OSError) -> str:
    if error.errno in {errno.EPERM, errno.EACCES}:
        why = (
            "may not be read: the agent's unit needs CAP_SYSLOG, and no ProtectKernelLogs=;"
            " next: systemctl cat farrier-agent"
        )
    elif error.errno == errno.ENOENT:
        why = "is not there; next: say in agent.toml where it is (kmsg)"
    else:
        why = error.strerror or str(error)
    return (
        f"{path} {why}; until then XIDs come from NVML alone, which does not tell 79, 119 and 120:"
        " a GPU that fell off the bus or whose firmware died is seen later, or not at all"
    )
