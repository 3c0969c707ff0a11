"""A transport with TLS on it or without: what is said and heard in the clear."""

from __future__ import annotations

import asyncio
import contextlib

from farrier_agent.web.tls import Stream, Tls

__all__ = ["NotTlsError", "Wire"]

HANDSHAKE_RECORD = 0x16
"""The first byte of TLS; no method of HTTP begins with it."""


class NotTlsError(Exception):
    """The client speaks plain HTTP where TLS is spoken; from now on so does this wire."""


class Wire:
    """*transport*, with *tls* on it where there is some."""

    def __init__(self, transport: asyncio.Transport, tls: Tls | None) -> None:
        self._transport = transport
        self._stream: Stream | None = tls.stream() if tls else None
        self._tls = tls
        self._fresh = True

    @property
    def shaking(self) -> bool:
        """The handshake is not over."""
        return self._stream is not None and not self._stream.open

    @property
    def admitted(self) -> bool:
        """The client may speak: the certificate that it showed, if it had to, is somebody's."""
        if self._tls is None or self._stream is None:
            return True
        return self._tls.admits(self._stream.certificate)

    def hear(self, data: bytes) -> bytes:
        """What *data* says. Raises ssl.SSLError, and :class:`NotTlsError`."""
        if self._stream is None:
            return data
        if self._fresh and data[0] != HANDSHAKE_RECORD and data[:1].isalpha():
            self._stream = None
            raise NotTlsError
        self._fresh = False
        said = self._stream.feed(data)
        self.say(b"")
        return said

    def say(self, data: bytes | memoryview) -> None:
        """Send *data*, and what TLS has to say by itself."""
        if self._stream is None:
            self._transport.write(bytes(data))
        elif sealed := self._stream.seal(data):
            self._transport.write(sealed)

    def end(self) -> None:
        """Say that nothing follows. Under TLS why, where something went wrong."""
        if self._stream is not None:
            self._transport.write(self._stream.end())
        with contextlib.suppress(OSError):
            if not self._transport.is_closing():
                self._transport.write_eof()
