"""The repository's key: read from its packets, and judged for the host's apt."""

from __future__ import annotations

import base64
import hashlib
import random
import struct
from contextlib import suppress
from datetime import date

import pytest

from farrier.nvidia.repository import FINGERPRINTS, usual_key_url
from farrier.openpgp import CertificateError, read_certificates
from roles.nvidia_driver.keys import Verifier, judge_key, spaced

NVIDIAS = """\
-----BEGIN PGP PUBLIC KEY BLOCK-----
Version: GnuPG v2.0.22 (GNU/Linux)

mQINBGJYmlEBEAC6nJmeqByeReM+MSy4palACCnfOg4pOxffrrkldxz4jrDOZNK4
q8KG+ZbXrkdP0e9qTFRvZzN+A6Jw3ySfoiKXRBw5l2Zp81AYkghV641OpWNjZOyL
syKEtST9LR1ttHv1ZI71pj8NVG/EnpimZPOblEJ1OpibJJCXLrbn+qcJ8JNuGTSK
6v2aLBmhR8VR/aSJpmkg7fFjcGklweTI8+Ibj72HuY9JRD/+dtUoSh7z037mWo56
ee02lPFRD0pHOEAlLSXxFO/SDqRVMhcgHk0a8roCF+9h5Ni7ZUyxlGK/uHkqN7ED
/U/ATpGKgvk4t23eTpdRC8FXAlBZQyf/xnhQXsyF/z7+RV5CL0o1zk1LKgo+5K32
5ka5uZb6JSIrEPUaCPEMXu6EEY8zSFnCrRS/Vjkfvc9ViYZWzJ387WTjAhMdS7wd
PmdDWw2ASGUP4FrfCireSZiFX+ZAOspKpZdh0P5iR5XSx14XDt3jNK2EQQboaJAD
uqksItatOEYNu4JsCbc24roJvJtGhpjTnq1/dyoy6K433afU0DS2ZPLthLpGqeyK
MKNY7a2WjxhRmCSu5Zok/fGKcO62XF8a3eSj4NzCRv8LM6mG1Oekz6Zz+tdxHg19
ufHO0et7AKE5q+5VjE438Xpl4UWbM/Voj6VPJ9uzywDcnZXpeOqeTQh2pQARAQAB
tCBjdWRhdG9vbHMgPGN1ZGF0b29sc0BudmlkaWEuY29tPokCOQQTAQIAIwUCYlia
UQIbAwcLCQgHAwIBBhUIAgkKCwQWAgMBAh4BAheAAAoJEKS0aZY7+GPM1y4QALKh
BqSozrYbe341Qu7SyxHQgjRCGi4YhI3bHCMj5F6vEOHnwiFH6YmFkxCYtqcGjca6
iw7cCYMow/hgKLAPwkwSJ84EYpGLWx62+20rMM4OuZwauSUcY/kE2WgnQ74zbh3+
MHs56zntJFfJ9G+NYidvwDWeZn5HIzR4CtxaxRgpiykg0s3ps6X0U+vuVcLnutBF
7r81astvlVQERFbce/6KqHK+yj843Qrhb3JEolUoOETK06nD25bVtnAxe0QEyA90
9MpRNLfR6BdjPpxqhphDcMOhJfyubAroQUxG/7S+Yw+mtEqHrL/dz9iEYqodYiSo
zfi0b+HFI59sRkTfOBDBwb3kcARExwnvLJmqijiVqWkoJ3H67oA0XJN2nelucw+A
Hb+Jt9BWjyzKWlLFDnVHdGicyRJ0I8yqi32w8hGeXmu3tU58VWJrkXEXadBftmci
pemb6oZ/r5SCkW6kxr2PsNWcJoebUdynyOQGbVwpMtJAnjOYp0ObKOANbcIg+tsi
kyCIO5TiY3ADbBDPCeZK8xdcugXoW5WFwACGC0z+Cn0mtw8z3VGIPAMSCYmLusgW
t2+EpikwrP2inNp5Pc+YdczRAsa4s30Jpyv/UHEG5P9GKnvofaxJgnU56lJIRPzF
iCUGy6cVI0Fq777X/ME1K6A/bzZ4vRYNx8rUmVE5
=DO7z
-----END PGP PUBLIC KEY BLOCK-----
"""
"""NVIDIA's own public key of 2022 (3bf863cc.pub), as it serves it; bound with SHA-1."""

