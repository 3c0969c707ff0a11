"""Who is at the other end of the control socket, as the kernel says (unix(7), SO_PEERCRED)."""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Asker", "allowed", "who"]

SO_PEERGROUPS = 59
"""Linux 4.13; Python has no name for it."""
_GROUPS_SIZE = 1024
"""Bytes, the most that Python's getsockopt takes: 256 groups. Of a user with more none is seen."""
_UNSET = 2**32 - 1
_PROC = Path("/proc")


@dataclass(frozen=True)
class Asker:
    """The process that connected, as it was then.

    ``groups`` are its supplementary ones. ``program`` and ``login`` (the user that logged in, also
    behind sudo) come from /proc and are for the journal only: None where they cannot be read.
    """

    uid: int
    gid: int
    pid: int
    groups: frozenset[int] = frozenset()
    program: str | None = None
    login: int | None = None

    @property
    def user(self) -> str:
        """Who it is, whichever of its processes asks."""
        # by number: a name may have to come from a directory service, which may hang
        user = "root" if self.uid == 0 else f"uid {self.uid}"
        if self.login not in {None, self.uid}:
            user += f" (logged in as uid {self.login})"
        return user

    def __str__(self) -> str:
        return f"{self.user}, {self.program or 'unknown program'} (pid {self.pid})"


def allowed(asker: Asker, *, own_uid: int, group: int | None) -> bool:
    """*asker* is root, the agent's own user, or a member of *group*."""
    if asker.uid in {0, own_uid}:
        return True
    return group is not None and (asker.gid == group or group in asker.groups)


def who(connection: socket.socket, proc: Path = _PROC) -> Asker:
    """The process that connected to *connection*. Raises OSError."""
    pid, uid, gid = struct.unpack(
        "3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    )
    return Asker(
        uid=uid,
        gid=gid,
        pid=pid,
        groups=_groups(connection),
        program=_program(proc / str(pid) / "comm"),
        login=_login(proc / str(pid) / "loginuid"),
    )


def _groups(connection: socket.socket) -> frozenset[int]:
    try:
        data = connection.getsockopt(socket.SOL_SOCKET, SO_PEERGROUPS, _GROUPS_SIZE)
    except OSError:
        return frozenset()
    return frozenset(struct.unpack(f"{len(data) // 4}I", data))


def _program(path: Path) -> str | None:
    try:
        name = path.read_bytes()[:64].decode(errors="replace").strip()
    except OSError:
        return None
    # a process names itself: it must not write lines of its own into the journal
    return "".join(c if c.isprintable() else "?" for c in name) or None


def _login(path: Path) -> int | None:
    try:
        number = int(path.read_bytes()[:16])
    except (OSError, ValueError):
        return None
    return None if number == _UNSET else number
