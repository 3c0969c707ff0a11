"""The side of TLS that serves: a context from the web configuration, and one connection's stream.

Not asyncio's own: that reserves 256 KiB for each connection before it said a word, and starts no
timer that a half handshake could not outlive.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import ssl
from collections.abc import Mapping
from typing import Any

from farrier_agent.web import gonames
from farrier_agent.web.configuration import TlsServer, WebConfigError

__all__ = ["Stream", "Tls"]

PIECE = 64 * 1024


class Tls:
    """TLS as *wanted*, with the contents of the *files* that it names, by key.

    Raises :class:`WebConfigError` where they cannot be used.
    """

    def __init__(self, wanted: TlsServer, files: Mapping[str, bytes]) -> None:
        self.asks_clients = wanted.asks_clients
        sans = wanted.client_allowed_sans
        self._sans = None if sans is None else {_plain(one) for one in sans}
        self._context = _context(wanted)
        _load(self._context, _pem("cert", wanted, files), _pem("key", wanted, files))
        if wanted.asks_clients:
            _load_ca(self._context, _pem("client_ca", wanted, files))

    def stream(self) -> Stream:
        """One for a new connection."""
        return Stream(self._context)

    def admits(self, certificate: Mapping[str, Any] | None) -> bool:
        """Whether a client may come in, whose verified certificate says that it is somebody."""
        if not self.asks_clients:
            return True
        if not certificate:
            return False
        if self._sans is None:
            return True
        return any(_plain(name) in self._sans for _, name in certificate.get("subjectAltName", ()))


class Stream:
    """One connection: what came in as ciphertext goes in, and out again what is to be sent."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self.open = False
        """The handshake is over."""

    @property
    def certificate(self) -> dict[str, Any] | None:
        """The client's, verified; None where it showed none."""
        return self._tls.getpeercert() or None

    def feed(self, data: bytes) -> bytes:
        """What *data* says when it is decrypted. Raises ssl.SSLError, which ends the connection."""
        self._incoming.write(data)
        if not self.open:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                return b""
            self.open = True
        pieces = []
        try:
            while piece := self._tls.read(PIECE):
                pieces.append(piece)
        except ssl.SSLWantReadError:
            pass
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            pass  # the client ends its side; the transport tells when it is gone
        return b"".join(pieces)

    def seal(self, data: bytes | memoryview) -> bytes:
        """*data* as it is to be sent, after all that was to be sent before."""
        if len(data):
            self._tls.write(data)
        return self._outgoing.read()

    def end(self) -> bytes:
        """The last word to be sent: nothing was cut off."""
        # it wants the client's last word, which nobody waits for
        with contextlib.suppress(ssl.SSLError, ValueError):
            self._tls.unwrap()
        return self._outgoing.read()


def _context(wanted: TlsServer) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = gonames.VERSIONS[wanted.min_version]
    context.maximum_version = gonames.VERSIONS[wanted.max_version]
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    if wanted.prefer_server_cipher_suites:
        context.options |= ssl.OP_CIPHER_SERVER_PREFERENCE
    else:
        context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
    if names := [gonames.CIPHERS[one] for one in wanted.cipher_suites if one in gonames.CIPHERS]:
        try:
            context.set_ciphers(":".join(names))
        except ssl.SSLError:
            raise WebConfigError("cipher_suites: this host's OpenSSL has none of them") from None
    try:
        for curve in wanted.curve_preferences:
            context.set_ecdh_curve(gonames.CURVES[curve])
    except (ValueError, ssl.SSLError):
        raise WebConfigError(f"curve_preferences: this Python cannot set {curve}") from None
    context.set_alpn_protocols(["http/1.1"])
    return context


def _pem(what: str, wanted: TlsServer, files: Mapping[str, bytes]) -> bytes:
    """Of cert, key or client_ca, from its file or as it stands in the configuration."""
    text: str | None = getattr(wanted, what)
    return files[f"{what}_file"] if text is None else text.encode()


def _load(context: ssl.SSLContext, certificate: bytes, key: bytes) -> None:
    if b"-----BEGIN CERTIFICATE-----" not in certificate:
        raise WebConfigError("cert_file: no certificate in PEM")
    if b"PRIVATE KEY-----" not in key:
        raise WebConfigError("key_file: no private key in PEM")
    if b"ENCRYPTED" in key:
        raise WebConfigError(
            "key_file: the key is encrypted, and nobody is there to give its password;"
            " next: openssl pkey -in KEY -out PLAIN"
        )
    # Python loads them from a file only, and what was checked is what has to be loaded
    fd = os.memfd_create("farrier-agent-web")
    try:
        os.write(fd, certificate + b"\n" + key)
        context.load_cert_chain(f"/proc/self/fd/{fd}", password=_no_password)
    except ssl.SSLError as error:
        raise WebConfigError(_words(error)) from None
    finally:
        os.close(fd)


def _no_password() -> str:
    raise WebConfigError("key_file: the key is encrypted")


def _words(error: ssl.SSLError) -> str:
    if error.reason == "KEY_VALUES_MISMATCH":
        return "key_file: it is not the key of the certificate in cert_file"
    if error.reason in {"EE_KEY_TOO_SMALL", "CA_KEY_TOO_SMALL", "CA_MD_TOO_WEAK"}:
        return f"cert_file: too weak for this host's OpenSSL ({error.reason})"
    return f"cert_file and key_file: OpenSSL cannot read them ({error.reason or error})"


def _load_ca(context: ssl.SSLContext, authority: bytes) -> None:
    context.verify_mode = ssl.CERT_REQUIRED
    # as Go does: an intermediate authority may stand for itself
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    try:
        context.load_verify_locations(cadata=authority.decode("ascii", "ignore"))
    except (ssl.SSLError, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise WebConfigError(f"client_ca_file: no certificate of an authority ({reason})") from None
    if not context.cert_store_stats()["x509"]:
        raise WebConfigError("client_ca_file: no certificate of an authority")


def _plain(name: str) -> str:
    """*name* in one spelling: OpenSSL writes an IPv6 address in another than people do."""
    try:
        return str(ipaddress.ip_address(name.strip()))
    except ValueError:
        return name
