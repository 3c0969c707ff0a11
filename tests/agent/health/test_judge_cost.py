"""Judging runs every tick, on a host that has better things to do."""

from __future__ import annotations

import time

from farrier_agent.health.judging import judge
from farrier_agent.health.memory import Memory

from tests.agent.health.scene import healthy, replaced, replica, xid

MOST = 0.003
"""Seconds of CPU; 0.4 ms where it was measured, the rest is for a slow machine."""


def test_sixteen_gpus_and_eight_replicas_cost_less_than_a_promille_of_a_tick() -> None:
    replicas = tuple(replica(name, 2 * n, 2 * n + 1) for n, name in enumerate("abcdefgh"))
    now, memory, took = replaced(healthy(16), replicas=replicas), Memory(), []
    for number in range(16):
        now = xid(number, 31)(now)
    for _ in range(50):
        now = replaced(now, at=now.at + 5, monotonic=now.monotonic + 5)
        begin = time.thread_time()
        health, memory = judge(now, memory)
        took.append(time.thread_time() - begin)
    assert health.host.state == "healthy"
    assert sorted(took)[25] < MOST
