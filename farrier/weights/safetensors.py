"""Reads the header of a safetensors file: how long the file has to be.

It also runs by itself on hosts, whose Python may be 3.9 or Debian's python3-minimal, which has no
json: ``python3 - FILE…`` with this text on its standard input prints one line for each file that no
engine could load. Nothing in a file is trusted, and of its tensors nothing is read.

The format is that of safetensors' README: eight bytes, little-endian, with the length of a JSON
header, the header, the data.
"""

from __future__ import annotations

import base64
import io
import os
import re
import sys

__all__ = ["problem"]

MOST_HEADER = 100_000_000
"""Bytes; safetensors itself reads no longer one."""

_ENDS = re.compile(rb'"data_offsets"\s*:\s*\[\s*\d{1,19}\s*,\s*(\d{1,19})\s*\]')


def problem(path: str) -> str | None:
    """What is wrong with the file *path*, as words that follow its name; None when it is whole.

    Raises :class:`OSError`.
    """
    with io.open(path, "rb") as stream:  # noqa: UP020 - hosts have any Python
        size = os.fstat(stream.fileno()).st_size
        begin = stream.read(8)
        if not begin:
            return "is empty"
        if begin == b"version ":
            return "is a pointer of git-lfs, not the weights (git lfs pull, where it came from)"
        length = int.from_bytes(begin, "little")
        if length > MOST_HEADER and len(begin) == 8:
            return "is no safetensors file"
        if size < 8 + length:
            return f"is cut short: {size} of at least {8 + length} bytes"
        header = stream.read(length).strip()
        if header[:1] != b"{" or header[-1:] != b"}":
            return "is no safetensors file: its header is damaged"
        needs = 8 + length + max([0, *map(int, _ENDS.findall(header))])
    return f"is cut short: {size} of {needs} bytes" if size < needs else None


def main(paths: list[str]) -> None:
    """Print ``shard``, the problem in Base64 and the path, of each of *paths* that has one."""
    for path in paths:
        try:
            said = problem(path)
        except OSError:
            continue
        if said:
            print("shard", base64.b64encode(said.encode()).decode(), path)


if __name__ == "__main__":
    main(sys.argv[1:])
