"""TLS on real sockets: versions, ciphers, pages, and what is said to who speaks something else."""

from __future__ import annotations

import socket
import ssl
import warnings
from contextlib import suppress

import pytest

from tests.agent.web.certificates import Authority
from tests.agent.web.conftest import Serve
from tests.agent.web.served import TLS, handshake


def test_every_page_over_tls(serve: Serve) -> None:
    one = serve(TLS)
    tls = one.context()
    for path in ("/livez", "/metrics", "/status", "/readyz"):
        assert one.get(path, tls=tls).code in {200, 503}
    head = one.get("/metrics", tls=tls, method="HEAD")
    assert (head.code, head.body) == (200, b"")
    assert one.get("/nowhere", tls=tls).code == 404


def test_a_large_page_is_whole(serve: Serve) -> None:
    """Larger than what is encrypted at a time, and than TLS' records."""
    one = serve(TLS)
    reply = one.get("/metrics", tls=one.context())
    assert len(reply.body) > 70_000
    assert reply.body == one.pages._exposition.get("text")  # the bytes, not others like them


def test_many_requests_over_one_connection(serve: Serve) -> None:
    one = serve(TLS)
    connection = one.connection(one.context())
    for _ in range(50):
        connection.request("GET", "/livez")
        assert connection.getresponse().read() == b'{"alive":true}\n'
    connection.close()


def test_who_asks_in_the_clear_is_told_so(serve: Serve) -> None:
    one = serve(TLS)
    reply = one.get("/metrics")
    assert reply.code == 400
    assert b"https://" in reply.body
    assert b"farrier_" not in reply.body


def test_a_client_that_trusts_another_authority_does_not_disturb(serve: Serve) -> None:
    one = serve(TLS)
    with pytest.raises(ssl.SSLCertVerificationError):
        one.get(tls=one.context(authority=Authority("another")))
    assert one.get(tls=one.context()).code == 200


@pytest.mark.parametrize(
    ("wanted", "version", "speaks"),
    [
        ("", ssl.TLSVersion.TLSv1_2, True),
        ("", ssl.TLSVersion.TLSv1_3, True),
        ("  min_version: TLS13\n", ssl.TLSVersion.TLSv1_2, False),
        ("  max_version: TLS12\n", ssl.TLSVersion.TLSv1_3, False),
        ("  max_version: TLS12\n", ssl.TLSVersion.TLSv1_2, True),
    ],
)
def test_versions(serve: Serve, wanted: str, version: ssl.TLSVersion, speaks: bool) -> None:
    one = serve(TLS + wanted)
    tls = one.context()
    tls.minimum_version = tls.maximum_version = version
    if speaks:
        assert one.get(tls=tls).code == 200
    else:
        with pytest.raises(ssl.SSLError):
            one.get(tls=tls)


def test_tls_1_1_is_never_spoken(serve: Serve) -> None:
    one = serve(TLS)
    tls = one.context()
    tls.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings(action="ignore"):
        tls.minimum_version = ssl.TLSVersion.TLSv1
        tls.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(ssl.SSLError):
        handshake(one, tls)


def test_cipher_suites_and_curves(serve: Serve) -> None:
    cipher = "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"
    wanted = (
        f"  cipher_suites: [{cipher}, TLS_AES_128_GCM_SHA256]\n  curve_preferences: [CurveP384]\n"
    )
    one = serve(TLS + wanted)
    tls = one.context()
    tls.maximum_version = ssl.TLSVersion.TLSv1_2
    with handshake(one, tls) as made:
        assert made.cipher() == ("ECDHE-ECDSA-AES256-GCM-SHA384", "TLSv1.2", 256)
    tls.set_ecdh_curve("prime256v1")
    with pytest.raises(ssl.SSLError):
        handshake(one, tls)


@pytest.mark.parametrize("offered", [["h2"], ["h2", "http/1.1"]])
def test_http_2_is_an_offer_that_is_not_taken(serve: Serve, offered: list[str]) -> None:
    one = serve(TLS + "http_server_config: {http2: true}\n")
    tls = one.context()
    tls.set_alpn_protocols(offered)
    with handshake(one, tls) as made:
        assert made.selected_alpn_protocol() == ("http/1.1" if len(offered) > 1 else None)
        made.sendall(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n")
        assert made.recv(100).startswith(b"HTTP/1.1 200")


def test_headers(serve: Serve) -> None:
    one = serve(
        TLS + "http_server_config: {headers: {Strict-Transport-Security: max-age=9,"
        " X-Frame-Options: ''}}\n"
    )
    reply = one.get(tls=one.context())
    assert reply.headers["strict-transport-security"] == "max-age=9"
    assert "x-frame-options" not in reply.headers


def test_an_answer_to_garbage_after_the_handshake(serve: Serve) -> None:
    one = serve(TLS)
    with handshake(one, one.context()) as made:
        made.sendall(b"\x00\xff" * 40 + b"\r\n\r\n")
        assert made.recv(100).startswith(b"HTTP/1.1 400")


def test_garbage_in_the_midst_of_an_answer(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    one = serve(TLS)
    made = handshake(one, one.context())
    made.sendall(b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n" * 100)
    with socket.socket(fileno=made.detach()) as raw:
        raw.sendall(b"\x17\x03\x03\x00\x10" + b"\x00" * 16)
        raw.sendall(b"\x15\x03\x03\x00\x02\x02\x28")
        with suppress(OSError):
            while raw.recv(65536):
                pass
    assert one.get(tls=one.context()).code == 200
    assert caplog.records == [], "nobody fills the journal from outside"


@pytest.mark.parametrize(
    "garbage", [b"\x16\x03\x01\x00\x05hello", b"\x16" * 5000, b"\x00" * 100, b"\x80\x2e\x01\x00"]
)
def test_garbage_instead_of_a_handshake(serve: Serve, garbage: bytes) -> None:
    one = serve(TLS)
    with one.connect() as made:
        made.sendall(garbage)
        made.shutdown(socket.SHUT_WR)
        while made.recv(1000):
            pass
    assert one.get(tls=one.context()).code == 200
