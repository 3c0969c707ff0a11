"""The web configuration file of Prometheus's exporter-toolkit, typed and checked.

The same file serves node_exporter. What is unknown, empty or cannot be honoured is refused by name:
a key that is passed over in silence is an open endpoint. ``http2`` is accepted and has no effect:
HTTP/2 is an offer, and every client takes HTTP/1.1 instead. Source of the keys and their defaults:
docs/web-configuration.md of exporter-toolkit.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import msgspec

from farrier_agent.config import ConfigError
from farrier_agent.web import gonames, plainyaml

__all__ = [
    "HttpServer",
    "RateLimit",
    "TlsServer",
    "WebConfigError",
    "WebConfiguration",
    "parse",
    "seconds",
]

MAX_COST = 15
"""Of bcrypt: 2 s of a core. 16 is twice that, and 31 a day."""
MAX_FAULTS = 5
_HASH = re.compile(r"\$2[aby]\$(\d\d)\$[./A-Za-z0-9]{53}")
_HEADERS: dict[str, frozenset[str]] = {
    "Strict-Transport-Security": frozenset(),
    "X-Content-Type-Options": frozenset({"nosniff"}),
    "X-Frame-Options": frozenset({"deny", "sameorigin"}),
    "X-XSS-Protection": frozenset(),
    "Content-Security-Policy": frozenset(),
}
"""Headers that may be set, with their values where not every value will do."""
_DURATION = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h)")
_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1, "m": 60, "h": 3600}

Said = Annotated[str, msgspec.Meta(min_length=1)]


class WebConfigError(ConfigError):
    """The web configuration cannot be used; the message names the file, the key and the reason."""


class TlsServer(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``tls_server_config``. Of certificate, key and CA each comes as a file or as PEM text."""

    cert_file: Said | None = None
    cert: Said | None = None
    key_file: Said | None = None
    key: Said | None = None
    client_ca_file: Said | None = None
    client_ca: Said | None = None
    client_auth_type: str = "NoClientCert"
    client_allowed_sans: list[Said] | None = None
    min_version: str = "TLS12"
    max_version: str = "TLS13"
    cipher_suites: list[str] = []
    prefer_server_cipher_suites: bool = True
    curve_preferences: list[str] = []

    @property
    def asks_clients(self) -> bool:
        """A client has to show a certificate."""
        return self.client_auth_type == "RequireAndVerifyClientCert"


