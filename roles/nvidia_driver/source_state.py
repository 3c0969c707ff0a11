"""What a host's apt knows of the driver's source: asked with one shell, parsed purely."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass, field
from datetime import date
from typing import TYPE_CHECKING

from pyinfra.api import FactBase

from roles.nvidia_driver.apt_files import Entry, read_entries, same_repository
from roles.nvidia_driver.keys import Verifier

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = [
    "KEYRING",
    "OWN_FILES",
    "PACKAGES",
    "PREFERENCES",
    "PROXY",
    "SOURCES",
    "SUMS",
    "SourceState",
    "SourceStates",
    "parse_state",
]

KEYRING = "/etc/apt/keyrings/farrier-nvidia.gpg"
SOURCES = "/etc/apt/sources.list.d/farrier-nvidia.sources"
PREFERENCES = "/etc/apt/preferences.d/farrier-nvidia-source"
PROXY = "/etc/apt/apt.conf.d/60farrier-nvidia-proxy"
OWN_FILES = (SOURCES, PREFERENCES, PROXY)
PACKAGES = "/var/lib/farrier/nvidia-packages"
"""The flat repository of source ``directory``."""
SUMS = f"{PACKAGES}/SHA256SUMS"

POLICIES = (
    "/etc/crypto-policies/back-ends/apt-sequoia.config",
    "/var/lib/crypto-config/profiles/current/apt-sequoia.config",
    "/usr/share/apt/default-sequoia.config",
)
"""Where apt looks for sqv's policy; the first that exists counts (apt 3.0, methods/sqv.cc)."""


@dataclass(frozen=True, slots=True)
class SourceState:
    """*system* as NVIDIA spells it (``debian12``), *codename* as the archive does.

    *files* are those of :data:`OWN_FILES` that exist; *keyring* is None if there is none; *entries*
    are of other files; *listed* are the URIs of which apt has package lists. *pushed* maps a .deb's
    name in :data:`PACKAGES` to (size, sha256 as it was when it was pushed).
    """

    system: str
    codename: str
    architecture: str
    verifier: Verifier
    files: Mapping[str, str] = field(default_factory=dict)
    keyring: bytes | None = None
    entries: tuple[Entry, ...] = ()
    listed: frozenset[str] = frozenset()
    pushed: Mapping[str, tuple[int, str]] = field(default_factory=dict)

    def has_lists(self, uri: str) -> bool:
        """Whether apt has fetched the package list of *uri*."""
        return any(same_repository(one, uri) for one in self.listed)


class SourceStates(FactBase[SourceState | None]):
    """The state of this host's apt; None when the host could not be asked."""

    def command(self) -> str:
        """One shell; each line is a name and a value in base64."""
        policies = " ".join(POLICIES)
        own = " ".join(OWN_FILES)
        return f"""
say() {{ printf '%s %s\\n' "$1" "$(base64 -w0)"; }}
file() {{ if [ -f "$2" ]; then say "$1" < "$2"; fi; }}
file release /etc/os-release
dpkg --print-architecture | say architecture
date +%s | say now
for p in /usr/bin/sqv /usr/libexec/sqv; do if [ -x $p ]; then echo $p | say sqv; fi; done
for p in {policies}; do if [ -f "$p" ]; then file policy "$p"; break; fi; done
file keyring {KEYRING}
for f in {own}; do file "own:$f" "$f"; done
for f in /etc/apt/sources.list /etc/apt/sources.list.d/*; do
    case "$f" in {SOURCES}) ;; *.list | *.sources) file "source:$f" "$f" ;; esac
done
apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 2>/dev/null | say listed
file sums {SUMS}
if [ -d {PACKAGES} ]; then stat -c '%s %n' {PACKAGES}/*.deb 2>/dev/null | say sizes; fi
echo end"""

    @staticmethod
    def default() -> SourceState | None:
        """Unknown."""
        return None

    def process(self, output: list[str]) -> SourceState | None:
        """Parse what :meth:`command` printed."""
        return parse_state(output)


def parse_state(lines: Sequence[str]) -> SourceState | None:
    """The state; None if the output is not whole."""
    if not lines or lines[-1] != "end":
        return None
    raw = {
        name: base64.b64decode(value)
        for name, _, value in (line.partition(" ") for line in lines[:-1])
    }
    said = {name: value.decode("utf-8", "replace") for name, value in raw.items()}
    release = dict(re.findall(r'^(\w+)="?([^"\n]*)"?$', said.get("release", ""), re.MULTILINE))
    entries = [
        entry
        for name, text in said.items()
        if name.startswith("source:")
        for entry in read_entries(name.removeprefix("source:"), text)
    ]
    return SourceState(
        release.get("ID", "") + release.get("VERSION_ID", "").replace(".", ""),
        release.get("VERSION_CODENAME", ""),
        said.get("architecture", "").strip(),
        Verifier(
            "sqv" in said, _sha1_until(said.get("policy", "")), float(said.get("now", "0") or 0)
        ),
        {name.removeprefix("own:"): text for name, text in said.items() if name.startswith("own:")},
        raw.get("keyring"),
        tuple(entries),
        frozenset(said.get("listed", "").split()),
        _pushed(said.get("sums", ""), said.get("sizes", "")),
    )


def _sha1_until(policy: str) -> date | None:
    """The day from which sqv's policy refuses SHA-1 where a second pre-image would do harm."""
    match = re.search(
        r'^sha1\.second_preimage_resistance\s*=\s*"?([0-9]{4}-[0-9]{2}-[0-9]{2})',
        policy,
        re.MULTILINE,
    )
    return date.fromisoformat(match[1]) if match else None


def _pushed(sums: str, sizes: str) -> dict[str, tuple[int, str]]:
    digests = {line[66:]: line[:64] for line in sums.splitlines()}
    there = (line.partition(" ") for line in sizes.splitlines())
    named = ((path.rpartition("/")[2], int(size)) for size, _, path in there)
    return {name: (size, digests[name]) for name, size in named if name in digests}
