"""Which NVML call runs, in a page of memory that the worker writes and the agent reads.

The page outlives a worker that hangs or is killed, and a write costs well under a microsecond: a
message per call would cost more than the call.
"""

from __future__ import annotations

import mmap
import os
import struct
from typing import NamedTuple

__all__ = ["NO_GPU", "Call", "CallReader", "CallWriter", "new_page"]

NO_GPU = -1
"""For a call that concerns no single GPU."""

_FORMAT = struct.Struct("<Qi52s")
_NUMBER = struct.Struct("<Q")


class Call(NamedTuple):
    """The call that runs: the ``number``-th one of its worker, 0 for none yet."""

    number: int
    function: str
    gpu: int

    def __str__(self) -> str:
        return (
            self.function
            if self.gpu == NO_GPU or not self.function
            else f"{self.function} of GPU {self.gpu}"
        )


def new_page() -> int:
    """A file descriptor of a page without a name. The caller closes it."""
    page = os.memfd_create("nvml-call")
    os.ftruncate(page, mmap.PAGESIZE)
    return page


class CallWriter:
    """The worker's side."""

    def __init__(self, page: int) -> None:
        self._map = mmap.mmap(page, mmap.PAGESIZE)
        self._number = 0
        self._records: dict[tuple[str, int], bytes] = {}

    def __call__(self, function: str, gpu: int) -> None:
        """Write down that *function* is about to be called on the GPU of that index."""
        record = self._records.get((function, gpu))
        if record is None:
            record = _FORMAT.pack(0, gpu, function.encode()[:52])[_NUMBER.size :]
            self._records[function, gpu] = record
        self._number = number = self._number + 1
        self._map[: _FORMAT.size] = _NUMBER.pack(number) + record


class CallReader:
    """The agent's side."""

    def __init__(self, page: int) -> None:
        self._map = mmap.mmap(page, mmap.PAGESIZE, prot=mmap.PROT_READ)

    def read(self) -> Call:
        """The call that runs, or ran last."""
        number, gpu, function = _FORMAT.unpack(self._map[: _FORMAT.size])
        return Call(number, function.rstrip(b"\0").decode("ascii", "replace"), gpu)

    def close(self) -> None:
        """Let go of the page."""
        self._map.close()