class HttpServer(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``http_server_config``."""

    http2: bool = True
    headers: dict[str, str] = {}


class RateLimit(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``rate_limit``: a token each ``interval`` (Go's duration), at most ``burst`` of them."""

    interval: str = "0"
    burst: int = 0


class WebConfiguration(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """All of the file. Nothing in it: plain HTTP for everybody."""

    tls_server_config: TlsServer | None = None
    http_server_config: HttpServer = HttpServer()
    basic_auth_users: dict[str, str] = {}
    rate_limit: RateLimit = RateLimit()

    def files(self, directory: Path) -> dict[str, Path]:
        """The files that it names, by key; a relative one lies in *directory*."""
        tls = self.tls_server_config
        named = {
            key: getattr(tls, key, None) for key in ("cert_file", "key_file", "client_ca_file")
        }
        return {key: directory / name for key, name in named.items() if name}


_SECTIONS: dict[str, type[msgspec.Struct]] = {
    "tls_server_config": TlsServer,
    "http_server_config": HttpServer,
    "rate_limit": RateLimit,
}


def parse(text: str) -> WebConfiguration:
    """*text* of a file. Raises :class:`WebConfigError` with all that is wrong about it."""
    try:
        data = plainyaml.loads(text)
    except plainyaml.YamlError as error:
        raise WebConfigError(str(error)) from None
    if data is None:
        return WebConfiguration()
    if not isinstance(data, dict):
        raise WebConfigError("no mapping of keys to values")
    _refuse(_strange_keys(data))
    _refuse(f"{path} is empty: give it a value, or leave it out" for path in _empty("$", data))
    try:
        found = msgspec.convert(data, WebConfiguration, strict=False)
    except msgspec.ValidationError as error:
        raise WebConfigError(str(error)) from None
    _refuse(_faults(found))
    return found


def seconds(duration: str) -> float:
    """Go's *duration* (``1m30s``, ``500ms``, ``0``) in seconds. Raises ValueError."""
    if duration == "0":
        return 0.0
    parts = _DURATION.findall(duration)
    if not parts or "".join(number + unit for number, unit in parts) != duration:
        raise ValueError(f"{duration!r} is not a duration such as 1s, 500ms, 1m30s")
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


def _refuse(faults: Iterator[str]) -> None:
    said = list(faults)
    if len(said) > MAX_FAULTS:
        said[MAX_FAULTS:] = [f"and {len(said) - MAX_FAULTS} more"]
    if said:
        raise WebConfigError("; ".join(said))


def _strange_keys(data: dict[str, Any]) -> Iterator[str]:
    yield from _strange("$", data, WebConfiguration)
    for section, kind in _SECTIONS.items():
        if isinstance(data.get(section), dict):
            yield from _strange(f"$.{section}", data[section], kind)


def _strange(path: str, data: dict[str, Any], kind: type[msgspec.Struct]) -> Iterator[str]:
    known = kind.__struct_fields__
    for key in (one for one in data if one not in known):
        close = difflib.get_close_matches(key, known, 1)
        meant = f"did you mean {close[0]}?" if close else f"known: {', '.join(known)}"
        yield f"{path}: unknown key {key[:60]!r}: {meant}"


def _empty(path: str, value: Any) -> Iterator[str]:
    """What has no value: nobody meant "everybody", who wrote the key of a protection."""
    if value is None or (isinstance(value, dict | list) and not value):
        yield path
    elif isinstance(value, dict):
        for key, one in value.items():
            yield from _empty(f"{path}.{key}", one)
    elif isinstance(value, list):
        for index, one in enumerate(value):
            yield from _empty(f"{path}[{index}]", one)


def _faults(found: WebConfiguration) -> Iterator[str]:
    if found.tls_server_config is not None:
        for fault in _tls_faults(found.tls_server_config):
            yield f"$.tls_server_config.{fault}"
    for name, value in found.http_server_config.headers.items():
        yield from _header_faults(name, value)
    for user, password in found.basic_auth_users.items():
        yield from _user_faults(user, password)
    limit = found.rate_limit
    try:
        if seconds(limit.interval) > 0 and limit.burst < 1:
            yield "$.rate_limit.burst: less than 1 would refuse every request"
    except ValueError as error:
        yield f"$.rate_limit.interval: {error}"


def _tls_faults(tls: TlsServer) -> Iterator[str]:
    for what in ("cert", "key", "client_ca"):
        file, text = getattr(tls, f"{what}_file"), getattr(tls, what)
        if file is not None and text is not None:
            yield f"{what}: {what}_file is there too: one of them"
        if file is None and text is None and (what != "client_ca" or tls.asks_clients):
            yield f"{what}_file: it is missing, and {what} too"
    yield from _client_faults(tls)
    yield from _version_faults(tls)
    for name in tls.cipher_suites:
        if name not in gonames.CIPHERS and name not in gonames.ALWAYS_ON:
            yield f"cipher_suites: {name!r} is none that Go calls secure{_meant(name)}"
    for name in tls.curve_preferences:
        if name not in gonames.CURVES:
            yield f"curve_preferences: unknown {name!r} (known: {', '.join(gonames.CURVES)})"
    if len(tls.curve_preferences) > 1:
        yield (
            "curve_preferences: Python's ssl can keep to one curve only: name one, or leave it"
            " out for OpenSSL's own order (X25519 first)"
        )


def _meant(name: str) -> str:
    close = difflib.get_close_matches(name, [*gonames.CIPHERS, *gonames.ALWAYS_ON], 1)
    return f": did you mean {close[0]}?" if close else ""


def _client_faults(tls: TlsServer) -> Iterator[str]:
    policy = tls.client_auth_type
    if policy not in gonames.CLIENT_AUTH:
        yield f"client_auth_type: unknown {policy[:60]!r}; use RequireAndVerifyClientCert"
    elif why := gonames.CLIENT_AUTH[policy]:
        yield f"client_auth_type: {policy} {why}; use RequireAndVerifyClientCert"
    elif not tls.asks_clients:
        for key in ("client_ca_file", "client_ca", "client_allowed_sans"):
            if getattr(tls, key) is not None:
                yield f"{key}: nobody is asked for a certificate: client_auth_type is {policy}"


def _version_faults(tls: TlsServer) -> Iterator[str]:
    for key in ("min_version", "max_version"):
        name = getattr(tls, key)
        if name in gonames.TOO_OLD:
            yield f"{key}: {name} is not safe (RFC 8996); use TLS12 or TLS13"
        elif name not in gonames.VERSIONS:
            yield f"{key}: unknown {name[:60]!r} (TLS12, TLS13)"
    if (tls.min_version, tls.max_version) == ("TLS13", "TLS12"):
        yield "min_version: it is above max_version"


def _header_faults(name: str, value: str) -> Iterator[str]:
    path = f"$.http_server_config.headers.{name[:60]}"
    allowed = _HEADERS.get(name)
    if allowed is None:
        yield f"{path}: it cannot be set (known: {', '.join(_HEADERS)})"
    elif value and allowed and value not in allowed:
        yield f"{path}: {value[:60]!r} is none of {', '.join(sorted(allowed))}"
    elif not value.isprintable() or not value.isascii():
        yield f"{path}: a header is one line of ASCII"


def _user_faults(user: str, password: str) -> Iterator[str]:
    path = f"$.basic_auth_users.{user[:60]}"
    if not user or ":" in user:
        yield f"{path}: a user's name has a letter and no colon"
    hashed = _HASH.fullmatch(password)
    if hashed is None:
        yield f"{path}: not a bcrypt hash ($2y$10$ and 53 letters); next: htpasswd -nBC 10 {user}"
    elif not 4 <= int(hashed[1]) <= MAX_COST:
        yield f"{path}: a cost of {int(hashed[1])} is not 4 to {MAX_COST}; 10 takes 50 ms"
