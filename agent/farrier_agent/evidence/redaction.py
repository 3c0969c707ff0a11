"""Takes secrets out of what is kept. Pure.

Evidence is sent to other people. Two nets: the values of environment variables whose names say that
they are secret, wherever they appear, and whatever is written like a secret being assigned.
"""

from __future__ import annotations

import re
from collections.abc import Collection

__all__ = ["redact", "secrets_of"]

_NAMES = re.compile(rb"KEY|TOKEN|SECRET|PASS|CREDENTIAL|AUTH", re.IGNORECASE)
_SHORTEST = 6
"""Shorter values are words that stand everywhere."""

REDACTED = b"[redacted]"

# Each begins with a word of its own: one that began with "any letters" would take hours for a line
# of a megabyte.
_WORD = rb"(?:api[_-]?key|token|secret|password|passwd|credential)"
_VALUE = rb"""(?:"[^"\n]+"|'[^'\n]+'|[^\s"',;)}\]]+)"""
_PATTERNS = tuple(
    re.compile(b"(" + before + b")" + value, re.IGNORECASE)
    for before, value in (
        # api_key='abc', "token": "abc", HF_TOKEN=abc
        (_WORD + rb"""["']?\s{0,9}[=:]\s{0,9}""", _VALUE),
        # --hf-token abc
        (rb"--[a-z0-9_-]{0,40}" + _WORD + rb"\s{1,9}", _VALUE),
        (
            rb"""authorization["']?\s{0,9}[=:]\s{0,9}["']?(?:bearer|basic)?\s{0,9}""",
            rb"""[^\s"']+""",
        ),
        (rb"\bbearer\s{1,9}", rb"[\w.~+/=-]{8,}"),
        (b"", rb"\b(?:sk-|hf_)[a-z0-9_-]{16,}"),
    )
)


def secrets_of(environ: bytes) -> frozenset[bytes]:
    """The values that are secret in *environ*, the content of ``/proc/PID/environ``."""
    found = set()
    for entry in environ.split(b"\0"):
        name, _, value = entry.partition(b"=")
        if len(value) >= _SHORTEST and _NAMES.search(name):
            found.add(value)
    return frozenset(found)


def redact(text: bytes, secrets: Collection[bytes] = ()) -> bytes:
    """*text* without *secrets* and without what is written like one."""
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, REDACTED)
    for pattern in _PATTERNS:
        text = pattern.sub(rb"\1" + REDACTED, text)
    return text
