"""Package repositories of others, made known to a host's apt by the fingerprint of their key.

A bare host has no gpg, and needs none: what reads a key is :mod:`.fingerprints`, and what
verifies with it is apt itself, before the repository counts as known.
"""

from __future__ import annotations

import base64
import re
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pyinfra import host
from pyinfra.api import FactBase

from farrier.converge.commands import Refuse, Script, last_lines
from farrier.converge.fingerprints import binary, primary_fingerprints
from farrier.converge.packages import LOCK_TIMEOUT, waiting
from farrier.converge.paths import Absent
from farrier.converge.questions import Question, answer
from farrier.converge.typed import operation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from farrier.converge.commands import Commands

__all__ = ["AptSource", "absent_source", "apt_source", "source_text"]


@dataclass(frozen=True, slots=True)
class AptSource:
    """One repository: *name* is part of the names of its files on the host.

    *uri* may contain ``{arch}``, dpkg's word for the host's. *suite* is ``/`` for a flat one.
    *fingerprint* is of the primary key that *key_url* serves, 40 hex digits. *proxy* is
    ``http://host:port``. *keyring* is where the key is kept; two sources with the same *uri* have
    to have the same one, else apt refuses both.
    """

    name: str
    uri: str
    key_url: str
    fingerprint: str
    suite: str = "/"
    components: tuple[str, ...] = ()
    proxy: str | None = None
    keyring: str | None = None

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


@dataclass(frozen=True, slots=True)
class SourceState:
    """What a host has of a source: its architecture, and the files' contents, None where absent.

    *elsewhere* are other files of apt's that name the same address.
    """

    arch: str = ""
    text: str | None = None
    key: bytes | None = None
    proxy: str | None = None
    elsewhere: tuple[str, ...] = ()


class SourceStates(FactBase[SourceState | None]):
    """The :class:`SourceState` of *source*; None when the host could not be asked."""

    def command(self, source: AptSource) -> str:
        """One line per file, in base64; then the other files."""
        lines = ["echo arch $(dpkg --print-architecture)"]
        for word, path in (
            ("text", source.path),
            ("key", source.key_path),
            ("proxy", source.proxy_path),
        ):
            quoted = shlex.quote(path)
            lines.append(f"[ ! -e {quoted} ] || echo {word} $(base64 -w0 -- {quoted})")
        address = shlex.quote(source.uri.partition("{")[0].rstrip("/"))
        lines.append(
            f"grep -rlsF -e {address} /etc/apt/sources.list /etc/apt/sources.list.d"
            f" | grep -vxF -e {shlex.quote(source.path)} | sed 's/^/elsewhere /'; true"
        )
        return "\n".join(lines)

    @staticmethod
    def default() -> SourceState | None:
        """Unknown."""
        return None

    def process(self, output: list[str]) -> SourceState:
        """Parse what :meth:`command` printed."""
        return parse_source(output)


def parse_source(output: Sequence[str]) -> SourceState:
    """A :class:`SourceState` from lines of a word and a value."""
    found = [line.partition(" ")[::2] for line in output]
    files = {
        word: base64.b64decode(value) for word, value in found if word in {"text", "key", "proxy"}
    }
    decoded = {word: content.decode("utf-8", "replace") for word, content in files.items()}
    return SourceState(
        arch=next((value for word, value in found if word == "arch"), ""),
        text=decoded.get("text"),
        key=files.get("key"),
        proxy=decoded.get("proxy"),
        elsewhere=tuple(value for word, value in found if word == "elsewhere"),
    )


class ServedKey(FactBase[tuple[bytes, str]]):
    """The bytes that *url* serves to the host, and apt's words where it does not."""

    def command(self, url: str, proxy: str | None) -> str:
        """By apt's own downloader: a bare host has no curl, and apt's settings are heeded."""
        through = " ".join(
            f"-o Acquire::{scheme}::Proxy={shlex.quote(proxy or '')}"
            for scheme in ("http", "https")
            if proxy
        )
        return (
            "d=$(mktemp -d)\n"
            f"if /usr/lib/apt/apt-helper -o APT::Sandbox::User=root {through} download-file"
            f' {shlex.quote(url)} "$d/key" >"$d/said" 2>&1\n'
            'then echo key $(base64 -w0 "$d/key"); else sed "s/^/said /" "$d/said"; fi\n'
            'rm -rf "$d"'
        )

    @staticmethod
    def default() -> tuple[bytes, str]:
        """Nothing."""
        return b"", ""

    def process(self, output: list[str]) -> tuple[bytes, str]:
        """Decode it."""
        key = "".join(line[4:] for line in output if line.startswith("key "))
        said = [line[5:] for line in output if line.startswith("said ")]
        return base64.b64decode(key), "\n".join(said)


def wrong_key(content: bytes, source: AptSource) -> str:
    """Why *content* is not the key of *source*, "" if it is."""
    wanted = source.fingerprint.replace(" ", "").upper()
    try:
        found = primary_fingerprints(content)
    except ValueError:
        found = ()
    if found == (wanted,):
        return ""
    is_now = " and ".join(found) or f"no OpenPGP key but {content[:40]!r}"
    return f"{source.key_url} serves {is_now}; the inventory says {wanted}"


