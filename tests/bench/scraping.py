"""Scrapes an exporter as Prometheus does: its headers, gzip, one connection that is kept."""

from __future__ import annotations

import gzip
import socket
import time
from dataclasses import dataclass

__all__ = ["Scrape", "ScrapeError", "Scraper"]

PATIENCE = 10.0
"""Seconds for an answer: Prometheus' own default."""
_HEAD = (
    "GET /metrics HTTP/1.1\r\n"
    "Host: {host}\r\n"
    "User-Agent: Prometheus/2.42.0\r\n"
    "Accept: application/openmetrics-text;version=1.0.0,"
    "application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1\r\n"
    "Accept-Encoding: gzip\r\n"
    "X-Prometheus-Scrape-Timeout-Seconds: 10\r\n"
    "\r\n"
)
"""What Prometheus 2.42 says, that of Debian 12."""


class ScrapeError(RuntimeError):
    """There is no page; the message says what came instead."""


@dataclass(frozen=True)
class Scrape:
    """``seconds`` from the first byte of the question to the last of the answer; its bytes, as they
    were sent and unpacked, how many lines are samples, and how many of those are of an engine.
    """

    seconds: float
    sent: int
    unpacked: int
    samples: int
    engines: int


class Scraper:
    """A client of the exporter at *address*:*port*. Raises OSError and ScrapeError."""

    def __init__(self, address: str, port: int) -> None:
        self._question = _HEAD.format(host=f"{address}:{port}").encode()
        self._socket = socket.create_connection((address, port), timeout=PATIENCE)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def scrape(self) -> Scrape:
        """One page."""
        begun = time.perf_counter()
        self._socket.sendall(self._question)
        data = self._read(b"")
        while b"\r\n\r\n" not in data:
            data = self._read(data)
        head, _, body = data.partition(b"\r\n\r\n")
        status, headers = _parsed(head)
        if status != "200":
            raise ScrapeError(f"{status}: {body[:200]!r}")
        length = headers.get("content-length")
        if length is not None:
            while len(body) < int(length):
                body = self._read(body)
        else:  # in pieces, whose end gzip's own bytes hardly look like at the end of a read
            while not body.endswith(b"\r\n0\r\n\r\n"):
                body = self._read(body)
        seconds = time.perf_counter() - begun
        if length is None:
            body = _joined(body)
        page = gzip.decompress(body) if headers.get("content-encoding") == "gzip" else body
        lines = [line for line in page.splitlines() if not line.startswith(b"#")]
        engines = sum(1 for line in lines if line.startswith(b"vllm:"))
        return Scrape(seconds, len(body), len(page), len(lines), engines)

    def close(self) -> None:
        """Hang up."""
        self._socket.close()

    def _read(self, before: bytes) -> bytes:
        data = self._socket.recv(2**18)
        if not data:
            raise ScrapeError(f"the connection was closed after {len(before)} bytes")
        return before + data


def _parsed(head: bytes) -> tuple[str, dict[str, str]]:
    first, *lines = head.decode("latin-1").split("\r\n")
    pairs = (line.partition(":") for line in lines)
    return first.split()[1], {name.lower(): value.strip().lower() for name, _, value in pairs}


def _joined(body: bytes) -> bytes:
    """The pieces of a chunked answer (RFC 9112, 7.1) in one."""
    pieces: list[bytes] = []
    at = 0
    while True:
        end = body.index(b"\r\n", at)
        length = int(body[at:end].partition(b";")[0], 16)
        if length == 0:
            return b"".join(pieces)
        pieces.append(body[end + 2 : end + 2 + length])
        at = end + 4 + length
