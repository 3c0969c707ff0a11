"""Gathers pieces of evidence side by side, and writes them as one file.

Whatever one piece does (hang, flood, fail) costs the others nothing: each has its own limits, and
what is missing is said in the file's ``manifest.json``.
"""

from __future__ import annotations

import asyncio
import io
import os
import tarfile
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

__all__ = ["Bounds", "EvidenceError", "Gathered", "Item", "gather", "write"]


class EvidenceError(Exception):
    """The evidence could not be kept; the message says why."""


@dataclass(frozen=True)
class Bounds:
    """Seconds for all pieces together, bytes of each, and how many files stay per replica."""

    seconds: float = 10.0
    piece: int = 2 * 1024 * 1024
    files: int = 5


@dataclass(frozen=True)
class Item:
    """One piece: its file's name and what gathers it, which gives bytes and what is amiss."""

    name: str
    collect: Callable[[], Awaitable[tuple[bytes, str | None]]]


class Gathered(msgspec.Struct, frozen=True, kw_only=True):
    """How one piece fared; ``amiss`` says what is missing or why there is nothing."""

    name: str
    bytes: int
    seconds: float
    amiss: str | None = None


async def gather(
    items: Sequence[Item], bounds: Bounds
) -> tuple[dict[str, bytes], tuple[Gathered, ...]]:
    """Collect all *items* at once; the pieces by name, and how each fared."""

    async def one(item: Item) -> tuple[bytes, Gathered]:
        begun = time.monotonic()
        data, amiss = b"", None
        try:
            data, amiss = await asyncio.wait_for(item.collect(), bounds.seconds)
        except asyncio.TimeoutError:
            amiss = f"not done within {bounds.seconds:g} s"
        except asyncio.CancelledError:
            raise
        except Exception as error:  # one piece must not take the others with it
            amiss = str(error) or repr(error)
        if len(data) > bounds.piece:
            data, amiss = data[: bounds.piece], f"cut to {bounds.piece} bytes"
        seconds = round(time.monotonic() - begun, 3)
        return data, Gathered(name=item.name, bytes=len(data), seconds=seconds, amiss=amiss)

    results = await asyncio.gather(*(one(item) for item in items))
    return (
        {fared.name: data for data, fared in results if data},
        tuple(fared for _, fared in results),
    )


def write(
    directory: Path, name: str, pieces: dict[str, bytes], manifest: dict[str, object], keep: int
) -> Path:
    """Write *pieces* and *manifest* as ``NAME-TIME.tar.gz`` in *directory*, mode 0600.

    The file appears whole or not at all; of those of the same name the newest *keep* stay. Raises
    EvidenceError.
    """
    stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime()) + f".{time.time_ns() % 10**9 // 1000:06}Z"
    path = directory / f"{name}-{stamp}.tar.gz"
    fresh = directory / f".{path.name}.new"
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for left in directory.glob(f".{name}-*.new"):
            left.unlink(missing_ok=True)  # of a writer that was killed
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(fresh, flags, 0o600), "wb") as file:
            file.write(_archive(path.name.removesuffix(".tar.gz"), pieces, manifest))
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
        for old in _of(directory, name)[:-keep]:
            old.unlink(missing_ok=True)
    except OSError as error:
        raise EvidenceError(
            f"evidence cannot be kept: {error.filename or directory}: {error.strerror}"
        ) from error
    return path


def _of(directory: Path, name: str) -> list[Path]:
    """The files of *name*, oldest first; not those of a name that begins with it."""
    size = len(name) + len("-20260101T000000.000000Z.tar.gz")
    return sorted(one for one in directory.glob(f"{name}-*.tar.gz") if len(one.name) == size)


def _archive(top: str, pieces: dict[str, bytes], manifest: dict[str, object]) -> bytes:
    buffer = io.BytesIO()
    files = {"manifest.json": msgspec.json.format(msgspec.json.encode(manifest)), **pieces}
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=3) as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(f"{top}/{name}")
            member.size, member.mode, member.mtime = len(data), 0o600, int(time.time())
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()
