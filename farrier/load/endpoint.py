"""Where the load goes: an address, the keys of its clients, and whom TLS trusts."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

__all__ = ["Endpoint", "EndpointError", "Key"]


class EndpointError(ValueError):
    """An address or a file that cannot be used; the message says why and what to do."""


@dataclass(frozen=True)
class Key:
    """A client's API key and the models that it may use, None for all."""

    secret: str = field(repr=False)
    models: tuple[str, ...] | None = None

    def may_use(self, model: str) -> bool:
        """Whether its client may ask for *model*."""
        return self.models is None or model in self.models


@dataclass(frozen=True)
class Endpoint:
    """An OpenAI-compatible endpoint.

    ``url`` is what clients call their base URL, with or without its ``/v1``. ``keys`` are by name
    (the ledger has the names only); without any, requests have no key. ``ca`` is a file of PEM
    certificates to trust instead of the system's. Raises :class:`EndpointError`.
    """

    url: str
    keys: Mapping[str, str | Key] = field(default_factory=dict, repr=False)
    ca: Path | None = None

    def __post_init__(self) -> None:
        try:
            parts = urlsplit(self.url)
            good = parts.scheme in {"http", "https"} and bool(parts.hostname)
            good = good and parts.port != 0 and not parts.query and not parts.fragment
        except ValueError:
            good = False
        if not good:
            raise EndpointError(f"{self.url} is no address such as http://198.18.0.5/v1")
        if parts.username or parts.password:
            raise EndpointError("a key in the address would be seen by everybody: use a key file")
        if self.ca is not None and parts.scheme == "http":
            raise EndpointError(f"a CA file is of no use for {self.url}: it is not https")
        self.context(http2=False)

    @property
    def tls(self) -> bool:
        """Whether connections are encrypted."""
        return urlsplit(self.url).scheme == "https"

    @property
    def host(self) -> str:
        """The name or address to connect to."""
        return urlsplit(self.url).hostname or ""

    @property
    def port(self) -> int:
        """The port to connect to."""
        return urlsplit(self.url).port or (443 if self.tls else 80)

    @property
    def authority(self) -> str:
        """What requests say as their ``Host``."""
        return urlsplit(self.url).netloc

    def path(self, what: str) -> str:
        """The path of *what*, such as ``chat/completions``."""
        base = urlsplit(self.url).path.rstrip("/")
        return f"{base if base.endswith('/v1') else f'{base}/v1'}/{what}"

    def client_keys(self) -> dict[str, Key]:
        """The keys by name."""
        return {name: key if isinstance(key, Key) else Key(key) for name, key in self.keys.items()}

    def context(self, *, http2: bool) -> ssl.SSLContext | None:
        """What TLS is done with, None without TLS. Raises :class:`EndpointError`."""
        if not self.tls:
            return None
        try:
            context = ssl.create_default_context(cafile=self.ca)
        except (OSError, ssl.SSLError) as error:
            raise EndpointError(
                f"{self.ca} cannot be used as a file of CA certificates: {error}"
            ) from None
        context.set_alpn_protocols(["h2" if http2 else "http/1.1"])
        return context
