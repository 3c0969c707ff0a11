"""Requests in flight: the sockets that nginx holds towards an engine's port.

nginx makes a connection for each request as soon as the gate was passed, so each of its sockets
there is a request, whatever the engine tells or does not tell. Everybody else's are counted apart:
the agent's own warm-ups and questions, and strangers, who went past the gate and whom nobody waits
for.
"""

from __future__ import annotations

import pwd
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

from farrier_agent.draining.sockets import Socket, SocketsError, State, read

__all__ = ["InFlight", "by_uid", "count", "larger", "look", "uid_of", "unsent_clients"]

_REQUEST = frozenset({State.ESTABLISHED, State.CLOSE_WAIT, State.SYN_SENT})
"""States of a client's socket in which its request is not over.

In CLOSE_WAIT the engine has closed and nginx still reads its answer; in FIN_WAIT and later nginx
has closed itself.
"""

_UNSENT = frozenset(
    {
        State.ESTABLISHED,
        State.FIN_WAIT1,
        State.CLOSE_WAIT,
        State.CLOSING,
        State.LAST_ACK,
    }
)


@dataclass(frozen=True)
class InFlight:
    """One look at an engine's port: requests of nginx, of the agent, and strangers by their uid."""

    requests: int
    own: int = 0
    strangers: tuple[tuple[int, int], ...] = ()

    def in_words(self) -> str:
        """The strangers for a person; nothing when there are none."""
        return ", ".join(
            f"{count} connections of {_name(uid)} past the gate" for uid, count in self.strangers
        )


def count(
    sockets: Iterable[Socket], port: int, *, nginx_uid: int, own_uids: Collection[int] = ()
) -> InFlight:
    """Who is connected to the engine on loopback *port*."""
    uids = (
        one.uid
        for one in sockets
        if one.remote_port == port and one.remote.is_loopback and one.state in _REQUEST
    )
    return by_uid(uids, nginx_uid=nginx_uid, own_uids=own_uids)


def by_uid(uids: Iterable[int], *, nginx_uid: int, own_uids: Collection[int] = ()) -> InFlight:
    """The same, where only the user of each connection is left to be told apart."""
    number = Counter(uids)
    requests = number.pop(nginx_uid, 0)
    own = sum(number.pop(uid, 0) for uid in set(own_uids))
    return InFlight(requests, own, tuple(sorted(number.items())))


def look(
    port: int,
    *,
    nginx_uid: int,
    own_uids: Collection[int] = (),
    sockets: Callable[[int], Sequence[Socket]] = lambda port: read(remote_port=port),
) -> InFlight:
    """Look at an engine's *port* now. Raises :class:`.SocketsError`."""
    return count(sockets(port), port, nginx_uid=nginx_uid, own_uids=own_uids)


def larger(requests: int | None, told: int | None) -> int | None:
    """In flight, where the engine tells (running and waiting) as well: the larger of the two.

    None when the sockets could not be counted: the engine does not see what is still on its way.
    """
    return requests if requests is None or told is None else max(requests, told)


def unsent_clients(sockets: Iterable[Socket], ports: Collection[int]) -> int:
    """Clients of nginx's *ports* that have not acknowledged all of their answers yet."""
    return sum(
        1 for one in sockets if one.local_port in ports and one.unsent and one.state in _UNSENT
    )


def uid_of(user: str) -> int:
    """The uid of nginx's workers. Raises :class:`.SocketsError` where there is no such user."""
    try:
        return pwd.getpwnam(user).pw_uid
    except KeyError:
        raise SocketsError(f"there is no user {user!r}, as which nginx was to run") from None


def _name(uid: int) -> str:
    try:
        return f"{pwd.getpwuid(uid).pw_name} (uid {uid})"
    except KeyError:
        return f"uid {uid}"
