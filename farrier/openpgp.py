"""OpenPGP certificates (a repository's public keys), read from their packets. Pure.

A bare host has no gpg: Debian's apt comes with ``gpgv`` or ``sqv``, which verify and tell nothing
of a key. Installing gpg needs the very archive that may be out of reach, and its listing differs
between releases; so the few packets that matter (RFC 4880 sections 4.2, 5.2, 5.5) are read here.
Nothing is verified: the fingerprint vouches for the key, and apt itself verifies with it.
"""

from __future__ import annotations

import base64
import hashlib
import struct
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Certificate", "CertificateError", "SelfSignature", "read_certificates"]

PUBLIC_KEY, SIGNATURE, USER_ID, PUBLIC_SUBKEY, USER_ATTRIBUTE = 6, 2, 13, 14, 17
CERTIFICATIONS = frozenset({0x10, 0x11, 0x12, 0x13})
DIRECT_KEY, KEY_REVOCATION = 0x1F, 0x20
WEAK_HASHES = {1: "MD5", 2: "SHA-1", 3: "RIPEMD-160"}
"""Hash algorithms by their OpenPGP number (RFC 4880, 9.4) that no longer count as secure."""

_CREATED, _KEY_LIFETIME, _ISSUER, _ISSUER_FINGERPRINT = 2, 9, 16, 33


class CertificateError(ValueError):
    """These bytes hold no OpenPGP certificate that can be read; says what they look like."""


@dataclass(frozen=True, slots=True)
class SelfSignature:
    """What a key says of itself at *created* (seconds since 1970).

    *lifetime* is in seconds since the key's creation, None for no end. *digest* is the number of
    its hash algorithm, *direct* says that it is over the key alone and not over a user id.
    """

    created: int
    digest: int
    lifetime: int | None = None
    direct: bool = False

    @property
    def weak(self) -> bool:
        """Whether nothing better than SHA-1 protects it."""
        return self.digest in WEAK_HASHES


@dataclass(frozen=True, slots=True)
class Certificate:
    """One primary key with what binds it. *packets* are its bytes, ready for a keyring."""

    fingerprint: str
    created: int
    bindings: tuple[SelfSignature, ...] = ()
    revoked: bool = False
    user_ids: tuple[str, ...] = ()
    packets: bytes = field(default=b"", repr=False)

    @property
    def expires(self) -> int | None:
        """Seconds since 1970, None for never.

        What the newest signature over the key alone says; else the newest over a user id.
        """
        ends = [binding for binding in self.bindings if binding.direct and binding.lifetime]
        ends = ends or [binding for binding in self.bindings if not binding.direct]
        newest = max(ends, key=lambda binding: binding.created, default=None)
        lifetime = newest.lifetime if newest else None
        return None if lifetime is None else self.created + lifetime

    @property
    def sha1_bound(self) -> bool:
        """Whether no self-signature is better than SHA-1: sqv takes such a key for unbound."""
        return bool(self.bindings) and all(binding.weak for binding in self.bindings)


def read_certificates(content: bytes) -> tuple[Certificate, ...]:
    """All certificates in *content*, armored or binary.

    Raises :class:`CertificateError`.
    """
    packets = list(_packets(_binary(content)))
    starts = [number for number, (tag, _, _) in enumerate(packets) if tag == PUBLIC_KEY]
    if not starts:
        raise CertificateError("there is no public key in it")
    return tuple(
        _certificate(packets[first:last]) for first, last in pairwise([*starts, len(packets)])
    )


_ARMOR = b"-----BEGIN PGP PUBLIC KEY BLOCK-----"


def _binary(content: bytes) -> bytes:
    if _ARMOR not in content:
        if not content or not content[0] & 0x80:
            start = content[:60].decode("utf-8", "replace").strip().replace("\n", " ")
            raise CertificateError(f"it is no OpenPGP key but begins with {start!r}")
        return content
    binary = b""
    for block in content.split(_ARMOR)[1:]:
        body = block.partition(b"-----END PGP PUBLIC KEY BLOCK-----")[0].replace(b"\r", b"")
        # Headers such as "Version:" end with an empty line; a line "=abcd" is the checksum.
        _, _, text = body.partition(b"\n\n")
        lines = [line for line in text.split(b"\n") if line and not line.startswith(b"=")]
        try:
            binary += base64.b64decode(b"".join(lines), validate=True)
        except ValueError as error:
            raise CertificateError(f"its armor is damaged: {error}") from error
    return binary


