"""apt and dpkg: whether they are in order, their sources, and the keys of NVIDIA's."""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pyinfra.api import FactBase

from farrier.openpgp import CertificateError, read_certificates

if TYPE_CHECKING:
    from collections.abc import Sequence

    from farrier.facts.roots import Roots

__all__ = ["Apt", "AptFacts", "AptSource", "RepoKey", "Sources", "parse", "parse_sources"]

REACH_TIMEOUT = 6
"""Seconds that each source is given to answer; all are tried at once."""


@dataclass(frozen=True, slots=True)
class AptSource:
    """A repository that apt is told of: *uri* and the *suites* asked of it.

    *reachable* is None where nobody tried; *why* is apt's own reason why not.
    """

    uri: str
    suites: tuple[str, ...] = ()
    reachable: bool | None = None
    why: str = ""


@dataclass(frozen=True, slots=True)
class RepoKey:
    """A primary key of a keyring that a source of NVIDIA's is signed by.

    *expires* is in seconds since 1970, None for never. *sha1_bound* says that nothing better than
    SHA-1 binds its user ids, which Debian 13's sqv refuses since 2026-02-01.
    """

    path: str
    fingerprint: str
    expires: float | None = None
    sha1_bound: bool = False


@dataclass(frozen=True, slots=True)
class AptFacts:
    """State of the package system.

    *busy* says that an apt or dpkg is at work just now, so that what is half done is not called
    interrupted. *interrupted* says that dpkg was stopped half-way (``dpkg --configure -a`` repairs
    it), *broken* is what ``apt-get check`` complains about, "" if nothing. *sqv* says that apt
    checks signatures with Sequoia's, whose policy refuses SHA-1.
    """

    interrupted: bool = False
    broken: str = ""
    sources: tuple[AptSource, ...] = ()
    keys: tuple[RepoKey, ...] = ()
    sqv: bool = False
    busy: bool = False


# apt-get indextargets would name only sources whose lists were downloaded; what update would fetch
# is known on a bare host as well.
_LIST = r"""
list_sources() { # prints the address of each source's InRelease, less that name
    has apt-get && apt-get -o Debug::NoLocking=1 update --print-uris 2>/dev/null |
        sed -n "s/^'\(.*\)\/InRelease' .*/\1/p" | sort -u
}
"""

# NVIDIA's sources are known by their address or, where they come from a mirror, by the name of
# the file or the keyring. Keyrings are read whole, as a bare host has no gpg to list them.
_SCRIPT = (
    _LIST
    + r"""
inode=$(stat -c %i "$VAR/lib/dpkg/lock-frontend" 2>/dev/null)
if [ -n "$inode" ] && grep -qs ":$inode " "$PROC/locks"; then
    echo busy
elif has dpkg && [ -n "$(dpkg --audit 2>/dev/null)" ]; then
    echo interrupted
else
    for f in "$VAR"/lib/dpkg/updates/[0-9]*; do [ -e "$f" ] && { echo interrupted; break; }; done
fi
# Without preferences: pins with patterns cost seconds, and decide nothing here.
has apt-get && { apt-get -qq -s -o Debug::NoLocking=1 -o Dir::Etc::preferences=/nonexistent \
    -o Dir::Etc::preferencesparts=/nonexistent check 2>&1 || echo failed; } | sed 's/^/check /'
has sqv && echo sqv
list_sources | sed 's/^/source /'
signed=$(for f in "$ETC"/apt/sources.list "$ETC"/apt/sources.list.d/*.list \
    "$ETC"/apt/sources.list.d/*.sources
do
    case ${f##*/} in *nvidia* | *cuda*) any=yes;; *) any=;; esac
    if [ -n "$any" ] || grep -qsiE '^[^#]*(nvidia|cuda)' "$f"; then
        grep -E '^[^#]' "$f" 2>/dev/null |
            grep -oiE '(\[|[[:space:],])signed-by=[^]"[:space:]]+|^signed-by:.*' |
            sed 's/^[^=:]*[=:]//' | tr ', ' '\n\n'
    fi
done | grep '^/' | sort -u)
for f in $signed "$ETC"/apt/trusted.gpg.d/*nvidia* "$ETC"/apt/trusted.gpg.d/*cuda*; do
    [ -f "$f" ] && echo "keyring $(base64 -w0 "$f") $f"
done; true
"""
)


