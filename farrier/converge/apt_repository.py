"""A vendor's package repository: what apt is told of it, and whose key is accepted. Pure."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from farrier.converge.commands import last_lines
from farrier.openpgp import read_certificates

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = [
    "AptSource",
    "SourceState",
    "explain_update",
    "parse_source",
    "proxy_text",
    "source_text",
    "wrong_key",
]


@dataclass(frozen=True, slots=True)
class AptSource:
    """One repository: *name* is part of the names of its files on the host.

    *uri* may contain ``{arch}`` (dpkg's word for the host's), ``{machine}`` (NVIDIA's word for it)
    and ``{distro}`` (``debian12``), *key_url* besides ``{uri}`` and ``{key}`` (the fingerprint's
    last 8 digits, small). *suite* is ``/`` for a flat one. *fingerprint* is of the primary key
    that *key_url* serves, 40 hex digits. Both may also be given by ``{distro}``. *proxy* is
    ``http://host:port``. *keyring* is where the key is kept; two sources with the same *uri* have
    to have the same one, else apt refuses both. *preferences* is the text of an apt_preferences(5)
    file that goes with it.
    """

    name: str
    uri: str
    key_url: str | Mapping[str, str]
    fingerprint: str | Mapping[str, str]
    suite: str = "/"
    components: tuple[str, ...] = ()
    proxy: str | None = None
    keyring: str | None = None
    preferences: str = ""

    @property
    def path(self) -> str:
        """Its file in apt's sources."""
        return f"/etc/apt/sources.list.d/farrier-{self.name}.sources"

    @property
    def key_path(self) -> str:
        """Its key, in binary."""
        return self.keyring or f"/etc/apt/keyrings/farrier-{self.name}.gpg"

    @property
    def proxy_path(self) -> str:
        """apt's configuration of its proxy."""
        return f"/etc/apt/apt.conf.d/60farrier-{self.name}-proxy"

    @property
    def preferences_path(self) -> str:
        """What of it apt is to prefer."""
        return f"/etc/apt/preferences.d/farrier-{self.name}"

    def on(self, now: SourceState) -> AptSource:
        """Filled in for a host. Raises :class:`LookupError` where no fingerprint is known."""
        words = {"arch": now.arch, "distro": now.distro}
        words["machine"] = {"amd64": "x86_64", "arm64": "sbsa"}.get(now.arch, now.arch)
        fingerprint, key_url = (
            given if isinstance(given, str) else given[now.distro]
            for given in (self.fingerprint, self.key_url)
        )
        fingerprint = fingerprint.replace(" ", "").upper()
        uri = self.uri.format(**words).rstrip("/")
        key_url = key_url.format(**words, uri=uri, key=fingerprint[-8:].lower())
        return replace(self, uri=uri, key_url=key_url, fingerprint=fingerprint)

    def texts(self, arch: str) -> dict[str, str]:
        """Path and content of each file but the key, "" for one that should not be there."""
        return {
            self.proxy_path: proxy_text(self),
            self.preferences_path: self.preferences,
            self.path: source_text(self, arch),
        }


@dataclass(frozen=True, slots=True)
class SourceState:
    """A host's architecture and release, and its *files* of a source by path, the key among them.

    *elsewhere* are other files of apt's that name the same address, *key_users* those that name
    the same key.
    """

    arch: str = ""
    distro: str = ""
    files: Mapping[str, bytes] = field(default_factory=dict)
    elsewhere: tuple[str, ...] = ()
    key_users: tuple[str, ...] = ()


def parse_source(output: Sequence[str]) -> SourceState:
    """A :class:`SourceState` from lines of a word and a value."""
    words = [line.split(" ") for line in output]
    return SourceState(
        arch=next((word[1] for word in words if word[0] == "arch"), ""),
        distro=next((word[1] for word in words if word[0] == "distro"), ""),
        files={
            word[1]: base64.b64decode(word[2] if len(word) > 2 else "")
            for word in words
            if word[0] == "file"
        },
        elsewhere=tuple(line.partition(" ")[2] for line in output if line.startswith("elsewhere ")),
        key_users=tuple(line.partition(" ")[2] for line in output if line.startswith("keyuser ")),
    )


def wrong_key(content: bytes, source: AptSource) -> str:
    """Why *content* is not the key of *source*, "" if it is."""
    try:
        found = tuple(one.fingerprint for one in read_certificates(content))
    except ValueError:
        found = ()
    if found == (source.fingerprint,):
        return ""
    is_now = " and ".join(found) or f"no OpenPGP key but {content[:40]!r}"
    return f"{source.key_url} serves {is_now}; the inventory says {source.fingerprint}"


def source_text(source: AptSource, arch: str) -> str:
    """The deb822 paragraph of *source* on a host with dpkg's *arch*."""
    lines = [
        "# Written by Farrier.",
        "Types: deb",
        f"URIs: {source.uri}",
        f"Suites: {source.suite}",
        *([f"Components: {' '.join(source.components)}"] if source.components else []),
        f"Architectures: {arch}",
        f"Signed-By: {source.key_path}",
    ]
    return "\n".join(lines) + "\n"


def proxy_text(source: AptSource) -> str:
    """apt's configuration of the proxy, for this repository's host alone; "" without one."""
    if not source.proxy:
        return ""
    address = urlsplit(source.uri)
    return f'Acquire::{address.scheme}::Proxy::{address.hostname} "{source.proxy}";\n'


def explain_update(output: str, source: AptSource) -> str:
    """Cause and next step, from what ``apt-get update`` of *source* alone printed."""
    told = [line for line in output.splitlines() if re.match(r"(E|W|Err):|  ", line)]
    lines = "\n".join(told[-6:]) or last_lines(output, 6)
    if re.search(r"EXPKEYSIG|EXPSIG|expired|REVKEYSIG", output):
        cause = "its key or signature has expired"
    elif re.search(r"NO_PUBKEY|Missing key|BADSIG|is not signed", output):
        cause = "it is not signed by the key with the inventory's fingerprint"
    elif re.search(r"SHA-?1\b|not considered secure", output):
        cause = "its key is bound by SHA-1, which this host's apt no longer accepts"
    else:
        cause = "it could not be read"
    return (
        f"{source.uri} was not made known to apt: {cause}:\n{lines}\n"
        f"Look at: curl -fI {source.uri} on the host (DNS, proxy, mirror,"
        " clock); nothing was changed; then run the deploy again"
    )
