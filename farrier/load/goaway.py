"""GOAWAY frames, taken out of what a server says in HTTP/2; pure.

A server that leaves gracefully sends GOAWAY and finishes what runs (RFC 9113, 6.8; HAProxy and
nginx at every reload). h2 takes that frame for the end of the connection and refuses all after it,
so it never gets to see one.
"""

from __future__ import annotations

__all__ = ["Goaway", "NoFrameError"]

HEAD = 9
GOAWAY = 7
LARGEST = 16384
"""Bytes of a frame, as long as nobody allowed the server more."""


class NoFrameError(ValueError):
    """These bytes are no HTTP/2."""


class Goaway:
    """Cuts bytes into frames; ``last`` is what the newest GOAWAY named as the last stream."""

    def __init__(self) -> None:
        self.last: int | None = None
        self._held = b""

    def without(self, data: bytes) -> bytes:
        """The whole frames so far that are none. Raises NoFrameError."""
        self._held += data
        kept, start = [], 0
        while len(self._held) - start >= HEAD:
            length = int.from_bytes(self._held[start : start + 3], "big")
            if length > LARGEST:  # h2 would wait for the rest of it
                raise NoFrameError(f"{self._held[start : start + 40]!r}")
            end = start + HEAD + length
            if end > len(self._held):
                break
            if self._held[start + 3] == GOAWAY:
                named = self._held[start + HEAD : start + HEAD + 4]
                self.last = int.from_bytes(named, "big") & 0x7FFFFFFF
            else:
                kept.append(self._held[start:end])
            start = end
        self._held = self._held[start:]
        return b"".join(kept)
