"""apt and dpkg: whether they are in order, their sources, and the keys of NVIDIA's."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["AptFacts", "AptSource", "RepoKey"]


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

    *interrupted* says that dpkg was stopped half-way (``dpkg --configure -a`` repairs it), *broken*
    is what ``apt-get check`` complains about, "" if nothing. *sqv* says that apt checks signatures
    with Sequoia's, whose policy refuses SHA-1.
    """

    interrupted: bool = False
    broken: str = ""
    sources: tuple[AptSource, ...] = ()
    keys: tuple[RepoKey, ...] = ()
    sqv: bool = False
