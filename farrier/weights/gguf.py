"""Reads the head of a GGUF file: what is in it, and how long the file has to be.

It also runs by itself on hosts, whose Python may be 3.9 and has nothing installed: ``python3 -
FILE`` with this text on its standard input prints one line of JSON. Nothing in a file is trusted:
every length is bounded, and what is skipped is not read.

The format is that of ggml's docs/gguf.md, versions 2 and 3, little-endian.
"""

from __future__ import annotations

import io
import json
import os
import struct
import sys
from dataclasses import asdict, dataclass
from typing import BinaryIO

__all__ = ["Gguf", "GgufError", "read"]

MAGIC = b"GGUF"
VERSIONS = (2, 3)
MOST_VALUES = 100_000
MOST_TENSORS = 1_000_000
MOST_NAME = 65_535
MOST_TEXT = 256
"""Of a text that is kept; longer ones (a chat template) are skipped."""
MOST_LENGTH = 1 << 40
NESTED = 4

_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_WHOLE = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 10: "<Q", 11: "<q"}
_TEXT, _ARRAY = 8, 9

TYPES = {
    0: ("F32", 1, 4),
    1: ("F16", 1, 2),
    2: ("Q4_0", 32, 18),
    3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34),
    9: ("Q8_1", 32, 40),
    10: ("Q2_K", 256, 84),
    11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210),
    15: ("Q8_K", 256, 292),
    16: ("IQ2_XXS", 256, 66),
    17: ("IQ2_XS", 256, 74),
    18: ("IQ3_XXS", 256, 98),
    19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18),
    21: ("IQ3_S", 256, 110),
    22: ("IQ2_S", 256, 82),
    23: ("IQ4_XS", 256, 136),
    24: ("I8", 1, 1),
    25: ("I16", 1, 2),
    26: ("I32", 1, 4),
    27: ("I64", 1, 8),
    28: ("F64", 1, 8),
    29: ("IQ1_M", 256, 56),
    30: ("BF16", 1, 2),
    34: ("TQ1_0", 256, 54),
    35: ("TQ2_0", 256, 66),
    39: ("MXFP4", 32, 17),
}
"""Types of tensors: name, values in a block, bytes of a block (gguf-py, constants.py)."""


class GgufError(ValueError):
    """The file is no GGUF that an engine could load; the message says why."""


class CutError(GgufError):
    """The file ends within its head."""


@dataclass(frozen=True)
class Gguf:
    """What the head says. ``needs`` is how many bytes the file has to have at least.

    ``quantisation`` is the type of most of its bytes. None is what it does not say, or what stands
    behind the part that was read.
    """

    version: int
    architecture: str | None = None
    blocks: int | None = None
    context: int | None = None
    heads: int | None = None
    kv_heads: int | None = None
    quantisation: str | None = None
    needs: int | None = None


def read(stream: BinaryIO, *, whole: bool = True) -> Gguf:
    """The head of the GGUF that *stream* is at the beginning of. Raises :class:`GgufError`.

    Without *whole* the stream may end anywhere behind its first 24 bytes: what came before counts.
    """
    begin = stream.read(24)
    if begin[:4] != MAGIC:
        raise GgufError("does not begin with GGUF: it is no GGUF file")
    if len(begin) < 24:
        raise CutError(f"ends after {len(begin)} bytes")
    version, tensors, values = struct.unpack("<IQQ", begin[4:])
    if version in {one << 24 for one in (1, *VERSIONS)}:
        raise GgufError("is big-endian: convert it on a machine of this kind")
    if version not in VERSIONS:
        raise GgufError(f"has version {version} of the format; 2 and 3 are read")
    if values > MOST_VALUES or tensors > MOST_TENSORS:
        raise GgufError(f"says that it has {values} values and {tensors} tensors")
    head = _Head(stream, version)
    try:
        for _ in range(values):
            head.value()
        for _ in range(tensors):
            head.tensor()
    except CutError:
        if whole:
            raise
        return head.found(complete=False)
    return head.found(complete=True)


