"""The image that an engine runs from: named in a registry, or an archive; pinned either way.

A tag means another image tomorrow, so what counts is a hash: a registry's digest of the image's
manifest, or an archive file's own SHA-256.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["ArchiveImage", "RegistryImage", "parse_archive", "parse_image"]

_DIGEST = r"@sha256:(?P<digest>[0-9a-f]{64})"
_REGISTRY = re.compile(
    r"(?P<name>(?P<registry>[A-Za-z0-9][A-Za-z0-9.-]*(:[0-9]{1,5})?)"
    r"(/[a-z0-9]+([._-]+[a-z0-9]+)*)+)"
    r"(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?" + _DIGEST
)
_ARCHIVE = re.compile(r"(?P<url>(/|https?://|file://)[^\s@]+)" + _DIGEST)


@dataclass(frozen=True, slots=True)
class RegistryImage:
    """An image by its *name* (``ghcr.io/organisation/image``) and its manifest's *digest*."""

    name: str
    digest: str

    @property
    def reference(self) -> str:
        """What podman knows it by."""
        return f"{self.name}@sha256:{self.digest}"


@dataclass(frozen=True, slots=True)
class ArchiveImage:
    """An image that lies in a file: *url* is an address, or a path on the operator's machine.

    The file is what ``podman save`` or ``docker save`` writes, of one image.
    """

    url: str
    digest: str

    @property
    def reference(self) -> str:
        """What podman knows it by, once the host has it: the file's hash, not a name in it."""
        return f"localhost/farrier:{self.digest}"

    @property
    def local(self) -> bool:
        """Whether it is a path."""
        return self.url.startswith("/")


def parse_image(text: object) -> RegistryImage:
    """Parse ``registry/name@sha256:DIGEST``; a tag before the ``@`` is for its reader.

    Raises :class:`ValueError` with a sentence for the operator.
    """
    if not isinstance(text, str):
        raise ValueError(f"must be text, not {type(text).__name__}")
    found = _REGISTRY.fullmatch(text)
    if found is None and "@" not in text:
        raise ValueError(
            f"{text!r} has no digest, so hosts set up on different days would run different"
            f" programs; write {text}@sha256:DIGEST (on a machine that pulled it:"
            f" podman image inspect --format '{{{{.Digest}}}}' {text})"
        )
    if found is None:
        raise ValueError(
            f"{text!r} is not of the form registry/name@sha256: and 64 hexadecimal digits, such as"
            " ghcr.io/huggingface/text-generation-inference@sha256:…"
        )
    registry = found["registry"]
    if registry != "localhost" and not {".", ":"} & set(registry):
        raise ValueError(
            f"{text!r} names no registry, and each host would look where it is used to; write"
            f" docker.io/{text} where Docker's is meant"
        )
    return RegistryImage(found["name"], found["digest"])


def parse_archive(text: object) -> ArchiveImage:
    """Parse ``/path/to/image.tar@sha256:HASH``, or an address with it.

    Raises :class:`ValueError` with a sentence for the operator.
    """
    if not isinstance(text, str):
        raise ValueError(f"must be text, not {type(text).__name__}")
    found = _ARCHIVE.fullmatch(text)
    if found is None and "@" not in text:
        raise ValueError(
            f"{text!r} has no hash; write {text}@sha256:HASH (sha256sum {text.rpartition('/')[2]})"
        )
    if found is None:
        raise ValueError(
            f"{text!r} is not of the form /path/to/image.tar@sha256: and 64 hexadecimal digits: an"
            " absolute path on the operator's machine, or an https: address"
        )
    return ArchiveImage(found["url"], found["digest"])
