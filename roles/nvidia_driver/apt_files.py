"""The texts of apt's files that bring a driver's source, and what its present sources say. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from roles.nvidia_driver.names import FAMILIES

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = [
    "LOCAL_LABEL",
    "NVIDIA_LABEL",
    "Entry",
    "archive_sources",
    "local_sources",
    "preferences",
    "proxy_settings",
    "read_entries",
    "repository_sources",
    "same_repository",
]

NVIDIA_LABEL = "NVIDIA CUDA"
"""``Label:`` in the Release of NVIDIA's repositories; a mirror carries the signed file unchanged.

NVIDIA's own preferences (cuda-ubuntu2404.pin) go by it as well."""
LOCAL_LABEL = "Farrier driver directory"

SUPPORT = (
    "glx-alternative-*",
    "glx-diversions",
    "libnvidia-egl-*",
    "nvidia-installer-cleanup",
    "nvidia-support",
    "update-glx",
)
"""What the driver's packages depend on that has versions of its own: from the same source."""

_HEAD = "# Written by Farrier's role nvidia_driver.\n"


@dataclass(frozen=True, slots=True)
class Entry:
    """One repository that apt reads, with one of its suites, as *path* says."""

    path: str
    uri: str
    suite: str
    components: tuple[str, ...] = ()
    signed_by: str = ""
    trusted: str = ""


def same_repository(one: str, other: str) -> bool:
    """Whether two URIs are the same to apt."""
    return one.rstrip("/") == other.rstrip("/")


def read_entries(path: str, text: str) -> tuple[Entry, ...]:
    """What the file *path* of sources.list.d, or sources.list itself, says (sources.list(5))."""
    found = _deb822(path, text) if path.endswith(".sources") else _one_line(path, text)
    return tuple(found)


_LINE = re.compile(r"deb\s+(?:\[(?P<options>[^]]*)\]\s*)?(?P<rest>.+)")


def _one_line(path: str, text: str) -> Iterable[Entry]:
    for line in text.splitlines():
        match = _LINE.fullmatch(line.partition("#")[0].strip())
        words = match["rest"].split() if match else []
        if match and len(words) >= 2:
            pairs = (option.partition("=") for option in (match["options"] or "").split())
            options = {name.rstrip("+-").lower(): value for name, _, value in pairs}
            yield Entry(
                path,
                words[0],
                words[1],
                tuple(words[2:]),
                options.get("signed-by", ""),
                options.get("trusted", ""),
            )


def _deb822(path: str, text: str) -> Iterable[Entry]:
    kept = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    for stanza in re.split(r"\n[ \t]*\n", kept):
        fields: dict[str, str] = {}
        name = ""
        for line in stanza.splitlines():
            if line[:1].isspace():
                fields[name] = f"{fields.get(name, '')}\n{line.strip()}"
            elif ":" in line:
                name, _, value = line.partition(":")
                name = name.strip().lower()
                fields[name] = value.strip()
        enabled = fields.get("enabled", "yes").lower() not in {"no", "false", "0"}
        if enabled and "deb" in fields.get("types", "").split():
            for uri in fields.get("uris", "").split():
                for suite in fields.get("suites", "").split():
                    yield Entry(
                        path,
                        uri,
                        suite,
                        tuple(fields.get("components", "").split()),
                        fields.get("signed-by", "").strip(),
                        fields.get("trusted", ""),
                    )


def repository_sources(uri: str, keyring: str, architecture: str) -> str:
    """NVIDIA's repository at *uri*, or a mirror of it: flat, signed with what is in *keyring*."""
    return _HEAD + (
        f"Types: deb\nURIs: {uri.rstrip('/')}/\nSuites: /\n"
        f"Architectures: {architecture}\nSigned-By: {keyring}\n"
    )


def local_sources(directory: str, architecture: str) -> str:
    """The flat repository in *directory* on the host: ours and root's, hence trusted unsigned."""
    return _HEAD + (
        f"Types: deb\nURIs: file:{directory}/\nSuites: ./\n"
        f"Architectures: {architecture}\nTrusted: yes\n"
    )


_ARCHIVES = ("debian", "debian-security", "ubuntu", "ubuntu-ports")


def archive_sources(
    entries: Sequence[Entry], codename: str, components: Sequence[str], architecture: str
) -> str | None:
    """Stanzas that add *components* to the host's own sources of its archive, by *codename*.

    The mirror and the keyring stay the host's: apt refuses a repository that two files sign
    differently. "" where nothing is missing, None where no source of the archive was found.
    """
    suites = {codename, f"{codename}-updates", f"{codename}-security"}
    mine = [one for one in entries if one.suite in suites and "main" in one.components]
    mine = [one for one in mine if one.uri.rstrip("/").endswith(_ARCHIVES)] or mine
    if not mine:
        return None
    stanzas: dict[tuple[str, str, str, tuple[str, ...]], list[str]] = {}
    for one in mine:
        present = {
            component
            for other in entries
            if same_repository(other.uri, one.uri) and other.suite == one.suite
            for component in other.components
        }
        missing = tuple(component for component in components if component not in present)
        if missing:
            suites_of = stanzas.setdefault((one.uri, one.signed_by, one.trusted, missing), [])
            if one.suite not in suites_of:
                suites_of.append(one.suite)
    return "\n".join(
        _HEAD
        + f"Types: deb\nURIs: {uri}\nSuites: {' '.join(names)}\nComponents: {' '.join(missing)}\n"
        + f"Architectures: {architecture}\n"
        + (f"Signed-By: {_indented(signed_by)}\n" if signed_by else "")
        + (f"Trusted: {trusted}\n" if trusted else "")
        for (uri, signed_by, trusted, missing), names in stanzas.items()
    )


def _indented(value: str) -> str:
    """A key that is written out in the file itself takes several lines."""
    return value.replace("\n", "\n ")


def preferences(source: str) -> str:
    """The driver's packages come from *source*, and nothing else does unless it is asked for.

    Priority 900 beats another source's higher version (500) and never downgrades what is
    installed; 1 is below everything (apt_preferences(5)): a CUDA toolkit that is asked for by name
    is found there, and nothing is ever replaced by it.
    """
    wanted = " ".join((*FAMILIES, *SUPPORT))
    if source in {"nvidia", "directory"}:
        label = NVIDIA_LABEL if source == "nvidia" else LOCAL_LABEL
        records = [(wanted, f"release l={label}", 900), ("*", f"release l={label}", 1)]
    else:
        origin = {"debian": "Debian", "ubuntu": "Ubuntu"}[source]
        records = [(wanted, f"release o={origin}", 900)]
    if source != "nvidia":
        records.append((wanted, f"release l={NVIDIA_LABEL}", -1))
    return _HEAD + "\n".join(
        f"Package: {packages}\nPin: {pin}\nPin-Priority: {priority}\n"
        for packages, pin, priority in records
    )


def proxy_settings(proxy: str, uris: Sequence[str]) -> str:
    """apt reaches the hosts of *uris* through *proxy*, and only these."""
    hosts = dict.fromkeys(
        match[1] for uri in uris if (match := re.match(r"https?://(?:[^@/]*@)?([^:/]+)", uri))
    )
    return _HEAD.replace("#", "//", 1) + "".join(
        f'Acquire::{scheme}::Proxy::{host} "{proxy}";\n'
        for host in hosts
        for scheme in ("http", "https")
    )