class _Head:
    """The stream behind its first 24 bytes, and what was found there."""

    def __init__(self, stream: BinaryIO, version: int) -> None:
        self._stream = stream
        self._version = version
        self._kept: dict[str, object] = {}
        self._bytes: dict[str, int] = {}
        self._end = 0
        stream.seek(0, os.SEEK_END)
        self._size = stream.tell()
        stream.seek(24)

    def _take(self, count: int) -> bytes:
        data = self._stream.read(count)
        if len(data) < count:
            raise CutError(f"ends at byte {self._size}, within its head")
        return data

    def _skip(self, count: int) -> None:
        at = self._stream.tell() + count
        if count > MOST_LENGTH or at > self._size:
            raise CutError(f"ends at byte {self._size}, within its head")
        self._stream.seek(at)

    def _number(self, kind: int = 10) -> int:
        (number,) = struct.unpack(_WHOLE[kind], self._take(_SIZES[kind]))
        return int(number)

    def _text(self, most: int) -> str | None:
        length = self._number()
        if length > most:
            self._skip(length)
            return None
        return self._take(length).decode("utf-8", "replace")

    def value(self) -> None:
        """Read one pair of name and value, and keep it if it may be of use."""
        name = self._text(MOST_NAME)
        value = self._value(self._number(4), NESTED)
        if name is not None and value is not None and len(self._kept) < 1000:
            self._kept[name] = value

    def _value(self, kind: int, depth: int) -> object:
        if kind == _TEXT:
            return self._text(MOST_TEXT)
        if kind == _ARRAY:
            self._array(depth)
            return None
        if kind not in _SIZES:
            raise GgufError(f"has a value of type {kind}, which no version of the format has")
        if kind in _WHOLE:
            return self._number(kind)
        self._skip(_SIZES[kind])
        return None

    def _array(self, depth: int) -> None:
        kind, length = self._number(4), self._number()
        if kind in _SIZES:
            self._skip(_SIZES[kind] * length)
            return
        if kind not in {_TEXT, _ARRAY} or not depth:
            raise GgufError(f"has an array of type {kind}, which no version of the format has")
        # each takes 8 bytes at least, so a file cannot make this go on for longer than it is
        for _ in range(length):
            if kind == _TEXT:
                self._skip(self._number())
            else:
                self._array(depth - 1)

    def tensor(self) -> None:
        """Read where one tensor lies, and how long it is."""
        self._text(MOST_NAME)
        dimensions = self._number(4)
        if dimensions > 8:
            raise GgufError(f"has a tensor of {dimensions} dimensions")
        count = 1
        for _ in range(dimensions):
            count *= self._number()
        kind, offset = self._number(4), self._number()
        name, values, size = TYPES.get(kind, ("", 1, 0))
        length = count // values * size
        if max(count, offset) > MOST_LENGTH:
            raise GgufError("has a tensor that is larger than any disk")
        self._end = max(self._end, offset + length)
        self._bytes[name] = self._bytes.get(name, 0) + length

    def found(self, *, complete: bool) -> Gguf:
        """What was read."""
        architecture = self._kept.get("general.architecture")
        needs = None
        if complete:
            aligned = self._whole("general.alignment") or 32
            needs = -(-self._stream.tell() // aligned) * aligned + self._end
        return Gguf(
            self._version,
            architecture if isinstance(architecture, str) else None,
            self._whole(f"{architecture}.block_count"),
            self._whole(f"{architecture}.context_length"),
            self._whole(f"{architecture}.attention.head_count"),
            self._whole(f"{architecture}.attention.head_count_kv"),
            (max(self._bytes, key=lambda one: self._bytes[one]) or None) if self._bytes else None,
            needs,
        )

    def _whole(self, name: str) -> int | None:
        value = self._kept.get(name)
        return value if isinstance(value, int) and 0 < value < 1 << 32 else None


def main(path: str) -> None:
    """Print what the file *path* is: its head, or ``{"problem": …}``."""
    try:
        with io.open(path, "rb") as stream:  # noqa: UP020 - hosts have any Python
            said = asdict(read(stream))
    except GgufError as error:
        said = {"problem": str(error)}
    print(json.dumps(said))


if __name__ == "__main__":
    main(sys.argv[1])
