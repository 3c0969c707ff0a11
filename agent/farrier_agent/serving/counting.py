"""What the kernel says of the connections to one engine: requests, strangers, movement."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass

from farrier_agent import movement
from farrier_agent.draining import inflight
from farrier_agent.draining.sockets import SocketsError
from farrier_agent.engines import Load
from farrier_agent.serving.connections import Connections

__all__ = ["Count", "Counter", "busy"]

log = logging.getLogger("farrier-agent")


@dataclass(frozen=True)
class Count:
    """One look. ``requests`` is None where they cannot be counted; ``strangers`` and ``own`` (the
    agent's questions) are connections that nobody waits for.
    """

    requests: int | None = None
    strangers: int = 0
    own: int = 0


class Counter:
    """Counts on the *port* of the engine of *replica*. All of it blocks, for milliseconds.

    *connections* has those of all engines. *nginx_user* is as whom nginx's workers run. Where there
    is no such user every connection but the agent's counts as a request, and that is said once.
    """

    def __init__(self, replica: str, port: int, nginx_user: str, connections: Connections) -> None:
        self._replica = replica
        self._connections = connections
        self._port = port
        self._told: set[str] = set()
        self._own = os.geteuid()
        self._uid: int | None = None
        try:
            self._uid = inflight.uid_of(nginx_user)
        except SocketsError as error:
            self._say(f"{error}: every connection to its engine counts as a request")

    def look(self) -> Count:
        """The connections now. Never raises."""
        uid = -1 if self._uid is None else self._uid
        try:
            seen = inflight.look(self._port, nginx_uid=uid, own_uids={self._own})
        except SocketsError as error:
            self._say(f"its requests in flight cannot be counted: {error}")
            return Count()
        return self._counted(seen)

    def glance(self) -> Count:
        """The connections a moment ago, for who waits for no end of them. Never raises."""
        uid = -1 if self._uid is None else self._uid
        try:
            found = self._connections.seen(self._connections.glance)
        except movement.MovementError:
            return self.look()  # there is /proc
        uids = (one.uid for one in found if one.port == self._port and one.loopback)
        return self._counted(inflight.by_uid(uids, nginx_uid=uid, own_uids={self._own}))

    def _counted(self, seen: inflight.InFlight) -> Count:
        strangers = sum(number for _, number in seen.strangers)
        if self._uid is None:
            return Count(strangers, own=seen.own)
        if seen.strangers:
            self._say(seen.in_words())
        return Count(seen.requests, strangers, seen.own)

    def move(self, before: movement.Movement) -> movement.Movement | None:
        """What moved on nginx's sockets since *before*; None when that cannot be seen."""
        if self._uid is None:
            return None
        try:
            seen = self._connections.seen(self._connections.step)
        except movement.MovementError as error:
            self._say(f"whether its requests get on cannot be seen: {error}")
            return None
        return movement.step(before, seen, self._port, nginx_uid=self._uid)

    def _say(self, text: str) -> None:
        if text not in self._told:
            self._told.add(text)
            extra = {"replica": self._replica, "cause": "counting"}
            log.warning("replica %s: %s", self._replica, text, extra=extra)


def busy(count: Count, load: Load | None) -> int | None:
    """The requests in flight, of nginx or as the engine tells: the larger of the two.

    What the engine tells may be the strangers' and the agent's own requests. They are taken off,
    for nobody waits for them.
    """
    told = None if load is None or load.requests is None else load.requests
    others = count.strangers + count.own
    return inflight.larger(count.requests, None if told is None else max(0, told - others))
