"""Token buckets: how often something may happen."""

from __future__ import annotations

import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable
from functools import partial

__all__ = ["Bucket", "Buckets"]

Clock = Callable[[], float]


class Bucket:
    """A token every *interval* seconds, at most *burst* of them; full at first."""

    def __init__(self, interval: float, burst: int, clock: Clock = time.monotonic) -> None:
        self._interval = interval
        self._burst = burst
        self._clock = clock
        self._tokens = float(burst)
        self._at = clock()

    def take(self) -> bool:
        """Take a token; False where there is none."""
        now = self._clock()
        self._tokens = min(self._burst, self._tokens + (now - self._at) / self._interval)
        self._at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


class Buckets:
    """One such bucket for each client address, for the *most* of them that were seen last."""

    def __init__(
        self, interval: float, burst: int, most: int = 1024, clock: Clock = time.monotonic
    ) -> None:
        self._make = partial(Bucket, interval, burst, clock)
        self._most = most
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()

    def take(self, address: str) -> bool:
        """Take a token of *address*; False where it has none."""
        key = _network(address)
        bucket = self._buckets.pop(key, None) or self._make()
        self._buckets[key] = bucket
        if len(self._buckets) > self._most:
            self._buckets.popitem(last=False)
        return bucket.take()


def _network(address: str) -> str:
    """Who has one IPv6 address has the 2**64 around it."""
    if ":" not in address:
        return address
    try:
        return str(ipaddress.ip_network((address.partition("%")[0], 64), strict=False))
    except ValueError:
        return address
