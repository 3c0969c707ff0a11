"""What apt should know of the driver's source, decided from what a host's apt knows. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from farrier.nvidia.repository import FINGERPRINTS, normal, usual_key_url
from roles.nvidia_driver.apt_files import (
    archive_sources,
    local_sources,
    preferences,
    proxy_settings,
    repository_sources,
    same_repository,
)
from roles.nvidia_driver.names import SYSTEMS
from roles.nvidia_driver.source_state import (
    KEYRING,
    PACKAGES,
    PREFERENCES,
    PROXY,
    SOURCES,
    SourceState,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["SourceError", "Wanted", "differs", "plan_source", "repository_url"]

REPOSITORY = "https://developer.download.nvidia.com/compute/cuda/repos/{distro}/{arch}"
ARCHITECTURES = {"amd64": "x86_64", "arm64": "sbsa"}
"""Debian's name of an architecture -> NVIDIA's."""

COMPONENTS = {
    ("debian", "debian"): ("contrib", "non-free", "non-free-firmware"),
    ("ubuntu", "ubuntu"): ("restricted", "multiverse"),
    # NVIDIA's packages for Debian depend on some of contrib (installation guide, "Debian").
    ("nvidia", "debian"): ("contrib",),
}
"""(source, distribution) -> components of the distribution's archive that it takes."""


class SourceError(ValueError):
    """The source cannot be what the inventory says; says what to write instead."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the host's apt should know. *uri* is "" where the archive is the source.

    *files* are the texts of our files, "" for one that should not be there.
    """

    uri: str = ""
    fingerprint: str = ""
    key_url: str = ""
    files: Mapping[str, str] = field(default_factory=dict)


def repository_url(url: str | None, system: str, architecture: str) -> str:
    """NVIDIA's repository for *system* (``debian12``), or the mirror *url* of it."""
    return (url or REPOSITORY).format(
        distro=system, arch=ARCHITECTURES.get(architecture, architecture)
    )


def plan_source(
    source: str,
    now: SourceState,
    *,
    url: str | None = None,
    key_url: str | None = None,
    fingerprint: str | None = None,
    proxy: str | None = None,
) -> Wanted:
    """What apt should know of *source* on a host as it is *now*. Raises :class:`SourceError`."""
    if now.system not in SYSTEMS:
        raise SourceError(
            f"{now.system} is none of the systems that NVIDIA's driver is installed on by this"
            f' role: {", ".join(SYSTEMS)}. nvidia_driver_source = "none" uses the driver that is'
            " there"
        )
    if proxy and not re.fullmatch(r"https?://[A-Za-z0-9._:\[\]-]+/?", proxy):
        raise SourceError(
            f"nvidia_repo_proxy {proxy!r} is not http://host:port (a password belongs into"
            " /etc/apt/auth.conf.d on the host)"
        )
    distribution = "ubuntu" if now.system.startswith("ubuntu") else "debian"
    if source in {"debian", "ubuntu"} and source != distribution:
        raise SourceError(
            f'nvidia_driver_source = "{source}" on a host with {now.system}: say'
            f' "{distribution}" or "nvidia"'
        )
    texts = []
    components = COMPONENTS.get((source, distribution), ())
    if components:
        archive = archive_sources(now.entries, now.codename, components, now.architecture)
        if archive is None and source != "nvidia":
            raise SourceError(
                f"no source of the archive ({now.codename}, main) was found in /etc/apt: add one to"
                f" sources.list.d with the components main {' '.join(components)}"
            )
        texts.append(archive or "")
    uri = wanted_fingerprint = wanted_key = ""
    if source == "nvidia":
        uri = repository_url(url, now.system, now.architecture)
        wanted_fingerprint = normal(fingerprint or FINGERPRINTS[now.system])
        wanted_key = key_url or usual_key_url(uri, wanted_fingerprint)
        _refuse_conflict(uri, now)
        texts.append(repository_sources(uri, KEYRING, now.architecture))
    elif source == "directory":
        uri = f"file:{PACKAGES}/"
        texts.append(local_sources(PACKAGES, now.architecture))
    files = {
        PROXY: proxy_settings(proxy, [uri, wanted_key]) if proxy and wanted_key else "",
        PREFERENCES: preferences(source),
        SOURCES: "\n".join(text for text in texts if text),
    }
    return Wanted(uri, wanted_fingerprint, wanted_key, files)


def _refuse_conflict(uri: str, now: SourceState) -> None:
    for entry in now.entries:
        if same_repository(entry.uri, uri) and entry.signed_by != KEYRING:
            raise SourceError(
                f"{entry.path} names the same repository with another keyring"
                f" ({entry.signed_by or 'none of its own'}); apt refuses both together\n"
                f"Look at: dpkg -S {entry.path}; if nothing else needs it:"
                f" apt-get purge cuda-keyring; rm -f {entry.path}; then run the deploy again"
            )


def differs(wanted: Wanted, now: SourceState, path: str) -> bool:
    """Whether our file *path* is not as it should be."""
    return now.files.get(path, "") != wanted.files[path]