def _packets(content: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """Each packet: its tag, its body, and all of its bytes."""
    at = 0
    while at < len(content):
        start, header = at, content[at]
        if not header & 0x80:
            raise CertificateError(f"it is damaged at byte {at}")
        try:
            if header & 0x40:
                tag = header & 0x3F
                length, used = _new_length(content, at + 1)
            else:
                tag = (header >> 2) & 0x0F
                width = (1, 2, 4, 0)[header & 3]
                if not width:
                    raise CertificateError("it has a packet of indeterminate length")
                length, used = int.from_bytes(content[at + 1 : at + 1 + width], "big"), width
        except IndexError:
            raise CertificateError("it is cut off") from None
        at += 1 + used + length
        if at > len(content):
            raise CertificateError("it is cut off")
        yield tag, content[at - length : at], content[start:at]


def _new_length(content: bytes, at: int) -> tuple[int, int]:
    first = content[at]
    if first < 192:
        return first, 1
    if first < 224:
        return ((first - 192) << 8) + content[at + 1] + 192, 2
    if first == 255:
        return int.from_bytes(content[at + 1 : at + 5], "big"), 5
    raise CertificateError("it has a packet of partial length")


def _certificate(packets: list[tuple[int, bytes, bytes]]) -> Certificate:
    _, key, _ = packets[0]
    if not key or key[0] != 4:
        raise CertificateError(f"its key has version {key[0] if key else '?'}, only 4 is known")
    digest = hashlib.sha1(b"\x99" + struct.pack(">H", len(key)) + key, usedforsecurity=False)
    fingerprint = digest.hexdigest().upper()
    bindings: list[SelfSignature] = []
    user_ids: list[str] = []
    revoked = False
    over_subkey = False
    for tag, body, _ in packets[1:]:
        if tag in {PUBLIC_SUBKEY, USER_ID, USER_ATTRIBUTE}:
            over_subkey = tag == PUBLIC_SUBKEY
        if tag == USER_ID:
            user_ids.append(body.decode("utf-8", "replace"))
        if tag != SIGNATURE or over_subkey or len(body) < 4:
            continue
        kind, signature, own = _signature(body, fingerprint)
        if own and kind == KEY_REVOCATION:
            revoked = True
        elif own and (kind in CERTIFICATIONS or kind == DIRECT_KEY):
            bindings.append(signature)
    return Certificate(
        fingerprint,
        int.from_bytes(key[1:5], "big"),
        tuple(bindings),
        revoked,
        tuple(user_ids),
        b"".join(raw for _, _, raw in packets),
    )


def _signature(body: bytes, fingerprint: str) -> tuple[int, SelfSignature, bool]:
    """Its type, what it says, and whether it names the key *fingerprint* as its issuer."""
    if body[0] in {2, 3} and len(body) > 16:
        # The old format: length 5, type, time, issuer, key algorithm, hash algorithm.
        issuer = body[7:15].hex().upper()
        made = SelfSignature(int.from_bytes(body[3:7], "big"), body[16])
        return body[2], made, fingerprint.endswith(issuer)
    if body[0] != 4:
        return 0, SelfSignature(0, 0), False
    kind, digest = body[1], body[3]
    hashed_length = int.from_bytes(body[4:6], "big")
    hashed = dict(_subpackets(body[6 : 6 + hashed_length]))
    rest = body[6 + hashed_length :]
    unhashed = dict(_subpackets(rest[2 : 2 + int.from_bytes(rest[:2], "big")]))
    created = int.from_bytes(hashed.get(_CREATED, b""), "big")
    lifetime = int.from_bytes(hashed.get(_KEY_LIFETIME, b""), "big") or None
    both = unhashed | hashed
    if _ISSUER_FINGERPRINT in both:
        own = both[_ISSUER_FINGERPRINT][1:].hex().upper() == fingerprint
    else:
        own = fingerprint.endswith(both.get(_ISSUER, b"\0").hex().upper())
    return kind, SelfSignature(created, digest, lifetime, kind == DIRECT_KEY), own


def _subpackets(area: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at < len(area):
        first = area[at]
        if first < 192:
            length, used = first, 1
        elif first < 255:
            length, used = ((first - 192) << 8) + int.from_bytes(area[at + 1 : at + 2]) + 192, 2
        else:
            length, used = int.from_bytes(area[at + 1 : at + 5], "big"), 5
        body = area[at + used : at + used + length]
        if not body:
            return
        yield body[0] & 0x7F, body[1:]
        at += used + length
