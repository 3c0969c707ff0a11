"""Until when the certificate is valid that a gateway shows, by real handshakes."""

from __future__ import annotations

import asyncio
import ssl
import time
from contextlib import suppress
from pathlib import Path

import pytest
from cryptography import x509
from farrier_agent.collectors.certificate import Certificate, CertificateError, not_after
from hypothesis import given
from hypothesis import strategies as st

from tests.agent.host import free_port
from tests.agent.web.certificates import Authority, Pair


def der(pair: Pair) -> bytes:
    return ssl.PEM_cert_to_DER_cert(pair.certificate.decode())


def real_end(pair: Pair) -> float:
    """What the reference says."""
    return x509.load_pem_x509_certificate(pair.certificate).not_valid_after_utc.timestamp()


async def served(pair: Pair, directory: Path, *, mutual: bool = False) -> tuple[float, float]:
    """What is seen of *pair* behind a real TLS server, and at once again without that server."""
    certificate, key = pair.write(directory, "gateway")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    if mutual:
        context.verify_mode = ssl.CERT_REQUIRED
        context.minimum_version = ssl.TLSVersion.TLSv1_3
    server = await asyncio.start_server(lambda _, w: w.close(), "127.0.0.1", 0, ssl=context)
    one = Certificate(f"127.0.0.1:{server.sockets[0].getsockname()[1]}")
    first = await one.collect(10)
    server.close()
    await server.wait_closed()
    return first, await one.collect(10)


@pytest.mark.parametrize("mutual", [False, True])
def test_the_certificate_that_is_served_is_read_and_not_asked_for_each_tick(
    tmp_path: Path, mutual: bool
) -> None:
    pair = Authority().server()
    seen = asyncio.run(served(pair, tmp_path, mutual=mutual))
    assert seen == (real_end(pair),) * 2


@pytest.mark.parametrize("days", [-1, 1, 400, 365 * 40], ids=lambda days: f"{days} days")
def test_the_end_is_as_the_reference_reads_it(days: int) -> None:
    # 40 years from now are beyond UTCTime, and a GeneralizedTime
    pair = Authority().client(days=days)
    assert not_after(der(pair)) == real_end(pair)
    assert (not_after(der(pair)) < time.time()) == (days < 0)


def test_what_cannot_be_seen_is_said() -> None:
    address = f"127.0.0.1:{free_port()}"
    with pytest.raises(CertificateError, match=f"at {address}: .*; next: openssl s_client"):
        asyncio.run(Certificate(address).collect(5))


def test_who_never_answers_is_given_up() -> None:
    async def scene() -> None:
        server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
        one = Certificate(f"127.0.0.1:{server.sockets[0].getsockname()[1]}")
        with pytest.raises(CertificateError, match=r"no answer within 0\.2 s"):
            await one.collect(0.2)
        server.close()

    asyncio.run(scene())


GOOD = der(Authority().server())
END = GOOD.index(b"\x30\x1e\x17\x0d") + 32
"""Where its two dates are over: its serial number in front of them has no fixed length."""


@given(st.integers(0, END - 1).map(lambda count: GOOD[:count]))
def test_a_certificate_that_ends_early_is_refused(data: bytes) -> None:
    with pytest.raises(CertificateError):
        not_after(data)


@given(st.binary(max_size=300))
def test_garbage_raises_nothing_else(data: bytes) -> None:
    with suppress(CertificateError):
        assert isinstance(not_after(data), float)


@given(st.integers(0, len(GOOD) - 1), st.binary(min_size=1, max_size=4))
def test_a_spoilt_certificate_is_read_or_refused(at: int, spoilt: bytes) -> None:
    with suppress(CertificateError):
        assert isinstance(not_after(GOOD[:at] + spoilt + GOOD[at + len(spoilt) :]), float)