DAY = 86400
CREATED = 1_700_000_000  # 2023-11-14
NOW = CREATED + 1000 * DAY  # 2026-08-10
SHA1, SHA256 = 2, 8

GPGV = Verifier(sqv=False, sha1_until=None, now=NOW)
SQV = Verifier(sqv=True, sha1_until=date(2026, 2, 1), now=NOW)


def packet(tag: int, body: bytes) -> bytes:
    """A packet in the new format, of any length."""
    return bytes([0xC0 | tag, 255]) + struct.pack(">I", len(body)) + body


def subpacket(kind: int, value: bytes) -> bytes:
    return bytes([len(value) + 1, kind]) + value


class Key:
    """A certificate made by hand; its signatures are not signed."""

    def __init__(self, seed: bytes = b"one") -> None:
        self.body = b"\x04" + struct.pack(">I", CREATED) + b"\x16" + seed
        prefixed = b"\x99" + struct.pack(">H", len(self.body)) + self.body
        self.fingerprint = hashlib.sha1(prefixed).hexdigest().upper()  # noqa: S324
        self.packets = packet(6, self.body)

    def user(self, name: str = "Somebody <s@example.invalid>") -> Key:
        self.packets += packet(13, name.encode())
        return self

    def signed(
        self,
        kind: int = 0x13,
        digest: int = SHA256,
        days: int | None = None,
        at: int = CREATED,
        issuer: str = "",
    ) -> Key:
        who = bytes.fromhex(issuer or self.fingerprint)
        hashed = subpacket(2, struct.pack(">I", at)) + subpacket(33, b"\x04" + who)
        if days is not None:
            hashed += subpacket(9, struct.pack(">I", days * DAY))
        unhashed = subpacket(16, who[-8:])
        self.packets += packet(
            2,
            bytes([4, kind, 0x16, digest])
            + struct.pack(">H", len(hashed))
            + hashed
            + struct.pack(">H", len(unhashed))
            + unhashed
            + b"..",
        )
        return self

    @property
    def armored(self) -> bytes:
        text = base64.encodebytes(self.packets).decode()
        return (
            "-----BEGIN PGP PUBLIC KEY BLOCK-----\nComment: by hand\n\n"
            f"{text}=abcd\n-----END PGP PUBLIC KEY BLOCK-----\n"
        ).encode()


def test_nvidias_own_key() -> None:
    (found,) = read_certificates(NVIDIAS.encode())
    assert found.fingerprint == FINGERPRINTS["debian12"] == FINGERPRINTS["ubuntu2404"]
    assert found.sha1_bound
    assert found.expires is None
    assert found.user_ids == ("cudatools <cudatools@nvidia.com>",)
    accepted = judge_key(NVIDIAS.encode(), found.fingerprint, GPGV)
    assert accepted.certificate == found
    assert "SHA-1 only, which this host's apt still accepts" in accepted.aside
    assert accepted.remark == ""
    refused = judge_key(NVIDIAS.encode(), found.fingerprint, SQV)
    assert refused.certificate is None
    assert "since 2026-02-01" in refused.refused


def test_armored_and_binary_are_the_same() -> None:
    key = Key().user().signed()
    assert read_certificates(key.armored) == read_certificates(key.packets)
    windows = key.armored.replace(b"\n", b"\r\n")
    assert read_certificates(windows) == read_certificates(key.packets)


def test_good_key_goes_alone_into_the_keyring() -> None:
    good, other = Key().user().signed(days=5000), Key(b"other").user().signed()
    verdict = judge_key(other.packets + good.packets, good.fingerprint.lower(), SQV)
    assert verdict.refused == verdict.remark == ""
    assert verdict.certificate is not None
    assert verdict.certificate.packets == good.packets


def test_wrong_fingerprint_shows_both() -> None:
    key, other = Key().user().signed(), Key(b"other")
    verdict = judge_key(key.armored, other.fingerprint, SQV)
    assert spaced(key.fingerprint) in verdict.refused
    assert spaced(other.fingerprint) in verdict.refused
    assert verdict.certificate is None