def source_text(source: AptSource, arch: str) -> str:
    """The deb822 paragraph of *source* on a host with dpkg's *arch*."""
    lines = [
        "# Written by Farrier.",
        "Types: deb",
        f"URIs: {source.uri.format(arch=arch)}",
        f"Suites: {source.suite}",
        *([f"Components: {' '.join(source.components)}"] if source.components else []),
        f"Architectures: {arch}",
        f"Signed-By: {source.key_path}",
    ]
    return "\n".join(lines) + "\n"


def proxy_text(source: AptSource) -> str | None:
    """apt's configuration of the proxy, for this repository's host alone."""
    if not source.proxy:
        return None
    address = urlsplit(source.uri)
    return f'Acquire::{address.scheme}::Proxy::{address.hostname} "{source.proxy}";\n'


def absent_source(source: AptSource, *, keep_key: bool = False) -> tuple[Absent, ...]:
    """All that :func:`apt_source` writes, for a removal."""
    key = () if keep_key else (Absent(source.key_path),)
    return (Absent(source.path), Absent(source.proxy_path), *key)


@operation(asks=lambda source: Question(SourceStates, {"source": source}))
def apt_source(source: AptSource) -> Commands:
    """Make *source* known to apt, unless another file of the host names it already.

    Nothing is left of it where its key has another fingerprint, or apt does not accept what it
    serves: a source that fails would fail every later ``apt-get update`` of the host.

    + source: the repository
    """
    now: SourceState | None = answer()
    if now is None:
        yield Refuse("the host could not be asked for its package sources; see the line above")
        return
    text, proxy = source_text(source, now.arch), proxy_text(source)
    if now.elsewhere and now.text is None:
        host.noop(f"{source.uri} is known to apt from {', '.join(now.elsewhere)}")
        return
    keyed = now.key is not None and not wrong_key(now.key, source)
    if keyed and (now.text, now.proxy) == (text, proxy):
        host.noop(f"{source.uri} is known to apt")
        return
    key = now.key if keyed and now.key else b""
    if not keyed:
        key, said = host.get_fact(ServedKey, url=source.key_url, proxy=source.proxy)
        if not key:
            yield Refuse(
                f"the key of {source.uri} could not be had from {source.key_url}:\n"
                f"{last_lines(said, 3) or 'no reason given'}\n"
                f"Look at: curl -fI {source.key_url} on the host (DNS, proxy, mirror); then run the"
                " deploy again"
            )
            return
        if why := wrong_key(key, source):
            yield Refuse(
                f"{source.uri} was not made known to apt: {why}\n"
                "Compare with the vendor's page; if the key was changed for good, write its"
                " fingerprint into the inventory, else ask who serves another one"
            )
            return
    yield _written(source, text, proxy, binary(key))


def _written(source: AptSource, text: str, proxy: str | None, key: bytes) -> Script:
    """Everything into a directory aside; ``apt-get update`` of that alone; then into its place."""
    parts = "\n".join(
        base64.b64encode(part).decode() or "="
        for part in (key, text.encode(), (proxy or "").encode())
    )
    lock_timeout = int(host.data.get("apt_lock_timeout", LOCK_TIMEOUT))
    path, key_path, proxy_path = (
        shlex.quote(one) for one in (source.path, source.key_path, source.proxy_path)
    )
    aside = f"farrier-{source.name}"
    return Script(
        f"""
umask 022
d=$(mktemp -d)
trap 'rm -rf "$d"' EXIT
chmod 755 "$d"
read -r key; read -r text; read -r proxy
echo "$key" | base64 -d > "$d/key.gpg"
echo "$text" | base64 -d > "$d/{aside}.sources"
echo "$proxy" | base64 -d > "$d/proxy" 2>/dev/null || :
sed "s|^Signed-By: .*|Signed-By: $d/key.gpg|" "$d/{aside}.sources" > "$d/trial.sources"
{waiting(lock_timeout)}
APT_CONFIG="$d/proxy" unlocked apt-get -q update -o APT::Update::Error-Mode=any \\
    -o Dir::Etc::sourcelist="$d/trial.sources" -o Dir::Etc::sourceparts=/dev/null \\
    -o APT::Get::List-Cleanup=0
put() {{ # FILE PLACE: as tree() does
    mkdir -p -- "$(dirname -- "$2")"
    cp -- "$1" "$2.farrier-new"
    chmod 644 -- "$2.farrier-new"
    mv -fT -- "$2.farrier-new" "$2"
}}
put "$d/key.gpg" {key_path}
if [ -s "$d/proxy" ]; then put "$d/proxy" {proxy_path}; else rm -f -- {proxy_path}; fi
put "$d/{aside}.sources" {path}
""",
        explain=lambda output: explain_update(output, source),
        stdin=parts + "\n",
    )


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
        f"Look at: curl -fI {source.uri.format(arch='ARCH')} on the host (DNS, proxy, mirror,"
        " clock); nothing was changed; then run the deploy again"
    )
