"""TLS on real sockets: who is let in, and what is said to who is not."""

from __future__ import annotations

import ipaddress
import socket
import ssl
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from cryptography import x509
from farrier_agent.web import WebConfigError, check

from tests.agent.web.certificates import Authority, Pair, encrypted
from tests.agent.web.conftest import Serve
from tests.agent.web.served import ALICE, Served

TLS = "tls_server_config:\n  cert_file: server.crt\n  key_file: server.key\n"
MTLS = TLS + "  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: ca.crt\n"
REFUSALS = (OSError,)
"""How a client sees that it is not let in: an alert, a reset, an end (ssl.SSLError is one)."""


def with_ca(serve: Serve, tmp_path: Path, more: str = "") -> tuple[Served, Authority]:
    clients = Authority("clients")
    (tmp_path / "ca.crt").write_bytes(clients.certificate)
    return serve(MTLS + more), clients


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


def handshake(one: Served, tls: ssl.SSLContext) -> ssl.SSLSocket:
    return tls.wrap_socket(one.connect(), server_hostname="localhost")


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


# -- clients with certificates ---------------------------------------------------------------


def test_a_client_has_to_show_a_certificate_of_the_authority(serve: Serve, tmp_path: Path) -> None:
    one, clients = with_ca(serve, tmp_path)
    assert one.get(tls=one.context(clients.client())).code == 200
    strangers: list[Pair | None] = [
        None,
        Authority("clients").client(),
        one.authority.client(),
        clients.client(days=-1),
        clients.server(),
    ]
    for pair in strangers:
        with pytest.raises(REFUSALS):
            one.get("/metrics", tls=one.context(pair))
    assert one.get(tls=one.context(clients.client())).code == 200


URI = x509.UniformResourceIdentifier
SANS: list[tuple[str, list[x509.GeneralName], bool]] = [
    ("[prometheus.example]", [x509.DNSName("prometheus.example")], True),
    ("[prometheus.example]", [x509.DNSName("evil.example")], False),
    ("[prometheus.example]", [], False),
    ("[a.example, b.example]", [x509.DNSName("x"), x509.DNSName("b.example")], True),
    ("['*.example']", [x509.DNSName("prometheus.example")], False),
    ("[example]", [x509.DNSName("prometheus.example")], False),
    ("['spiffe://fleet/prometheus']", [URI("spiffe://fleet/prometheus")], True),
    ("['spiffe://fleet/prometheus']", [URI("spiffe://fleet/prometheus2")], False),
    ("[10.1.2.3]", [x509.IPAddress(ipaddress.ip_address("10.1.2.3"))], True),
    ("['2001:db8::1']", [x509.IPAddress(ipaddress.ip_address("2001:db8:0::1"))], True),
    ("['2001:DB8:0:0:0:0:0:1']", [x509.IPAddress(ipaddress.ip_address("2001:db8::1"))], True),
    ("['2001:db8::2']", [x509.IPAddress(ipaddress.ip_address("2001:db8::1"))], False),
    ("[ops@example.org]", [x509.RFC822Name("ops@example.org")], True),
    ("[one]", [], False),  # the common name of the subject is no such name
]


@pytest.mark.parametrize("case", SANS)
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_names_of_clients(
    serve: Serve,
    tmp_path: Path,
    version: ssl.TLSVersion,
    case: tuple[str, list[x509.GeneralName], bool],
) -> None:
    allowed, names, comes_in = case
    one, clients = with_ca(serve, tmp_path, f"  client_allowed_sans: {allowed}\n")
    tls = one.context(clients.client(*names))
    tls.maximum_version = version
    if comes_in:
        assert one.get("/metrics", tls=tls).code == 200
    else:
        with pytest.raises((OSError, ssl.SSLError)):
            one.get("/metrics", tls=tls)


