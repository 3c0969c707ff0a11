"""NVIDIA's CUDA repository: the keys that it is signed with, and where they are."""

from __future__ import annotations

import re

__all__ = ["FINGERPRINTS", "key_name", "normal", "usual_key_url"]

_SHA1_BOUND = "EB693B3035CD5710E231E123A4B469963BF863CC"
_SINCE_DEBIAN_13 = "02182E60104FCDC26EAE1B8597A5D4CB8793F200"

FINGERPRINTS = {
    "debian12": _SHA1_BOUND,
    "debian13": _SINCE_DEBIAN_13,
    "ubuntu2204": _SHA1_BOUND,
    "ubuntu2404": _SHA1_BOUND,
}
"""System -> key of NVIDIA's repository for it.

The first is NVIDIA's since 2022 (NVIDIA/cuda-repo-management#4), bound with SHA-1 only, and is not
replaced in the repositories that have it (#39); the repository for Debian 13 was signed anew with
the second, 8793F200 (#30, #34).
"""


def key_name(fingerprint: str) -> str:
    """The file of a key beside the packages: its last eight digits, in NVIDIA's own spelling.

    ``3bf863cc.pub`` is in lower case, ``8793F200.pub`` in upper case.
    """
    last = normal(fingerprint)[-8:]
    return f"{last if fingerprint == _SINCE_DEBIAN_13 else last.lower()}.pub"


def usual_key_url(repository: str, fingerprint: str) -> str:
    """Where NVIDIA keeps the key of *repository*."""
    return f"{repository.rstrip('/')}/{key_name(fingerprint)}"


def normal(fingerprint: str) -> str:
    """*fingerprint* in upper case and without spaces."""
    return re.sub(r"\s", "", fingerprint).upper()
