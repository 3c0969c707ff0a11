"""apt and dpkg: in order, with sources that answer and keys that are accepted."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from farrier.preflight.rules.driver import BOTH
from farrier.preflight.verdict import Code, Reason

if TYPE_CHECKING:
    from collections.abc import Iterator

    from farrier.facts.apt import RepoKey
    from farrier.preflight.found import Case

__all__ = ["CODES", "RULES"]

KEYRING = "/etc/apt/keyrings/farrier-nvidia.gpg"
"""The role's own keyring for NVIDIA's repository (roles/nvidia_driver/sources.py)."""

CUDA_KEYRING = (
    "https://developer.download.nvidia.com/compute/cuda/repos/{system}/x86_64/"
    "cuda-keyring_1.1-1_all.deb"
)
"""NVIDIA's package of the repository's key (CUDA installation guide)."""

DPKG_INTERRUPTED = Code(
    "dpkg-interrupted",
    "warn",
    "dpkg was stopped half-way. A converge repairs it before it installs something.",
    "dpkg --configure -a --force-confold",
)
PACKAGES_BROKEN = Code(
    "packages-broken",
    "refuse",
    "Packages lack what they depend on: apt installs nothing until that is repaired.",
    "apt-get --fix-broken install -y",
)
SOURCE_UNREACHABLE = Code(
    "source-unreachable",
    "warn",
    "apt cannot read one of its sources: upgrades, and what comes from there, fail. The line turns"
    " the source off; where it is needed, repair the network, DNS or proxy instead.",
    "sed -i -e '\\|^deb .*{uri}|s/^/# /' -e '\\|^URIs:.*{uri}|i Enabled: no'"
    " $(grep -rlF '{uri}' /etc/apt/sources.list /etc/apt/sources.list.d)",
)
NO_SOURCE = Code(
    "no-source",
    "refuse",
    "apt reaches none of its sources: nothing can be installed.",
    "{look}",
    shown="getent hosts NAME && curl -sSI URI; apt-get update",
)
KEY_WRONG = Code(
    "key-wrong",
    "refuse",
    "A source of NVIDIA's is signed by another key than the inventory names.",
    "pyinfra --limit {host} inventory deploys/llm.py",
    "operator",
)
KEY_EXPIRED = Code(
    "key-expired",
    "warn",
    "The key of a source of NVIDIA's has expired: apt refuses what it signs.",
    "k=$(mktemp -d)/keyring.deb && curl -fsSLo $k {url} && dpkg -i $k && apt-get update",
    shown="curl -fsSLO …/cuda-keyring_1.1-1_all.deb && dpkg -i cuda-keyring_1.1-1_all.deb",
)
KEY_SHA1 = Code(
    "key-sha1",
    "warn",
    "Nothing better than SHA-1 binds the key of a source of NVIDIA's, and this system's apt"
    " verifies with sqv, which refuses that since 2026-02-01.",
    "k=$(mktemp -d)/keyring.deb && curl -fsSLo $k {url} && dpkg -i $k && apt-get update",
    shown="curl -fsSLO …/cuda-keyring_1.1-1_all.deb && dpkg -i cuda-keyring_1.1-1_all.deb",
)


def dpkg(case: Case) -> Iterator[Reason]:
    """Nothing half-done, nothing broken."""
    apt = case.found.apt
    if apt is None:
        return
    if apt.interrupted:
        yield DPKG_INTERRUPTED.reason("dpkg was interrupted", deploys=("llm", "driver"))
    elif apt.broken:
        yield PACKAGES_BROKEN.reason(f"packages are broken: {apt.broken}", deploys=("driver",))


def sources(case: Case) -> Iterator[Reason]:
    """All that can be read, as far as it was tried."""
    apt = case.found.apt
    if apt is None:
        return
    tried = [one for one in apt.sources if one.reachable is not None]
    gone = [one for one in tried if not one.reachable]
    if gone and len(gone) == len(tried):
        first = gone[0].uri
        server = re.sub(r"^[a-z+]+://([^/:]*).*", r"\1", first)
        why = f": {gone[0].why}" if gone[0].why else ""
        yield NO_SOURCE.reason(
            f"apt reaches none of its {len(gone)} sources, {first} among them{why}",
            look=f"getent hosts {server} && curl -sSI {first}; apt-get update",
        )
        return
    for uri in dict.fromkeys(one.uri for one in gone):
        why = next((one.why for one in gone if one.uri == uri and one.why), "")
        yield SOURCE_UNREACHABLE.reason(
            f"apt cannot read {uri}{': ' + why if why else ''}", uri=uri.rstrip("/")
        )


def keys(case: Case) -> Iterator[Reason]:
    """The right ones, valid, and bound by something better than SHA-1 where that counts."""
    apt, now = case.found.apt, case.found.looked_at
    if apt is None or not case.wanted.cuda:
        return
    expected = (case.wanted.driver.key_fingerprint or "").replace(" ", "").upper()
    for key in apt.keys:
        ours = case.wanted.driver.brings and key.path == KEYRING
        if ours and expected and expected != key.fingerprint:
            told = f"{key.path} has the key {key.fingerprint}, the inventory says {expected}"
            yield KEY_WRONG.left_to(BOTH, case.host, told)
        which = f"the key {key.fingerprint} in {key.path}"
        if key.expires is not None and now is not None and key.expires < now:
            day = datetime.fromtimestamp(key.expires, UTC).date().isoformat()
            yield _renew(case, key, KEY_EXPIRED, f"{which} expired on {day}")
        if key.sha1_bound and apt.sqv:
            told = f"{which} is bound by SHA-1 only, which this system's apt refuses"
            yield _renew(case, key, KEY_SHA1, told)


def _renew(case: Case, key: RepoKey, code: Code, told: str) -> Reason:
    if case.wanted.driver.brings and key.path == KEYRING:
        return code.left_to(BOTH, case.host, told)
    system = case.basics.system.replace(" ", "").replace(".", "")
    return code.reason(told, url=CUDA_KEYRING.format(system=system))


CODES = (
    DPKG_INTERRUPTED,
    PACKAGES_BROKEN,
    SOURCE_UNREACHABLE,
    NO_SOURCE,
    KEY_WRONG,
    KEY_EXPIRED,
    KEY_SHA1,
)
RULES = (dpkg, sources, keys)