@pytest.mark.parametrize(
    ("key", "end"),
    [
        (Key().user().signed(days=900), "2026-05-02"),
        # the newest counts
        (Key().user().signed(days=5000).signed(days=900, at=CREATED + DAY), "2026-05-02"),
        # over the key alone comes before over a user id
        (Key().signed(kind=0x1F, days=900).user().signed(days=5000), "2026-05-02"),
    ],
)
def test_expired(key: Key, end: str) -> None:
    verdict = judge_key(key.packets, key.fingerprint, GPGV)
    assert f"expired on {end}" in verdict.refused
    assert "2026-08-10" in verdict.refused


@pytest.mark.parametrize(
    "key",
    [
        Key().user().signed(days=900).signed(days=5000, at=CREATED + DAY),
        Key().signed(kind=0x1F).user().signed(days=5000),
        # what others say of it does not count
        Key().user().signed(days=5000).signed(days=1, at=NOW, issuer="AB" * 20),
    ],
)
def test_not_expired(key: Key) -> None:
    assert judge_key(key.packets, key.fingerprint, SQV).refused == ""


def test_expires_soon() -> None:
    key = Key().user().signed(days=1010)
    assert "expires on 2026-08-20" in judge_key(key.packets, key.fingerprint, SQV).remark


def test_revoked() -> None:
    key = Key().signed(kind=0x20).user().signed()
    assert "revoked" in judge_key(key.packets, key.fingerprint, GPGV).refused
    others = Key().signed(kind=0x20, issuer="AB" * 20).user().signed()
    assert judge_key(others.packets, others.fingerprint, GPGV).refused == ""


def test_one_better_binding_is_enough() -> None:
    key = Key().user().signed(digest=SHA1).signed(digest=SHA256, at=CREATED + DAY)
    assert judge_key(key.packets, key.fingerprint, SQV).refused == ""
    # a subkey's binding is not the key's
    weak = Key().user().signed(digest=SHA1)
    weak.packets += packet(14, Key(b"sub").body)
    weak.signed(kind=0x18, digest=SHA256)
    assert "SHA-1" in judge_key(weak.packets, weak.fingerprint, SQV).refused


def test_the_hosts_own_policy_decides() -> None:
    key = Key().user().signed(digest=SHA1)
    later = Verifier(sqv=True, sha1_until=date(2030, 1, 1), now=NOW)
    verdict = judge_key(key.packets, key.fingerprint, later)
    assert verdict.certificate is not None
    assert "2030-01-01" in verdict.remark


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"<html>not found</html>", "begins with '<html>not found</html>'"),
        (b"", "begins with ''"),
        (Key().user().signed().packets[:-3], "cut off"),
        (Key().packets[:3], "cut off"),
        (packet(13, b"nobody"), "no public key"),
        (packet(6, b"\x06" + bytes(40)), "version 6"),
        (b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\n!!!!\n-----END", "armor is damaged"),
    ],
)
def test_what_is_no_key(content: bytes, words: str) -> None:
    with pytest.raises(CertificateError, match=words.replace("(", "\\(")):
        read_certificates(content)
    assert words in judge_key(content, "AB" * 20, GPGV).refused


def test_damage_is_told_and_never_trips() -> None:
    """A key comes from the network: whatever it is, there is an answer."""
    good = read_certificates(NVIDIAS.encode())[0].packets
    chance = random.Random(0)  # noqa: S311
    for _ in range(3000):
        damaged = bytearray(good)
        for _ in range(chance.randint(1, 4)):
            damaged[chance.randrange(min(len(damaged), 700))] = chance.randrange(256)
        del damaged[chance.randrange(1, len(damaged)) :]
        with suppress(CertificateError):
            read_certificates(bytes(damaged))


def test_where_nvidia_keeps_its_keys() -> None:
    there = "https://example.invalid/repos/debian12/x86_64/"
    assert usual_key_url(there, FINGERPRINTS["debian12"]).endswith("x86_64/3bf863cc.pub")
    assert usual_key_url(there, FINGERPRINTS["debian13"]).endswith("x86_64/8793F200.pub")
