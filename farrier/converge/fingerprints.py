"""Fingerprints of OpenPGP keys, read from their packets: a bare host has no gpg to ask. Pure."""

from __future__ import annotations

import base64
import hashlib
import re

__all__ = ["binary", "primary_fingerprints"]


def primary_fingerprints(content: bytes) -> tuple[str, ...]:
    """Fingerprints of the primary keys in *content*, binary or armored; () if it has none.

    RFC 4880, sections 4.2 (packets), 6.2 (armor) and 12.2 (fingerprints of version 4).
    """
    found = []
    at, content = 0, binary(content)
    while at + 1 < len(content) and content[at] & 0x80:
        header = content[at]
        if header & 0x40:
            tag, first = header & 0x3F, content[at + 1]
            if first < 192:
                start, length = at + 2, first
            elif first < 224:
                start = at + 3
                length = (
                    ((first - 192) << 8) + int.from_bytes(content[at + 2 : at + 3], "big") + 192
                )
            else:
                start, length = at + 6, int.from_bytes(content[at + 2 : at + 6], "big")
        else:
            tag, width = (header >> 2) & 0x0F, 1 << (header & 3)
            start = at + 1 + width
            length = int.from_bytes(content[at + 1 : start], "big")
        body = content[start : start + length]
        if tag == 6 and body[:1] == b"\x04":  # a public key, version 4
            digest = hashlib.sha1(
                b"\x99" + len(body).to_bytes(2, "big") + body, usedforsecurity=False
            )
            found.append(digest.hexdigest().upper())
        at = start + length
    return tuple(found)


def binary(content: bytes) -> bytes:
    """*content* without its armor. Raises :class:`ValueError` where that is damaged."""
    blocks = re.findall(
        rb"-----BEGIN PGP PUBLIC KEY BLOCK-----(.*?)-----END PGP PUBLIC KEY BLOCK-----",
        content.replace(b"\r", b""),
        re.DOTALL,
    )
    if not blocks:
        return content
    binary = b""
    for block in blocks:
        lines = block.partition(b"\n\n")[2].split(b"\n")
        binary += base64.b64decode(b"".join(line for line in lines if line[:1] != b"="))
    return binary
