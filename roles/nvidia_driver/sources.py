"""Where the driver's packages come from, made known to the host's apt. (Being written.)

What the role calls, in this order, for a host with accelerator "cuda" and source != "none"::

    apt_source(source, url=…, key_url=…, fingerprint=…, proxy=…, directory=…, name="Packages' source")

One operation. It does nothing when all is as it should be; otherwise it writes proxy, keyring,
preferences and source, after ``apt-get update`` of that source alone succeeded. The removal is
``tree(*absent())`` followed by ``apt-get update``, which forgets the lists.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from farrier.converge import Absent
from farrier.converge.typed import operation

if TYPE_CHECKING:
    from farrier.converge.commands import Commands

__all__ = ["PACKAGES", "absent", "apt_source"]

KEYRING = "/etc/apt/keyrings/farrier-nvidia.gpg"
SOURCES = "/etc/apt/sources.list.d/farrier-nvidia.sources"
PREFERENCES = "/etc/apt/preferences.d/farrier-nvidia-source"
PROXY = "/etc/apt/apt.conf.d/60farrier-nvidia-proxy"
PACKAGES = "/var/lib/farrier/nvidia-packages"
"""The flat repository of source ``directory``."""


@operation
def apt_source(
    source: str,
    url: str | None = None,
    key_url: str | None = None,
    fingerprint: str | None = None,
    proxy: str | None = None,
    directory: str | None = None,
) -> Commands:
    """Make the source of the driver's packages known to apt, and nothing else of it wanted.

    + source: nvidia, ubuntu, debian or directory
    + url: NVIDIA's repository or a mirror of it; {distro} and {arch} are filled in
    + key_url: where its key is; default: {url}/<last 8 digits of the fingerprint>.pub
    + fingerprint: of the key, 40 hex digits; default: NVIDIA's for the host's system
    + proxy: http://host:port through which apt reaches it
    + directory: for source directory: a directory with .deb files on the operator's machine
    """
    raise NotImplementedError
    yield


def absent() -> tuple[Absent, ...]:
    """All that this module writes, for the removal."""
    return tuple(Absent(path) for path in (SOURCES, PREFERENCES, PROXY, KEYRING, PACKAGES))