class Apt(FactBase[AptFacts | None]):
    """:class:`AptFacts`, without trying to reach anything; None when the host did not answer."""

    def command(self, roots: Roots) -> str:
        """apt reads its lists twice, which is most of the time."""
        return roots.shell() + _SCRIPT

    @staticmethod
    def default() -> AptFacts | None:
        """Unknown."""
        return None

    def process(self, output: list[str]) -> AptFacts:
        """Parse what the script printed."""
        return parse(output)


_REACH = r"""
d=$(mktemp -d "$RUN/farrier-reach.XXXXXXXX") || exit 0
trap 'rm -rf "$d"' EXIT
if getent passwd _apt >/dev/null; then chown _apt "$d"; fi
fetch() { # FILE URI
    timeout -k 1 __TIMEOUT__ /usr/lib/apt/apt-helper -o Acquire::Retries=0 \
        -o Acquire::http::Timeout=__TIMEOUT__ -o Acquire::https::Timeout=__TIMEOUT__ \
        download-file "$2" "$1" 2>&1
}
reach() { # NUMBER ADDRESS
    said=$(fetch "$d/$1" "$2/InRelease") && { echo "reached $2"; return; }
    case $said in *404*) said=$(fetch "$d/$1" "$2/Release") && { echo "reached $2"; return; };; esac
    why=$(echo "$said" | sed -n 's/^E: Failed to fetch [^ ]* *//p' | tail -n 1)
    echo "unreached $2 ${why:-no answer within __TIMEOUT__ s}"
}
number=0
list_sources > "$d/sources"
while read -r address; do
    number=$((number + 1))
    case $address in
        http*) reach $number "$address" > "$d/$number.said" & ;;
        *) echo "source $address" > "$d/$number.said";;
    esac
done < "$d/sources"
wait
cat "$d"/*.said 2>/dev/null; true
"""


class Sources(FactBase[tuple[AptSource, ...] | None]):
    """Whether each of apt's HTTP sources answers; takes seconds where one does not."""

    def command(self, roots: Roots) -> str:
        """A download of a source's InRelease (else Release) each, all at once."""
        return roots.shell() + _LIST + _REACH.replace("__TIMEOUT__", str(REACH_TIMEOUT))

    @staticmethod
    def default() -> tuple[AptSource, ...] | None:
        """Unknown."""
        return None

    def process(self, output: list[str]) -> tuple[AptSource, ...]:
        """Parse what the script printed."""
        return parse_sources(output)


def parse(output: Sequence[str]) -> AptFacts:
    """Parse the script's lines; each begins with the word for what it tells."""
    checked = [line.removeprefix("check ") for line in output if line.startswith("check ")]
    keys: list[RepoKey] = []
    for line in output:
        match line.split(" ", 2):
            case ["keyring", content, path]:
                keys += _keys(content, path)
    return AptFacts(
        "interrupted" in output,
        _broken(checked),
        parse_sources(output),
        tuple(keys),
        "sqv" in output,
        "busy" in output,
    )


def parse_sources(output: Sequence[str]) -> tuple[AptSource, ...]:
    """Parse lines ``source|reached|unreached ADDRESS WHY``; several suites of a source are one.

    ADDRESS is where its Release files are. A source is reachable if all of its suites are.
    """
    sources: dict[str, AptSource] = {}
    for line in output:
        kind, _, rest = line.partition(" ")
        address, _, why = rest.strip().partition(" ")
        if kind not in _REACHABLE or not re.match(r"[a-z+]+:.*/", address):
            continue
        uri, dists, suite = address.partition("/dists/")
        one = AptSource(uri, (suite if dists else "/",), _REACHABLE[kind], why.strip())
        sources[uri] = _joined(sources[uri], one) if uri in sources else one
    return tuple(sources.values())


_REACHABLE = {"source": None, "reached": True, "unreached": False}


def _joined(known: AptSource, other: AptSource) -> AptSource:
    reachable = False if other.reachable is False else known.reachable
    suites = tuple(dict.fromkeys(known.suites + other.suites))
    return AptSource(known.uri, suites, reachable, known.why or other.why)


def _broken(said: Sequence[str]) -> str:
    """What ``apt-get check`` complained about, without its advice; "" if it ended well."""
    if not said or said[-1].strip() != "failed":
        return ""
    lines = [line.strip() for line in said[:-1] if line.strip()]
    return "\n".join(line for line in lines if not line.startswith("W:")) or "apt-get check failed"


def _keys(content: str, path: str) -> list[RepoKey]:
    """The keys of a keyring in base64; none if it cannot be read as one."""
    try:
        found = read_certificates(base64.b64decode(content, validate=True))
    except (binascii.Error, CertificateError):
        return []
    return [RepoKey(path, one.fingerprint, one.expires, one.sha1_bound) for one in found]
