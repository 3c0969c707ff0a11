"""The gateway's certificate on the operator's machine: read, and refused before a host has it."""

from __future__ import annotations

import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from farrier.spec.private import PrivateFileError, read_private

__all__ = ["CertificateError", "read_certificate"]

HOLDS = "the gateway's certificate, its chain and its key, in PEM"


class CertificateError(ValueError):
    """The file cannot be used; the message says why and what to do, and holds nothing of it."""


def read_certificate(path: Path, now: datetime.datetime) -> str:
    """The file *path*, if it is a certificate that is valid at *now* and its own key.

    Raises :class:`CertificateError`.
    """
    try:
        content = read_private(path, HOLDS)
    except PrivateFileError as error:
        raise CertificateError(str(error)) from None
    try:
        certificate, *_ = x509.load_pem_x509_certificates(content)
        key = load_pem_private_key(content, password=None)
    except (ValueError, TypeError):
        raise CertificateError(
            f"{path} has to hold {HOLDS} (without a password);"
            " put together: cat CERTIFICATE CHAIN KEY > FILE"
        ) from None
    if key.public_key() != certificate.public_key():
        raise CertificateError(f"{path}: the key is not that of the first certificate in it")
    begins, ends = _validity(certificate)
    if now >= ends:
        raise CertificateError(
            f"{path}: the certificate has expired on {ends:%Y-%m-%d %H:%M} UTC; get a new one and"
            " write it there"
        )
    if now < begins:
        raise CertificateError(
            f"{path}: the certificate is valid only from {begins:%Y-%m-%d %H:%M} UTC on; is this"
            " machine's clock right? (date -u)"
        )
    return content.decode()


def _validity(certificate: x509.Certificate) -> tuple[datetime.datetime, datetime.datetime]:
    return certificate.not_valid_before_utc, certificate.not_valid_after_utc
