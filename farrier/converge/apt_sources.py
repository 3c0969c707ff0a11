"""Package repositories of others, made known to a host's apt by the fingerprint of their key.

A bare host has no gpg, and needs none: what reads a key is :mod:`.fingerprints`, and what
verifies with it is apt itself, before the repository counts as known.
"""

from __future__ import annotations

import base64
import shlex
from typing import TYPE_CHECKING

from pyinfra import host
from pyinfra.api import FactBase

from farrier.converge.apt_repository import (
    AptSource,
    SourceState,
    explain_update,
    parse_source,
    wrong_key,
)
from farrier.converge.commands import Refuse, Script, in_words, last_lines
from farrier.converge.packages import LOCK_TIMEOUT, waiting
from farrier.converge.questions import Question, answer
from farrier.converge.typed import operation
from farrier.openpgp import read_certificates

if TYPE_CHECKING:
    from collections.abc import Mapping

    from farrier.converge.commands import Commands

__all__ = ["AptSource", "apt_source", "no_apt_source"]


class SourceStates(FactBase[SourceState | None]):
    """The :class:`SourceState` of *source*; None when the host could not be asked."""

    def command(self, source: AptSource) -> str:
        """One line per file, in base64; then the other files."""
        lines = [
            "echo arch $(dpkg --print-architecture)",
            '( . /etc/os-release; echo "distro $ID$VERSION_ID" | tr -d . )',
        ]
        for path in (*source.texts(""), source.key_path):
            quoted = shlex.quote(path)
            lines.append(f"[ ! -e {quoted} ] || echo file {quoted} $(base64 -w0 -- {quoted})")
        for word, text in (
            ("elsewhere", source.uri.partition("{")[0].rstrip("/")),
            ("keyuser", source.key_path),
        ):
            lines.append(
                f"grep -rlsF -e {shlex.quote(text)} /etc/apt/sources.list /etc/apt/sources.list.d"
                f" | grep -vxF -e {shlex.quote(source.path)} | sed 's/^/{word} /'; true"
            )
        return "\n".join(lines)

    @staticmethod
    def default() -> SourceState | None:
        """Unknown."""
        return None

    def process(self, output: list[str]) -> SourceState:
        """Parse what :meth:`command` printed."""
        return parse_source(output)


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
    try:
        source = source.on(now)
    except LookupError:
        yield Refuse(
            f"{source.name}: no key is known for {now.distro}; write its fingerprint into the"
            " inventory"
        )
        return
    if now.elsewhere and source.path not in now.files:
        host.noop(f"{source.uri} is known to apt from {', '.join(now.elsewhere)}")
        return
    texts = source.texts(now.arch)
    key = now.files.get(source.key_path, b"")
    keyed = bool(key) and not wrong_key(key, source)
    if keyed and all(now.files.get(path, b"").decode() == text for path, text in texts.items()):
        host.noop(f"{source.uri} is known to apt")
        return
    if not keyed:
        key, said = host.get_fact(ServedKey, url=str(source.key_url), proxy=source.proxy)
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
    yield _written(source, texts, b"".join(one.packets for one in read_certificates(key)))


@operation(asks=lambda source: Question(SourceStates, {"source": source}))
def no_apt_source(source: AptSource) -> Commands:
    """Remove all that :func:`apt_source` wrote; the key stays while another source names it.

    + source: the repository
    """
    now: SourceState | None = answer()
    if now is None:
        yield Refuse("the host could not be asked for its package sources; see the line above")
        return
    paths = [path for path in source.texts("") if path in now.files]
    if source.key_path in now.files and not now.key_users:
        paths.append(source.key_path)
    if not paths:
        host.noop(f"nothing of {source.path} is there")
        return
    yield Script(
        f"rm -f -- {' '.join(map(shlex.quote, paths))}",
        explain=in_words(f"{source.path} not removed"),
    )


def _written(source: AptSource, texts: Mapping[str, str], key: bytes) -> Script:
    """Everything into a directory aside; ``apt-get update`` of that alone; then into its place."""
    lock_timeout = int(host.data.get("apt_lock_timeout", LOCK_TIMEOUT))
    # The source comes last: before it stands the others change nothing.
    contents = {source.key_path: key, **{path: text.encode() for path, text in texts.items()}}
    puts = "\n".join(f"put {shlex.quote(path)}" for path in contents)
    return Script(
        f"""
umask 022
d=$(mktemp -d)
trap 'rm -rf "$d"' EXIT
chmod 755 "$d"
while read -r path content; do
    mkdir -p -- "$d$(dirname -- "$path")"
    echo "$content" | base64 -d > "$d$path"
done
sed "s|^Signed-By: |&$d|" "$d{source.path}" > "$d/trial.sources"
{waiting(lock_timeout)}
export APT_CONFIG="$d{source.proxy_path}"
unlocked apt-get -q update -o APT::Update::Error-Mode=any \\
    -o Dir::Etc::sourcelist="$d/trial.sources" -o Dir::Etc::sourceparts=/dev/null \\
    -o APT::Get::List-Cleanup=0
put() {{ # PLACE: as tree() does; an empty file stands for none
    if [ ! -s "$d$1" ]; then rm -f -- "$1"; return; fi
    mkdir -p -- "$(dirname -- "$1")"
    cp -- "$d$1" "$1.farrier-new"
    chmod 644 -- "$1.farrier-new"
    mv -fT -- "$1.farrier-new" "$1"
}}
{puts}
""",
        explain=lambda output: explain_update(output, source),
        stdin="".join(
            f"{path} {base64.b64encode(content).decode()}\n" for path, content in contents.items()
        ),
    )
