"""The lab's own certificate authority, and one certificate for its gateways."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from farrier.lab.state import write_private

if TYPE_CHECKING:
    from collections.abc import Iterable

    from farrier.lab.definitions import LabDefinition
    from farrier.lab.state import LabFiles

__all__ = ["certificate_of", "make_certificates"]

DAYS = 365
"""How long they are good: longer than any lab lives."""


def make_certificates(lab: LabDefinition, files: LabFiles) -> None:
    """Make what is missing: the authority (its key is thrown away) and the gateways' certificate.

    Both are made together: an authority without its key can sign nothing more.
    """
    if files.ca.exists() and files.gateway_certificate.exists():
        return
    gateways = [host for host in lab.hosts if "gateway" in host.groups]
    names = [*(host.name for host in gateways), *(str(lab.address(host)) for host in gateways)]
    authority, certificate = certificate_of(f"farrier lab {lab.name}", names or ["localhost"])
    write_private(files.gateway_certificate, certificate)
    write_private(files.ca, authority, mode=0o644)


def certificate_of(
    authority: str, names: Iterable[str], *, days: float = DAYS, expired: bool = False
) -> tuple[str, str]:
    """A fresh authority's certificate, and one for *names* (DNS names, addresses) with its key.

    Both as PEM; the second as HAProxy wants it: chain, then key. *expired*: it was good until
    yesterday.
    """
    now = datetime.now(UTC)
    start = now - timedelta(days=days + 1 if expired else 1)
    ca_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    ca_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, authority)])
    ca = (
        x509.CertificateBuilder()
        .subject_name(ca_name)
        .issuer_name(ca_name)
        .public_key(ca_key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(
            x509.KeyUsage(
                digital_signature=True,
                content_commitment=False,
                key_encipherment=False,
                data_encipherment=False,
                key_agreement=False,
                key_cert_sign=True,
                crl_sign=True,
                encipher_only=False,
                decipher_only=False,
            ),
            critical=True,
        )
        .add_extension(
            x509.SubjectKeyIdentifier.from_public_key(ca_key.public_key()), critical=False
        )
        .sign(ca_key, hashes.SHA256())
    )
    named = [_general(name) for name in names]
    common = x509.NameAttribute(NameOID.COMMON_NAME, str(named[0].value))
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([common]))
        .issuer_name(ca_name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(now - timedelta(days=1) if expired else now + timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName(named), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False
        )
        .sign(ca_key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    chain = (certificate.public_bytes(pem) + ca.public_bytes(pem)).decode()
    return ca.public_bytes(pem).decode(), chain + private.decode()


def _general(name: str) -> x509.DNSName | x509.IPAddress:
    try:
        address = ip_address(name)
    except ValueError:
        return x509.DNSName(name)
    return x509.IPAddress(address)
