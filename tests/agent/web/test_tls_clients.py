"""Clients with certificates: who is let in, by authority and by name."""

from __future__ import annotations

import ipaddress
import ssl
from pathlib import Path

import pytest
from cryptography import x509

from tests.agent.web.certificates import Authority, Pair
from tests.agent.web.conftest import Serve
from tests.agent.web.served import MTLS, REFUSALS, Served, handshake


def with_ca(serve: Serve, tmp_path: Path, more: str = "") -> tuple[Served, Authority]:
    clients = Authority("clients")
    (tmp_path / "ca.crt").write_bytes(clients.certificate)
    return serve(MTLS + more), clients


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
