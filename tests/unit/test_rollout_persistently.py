"""A host that is lost is asked again for a while, however long the answer had taken by then."""

from __future__ import annotations

import time

import pytest

from farrier.fleet import Login, LostError, Target
from farrier.rollout.host import Host


def test_the_time_counts_from_the_loss() -> None:
    host = Host(Target("gpu01", (), "127.0.0.1", Login("127.0.0.1")))
    asked = 0

    def drain() -> str:
        nonlocal asked
        asked += 1
        if asked == 1:
            time.sleep(2.5)  # longer than it is asked again for
            raise LostError("gpu01", "the connection was lost")
        return "drained"

    assert host.persistently(drain, 2.0) == "drained"


def test_a_host_that_stays_away_is_given_up() -> None:
    host = Host(Target("gpu01", (), "127.0.0.1", Login("127.0.0.1")))

    def drain() -> str:
        raise LostError("gpu01", "the connection was lost")

    begun = time.monotonic()
    with pytest.raises(LostError):
        host.persistently(drain, 2.5)
    assert 1.0 < time.monotonic() - begun < 10
