"""Basic authentication: who may ask, and what a wrong password may cost.

A password is checked with bcrypt, which is slow on purpose: 50 ms of a core at a cost of 10. So it
is done once for each user, in a thread; what was right is remembered, as a hash with a key of this
process. Of what is not, each address may try a few, one thread tries them, and few may wait for it.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import secrets
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

from farrier_agent.web import passwords
from farrier_agent.web.bucket import Bucket, Buckets

__all__ = ["BURST", "Credentials", "Tries", "Users", "credentials"]

INTERVAL = 2.0
"""Seconds until an address may try another password, after a *BURST* of them."""
BURST = 10
ALL_INTERVAL = 0.5
ALL_BURST = 20
"""The same for all addresses together: 10 % of a core at a cost of 10."""
MAX_WAITING = 8

Credentials = tuple[str, str]
"""User and password."""


def credentials(header: str | None) -> Credentials | None:
    """What ``Authorization: Basic`` says; None where it says nothing that can be read."""
    scheme, _, said = (header or "").partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        text = base64.b64decode(said.strip(), validate=True).decode()
    except (binascii.Error, ValueError):
        return None
    user, colon, password = text.partition(":")
    return (user, password) if colon else None


class Tries:
    """The one thread that checks passwords, and how often somebody may have it do so."""

    def __init__(self) -> None:
        self._all = Bucket(ALL_INTERVAL, ALL_BURST)
        self._each = Buckets(INTERVAL, BURST)
        self._pool: ThreadPoolExecutor | None = None
        self._waiting = 0

    def allowed(self, peer: str) -> bool:
        """Whether *peer* may try a password now. Counts as a try."""
        return self._waiting < MAX_WAITING and self._each.take(peer) and self._all.take()

    async def check(self, password: str, hashed: str) -> bool:
        """Whether *hashed* is of *password*."""
        if self._pool is None:
            self._pool = ThreadPoolExecutor(1, "passwords")
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(
                self._pool, passwords.matches, password.encode(), hashed.encode()
            )
        finally:
            self._waiting -= 1

    def close(self) -> None:
        """Let the thread end."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._pool = None


class Users:
    """The users with their *hashes*. What *before* remembers of those that are the same stays."""

    def __init__(self, hashes: Mapping[str, str], before: Users | None = None) -> None:
        self._hashes = dict(hashes)
        self._key: bytes = before._key if before else secrets.token_bytes(32)
        self._right: dict[str, bytes] = {}
        if before is not None:
            self._right = {
                user: digest
                for user, digest in before._right.items()
                if before._hashes[user] == self._hashes.get(user)
            }

    def remembers(self, who: Credentials) -> bool:
        """These were found right before. Takes the same time whoever it is."""
        digest = self._digest(who)
        return hmac.compare_digest(self._right.get(who[0], bytes(len(digest))), digest)

    async def verify(self, who: Credentials, tries: Tries) -> bool:
        """Whether they are right. An unknown user takes as long as one of the known ones."""
        user, password = who
        right = await tries.check(password, self._hashes.get(user) or self._somebody(user))
        if right and user in self._hashes:
            self._right[user] = self._digest(who)
            return True
        return False

    def _somebody(self, user: str) -> str:
        """A hash for who has none: always the same one for the same name, as if it were theirs."""
        hashes = sorted(self._hashes.values())
        digest = hashlib.blake2b(user.encode(), key=self._key).digest()
        return hashes[int.from_bytes(digest[:8], "big") % len(hashes)]

    def _digest(self, who: Credentials) -> bytes:
        user, password = (word.encode() for word in who)
        keyed = hashlib.blake2b(key=self._key, digest_size=32)
        keyed.update(len(user).to_bytes(8, "big") + user + password)
        return keyed.digest()