def test_a_resumed_session_is_asked_for_its_name_too(serve: Serve, tmp_path: Path) -> None:
    one, clients = with_ca(serve, tmp_path, "  client_allowed_sans: [a.example]\n")
    tls = one.context(clients.client(x509.DNSName("a.example")))
    tls.maximum_version = ssl.TLSVersion.TLSv1_2
    with handshake(one, tls) as first:
        session = first.session
    with tls.wrap_socket(one.connect(), server_hostname="localhost", session=session) as again:
        assert again.session_reused
        again.sendall(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n")
        assert again.recv(100).startswith(b"HTTP/1.1 200")


# -- files that cannot be used -----------------------------------------------------------------


def _swap_key(one: Path) -> None:
    (one / "server.key").write_bytes(Authority().server().key)


def _make_directory(one: Path) -> None:
    (one / "web.yml").unlink()
    (one / "web.yml").mkdir()


def _encrypt(one: Path) -> None:
    pair = Authority().server()
    (one / "server.crt").write_bytes(pair.certificate)
    (one / "server.key").write_bytes(encrypted(pair))


BAD_FILES: list[tuple[Callable[[Path], object], str]] = [
    (lambda one: (one / "server.crt").unlink(), r"cert_file: /.*/server.crt: No such file"),
    (lambda one: (one / "server.key").unlink(), r"key_file: /.*/server.key: No such file"),
    (lambda one: (one / "ca.crt").unlink(), r"client_ca_file: /.*/ca.crt: No such file"),
    (lambda one: (one / "server.crt").write_text(""), "cert_file: no certificate in PEM"),
    (lambda one: (one / "server.key").write_text("x"), "key_file: no private key in PEM"),
    (_swap_key, "key_file: it is not the key of the certificate in cert_file"),
    (_encrypt, "key_file: the key is encrypted, .*openssl pkey"),
    (
        lambda one: (one / "server.crt").write_text(
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
        ),
        "OpenSSL cannot read them",
    ),
    (lambda one: (one / "ca.crt").write_text("none"), "client_ca_file: no certificate of an auth"),
    (lambda one: (one / "ca.crt").write_bytes(b"\xff" * 99), "client_ca_file: no certificate"),
    (lambda one: (one / "ca.crt").write_bytes(b"x" * 2_000_000), "more than 1024 KiB"),
    (
        _make_directory,
        "web.yml: Is a directory",
    ),
    (lambda one: (one / "web.yml").write_bytes(b"\xff\xfe"), "not UTF-8"),
    (lambda one: (one / "web.yml").unlink(), "web.yml: No such file"),
]


@pytest.mark.parametrize(("spoil", "words"), BAD_FILES, ids=[words for _, words in BAD_FILES])
def test_a_bad_file_is_named_and_nobody_is_answered(
    tmp_path: Path, spoil: Callable[[Path], object], words: str
) -> None:
    (tmp_path / "ca.crt").write_bytes(Authority("clients").certificate)
    served = Served(tmp_path, MTLS)
    spoil(tmp_path)
    with pytest.raises(WebConfigError, match=words):
        check(tmp_path / "web.yml")
    with served as one:
        for path in ("/metrics", "/livez", "/status"):
            reply = one.get(path)
            assert reply.code == 503
            assert b"farrier-agent check-config" in reply.body
            assert b"farrier_" not in reply.body
        problem = one.inside(lambda: one.in_force.problem)
        assert problem is not None
        assert str(tmp_path / "web.yml") in problem
        assert problem.endswith("until it can be used every HTTP request is refused with 503")
        assert one.in_force.good is False
        with pytest.raises(REFUSALS):
            one.get(tls=one.context())


def test_what_a_good_file_says_in_a_few_words(tmp_path: Path) -> None:
    served = Served(tmp_path, TLS + f"basic_auth_users: {{alice: {ALICE}}}")
    assert check(served.path) == "TLS from TLS12, 1 user(s)"
    served.write("")
    assert check(served.path) == "plain HTTP, no passwords"
    served.write(f"basic_auth_users: {{alice: {ALICE}}}")
    assert "anybody on the way can read" in check(served.path)


def test_certificates_may_stand_in_the_file(serve: Serve, tmp_path: Path) -> None:
    def block(key: str, text: bytes) -> str:
        return f"  {key}: |\n" + "".join(f"    {line}\n" for line in text.decode().splitlines())

    one = serve(TLS)
    pair = one.authority.server()
    one.write("tls_server_config:\n" + block("cert", pair.certificate) + block("key", pair.key))
    assert check(one.path).startswith("TLS")


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
