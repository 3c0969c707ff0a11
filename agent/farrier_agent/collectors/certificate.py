"""Until when the certificate is valid that the gateway shows its clients.

Asked by a handshake, as a client does: what counts is what HAProxy serves, not what lies on the
disk, and the file is root's.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from contextlib import suppress
from datetime import datetime, timezone

from farrier_agent.collectors import CollectError
from farrier_agent.config import split_address

__all__ = ["EVERY", "Certificate", "CertificateError", "not_after"]

EVERY = 300.0
"""Seconds between two handshakes; one that failed is tried again at once."""

_SEQUENCE, _UTC, _GENERALIZED, _VERSION = 0x30, 0x17, 0x18, 0xA0


class CertificateError(CollectError):
    """The certificate could not be read; the message says where and why."""


class Certificate:
    """The certificate that is shown at *address* (``address:port``)."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._asked_at: float | None = None
        self._not_after = 0.0

    async def collect(self, deadline: float) -> float:
        """When it runs out, in seconds since the epoch. Raises :class:`CertificateError`."""
        now = time.monotonic()
        if self._asked_at is None or now - self._asked_at >= EVERY:
            self._asked_at = None
            self._not_after = not_after(await _shown(self._address, deadline))
            self._asked_at = now
        return self._not_after


async def _shown(address: str, deadline: float) -> bytes:
    """The certificate, as DER."""
    # nobody is trusted here: that clients can is theirs to say, and it is not sent anything
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    host, port = split_address(address)
    try:
        opening = asyncio.open_connection(host, port, ssl=context)
        _, writer = await asyncio.wait_for(opening, deadline)
    except (OSError, asyncio.TimeoutError) as error:  # ssl.SSLError is an OSError
        why = str(error) or f"no answer within {deadline:g} s"
        raise CertificateError(
            f"the gateway's certificate cannot be seen at {address}: {why};"
            f" next: openssl s_client -connect {address} </dev/null"
        ) from error
    try:
        found = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    finally:
        writer.close()
        with suppress(OSError, asyncio.TimeoutError):
            await asyncio.wait_for(writer.wait_closed(), deadline)
    return bytes(found or b"")


def not_after(der: bytes) -> float:
    """The end of the validity of the X.509 certificate *der* (RFC 5280, 4.1), in epoch seconds.

    ``Certificate ::= SEQUENCE { tbs SEQUENCE { [0] version, serial, signature, issuer, validity
    SEQUENCE { notBefore, notAfter }, … } … }``. Raises :class:`CertificateError`.
    """
    try:
        certificate = _entered(der, 0, _SEQUENCE)
        at = _entered(der, certificate, _SEQUENCE)
        if der[at] == _VERSION:
            at = _passed(der, at)
        for _ in ("serial number", "signature", "issuer"):
            at = _passed(der, at)
        validity = _entered(der, at, _SEQUENCE)
        end = _passed(der, validity)
        return _time(der[end], der[_length(der, end)[0] : _passed(der, end)].decode("ascii"))
    except (IndexError, ValueError) as error:
        raise CertificateError(f"the gateway's certificate is none: {error}") from error


def _length(der: bytes, at: int) -> tuple[int, int]:
    """Where the content of the element at *at* begins, and how many bytes it has."""
    first = der[at + 1]
    if first < 0x80:
        return at + 2, first
    count = first & 0x7F
    if not 0 < count <= 4:
        raise ValueError(f"a length of {count} bytes")
    return at + 2 + count, int.from_bytes(der[at + 2 : at + 2 + count], "big")


def _entered(der: bytes, at: int, kind: int) -> int:
    if der[at] != kind:
        raise ValueError(f"element {der[at]:#x} instead of {kind:#x}")
    return _length(der, at)[0]


def _passed(der: bytes, at: int) -> int:
    begin, length = _length(der, at)
    if begin + length > len(der):
        raise ValueError("it ends early")
    return begin + length


def _time(kind: int, text: str) -> float:
    """UTCTime has two digits for the year, those below 50 are of this century (RFC 5280)."""
    if kind not in {_UTC, _GENERALIZED}:
        raise ValueError(f"element {kind:#x} instead of a time")
    if kind == _UTC:
        text = ("20" if text[:2] < "50" else "19") + text
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=timezone.utc).timestamp()
