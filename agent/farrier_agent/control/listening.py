"""Makes the control socket: never two agents on one, never open to more than it is meant for."""

from __future__ import annotations

import errno
import os
import socket
import stat
from contextlib import suppress
from pathlib import Path

from farrier_agent.control.errors import ControlError

__all__ = ["BACKLOG", "DEFAULT_PATH", "bind", "share"]

DEFAULT_PATH = Path("/run/farrier/agent/control.sock")
BACKLOG = 128
"""Connections that wait to be accepted."""


def bind(path: Path, group: int | None = None) -> socket.socket:
    """A listening socket at *path*, for its owner, root and the members of *group* (a gid).

    What an agent that is gone left at *path* is replaced in one step, so that a client never finds
    nothing there. Raises ControlError when another agent answers there or it cannot be made.
    """
    _refuse_another_agent(path)
    fresh = path.with_name(path.name + ".new")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        fresh.unlink(missing_ok=True)
        listener.bind(str(fresh))
        # before listen(): until then nobody can connect
        share(fresh, group)
        listener.listen(BACKLOG)
        fresh.replace(path)
    except OSError as error:
        listener.close()
        with suppress(OSError):
            fresh.unlink()
        raise ControlError(
            f"the control socket {path} cannot be made: {error.strerror or error}",
            f"ls -ld {path.parent}",
        ) from error
    return listener


def share(path: Path, group: int | None) -> None:
    """Let the members of *group* use the socket at *path*, or nobody but its owner and root.

    Raises OSError.
    """
    if group is None:
        path.chmod(0o600)
        return
    os.chown(path, -1, group)
    path.chmod(0o660)


def _refuse_another_agent(path: Path) -> None:
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise ControlError(f"{path} is there and is no socket", f"ls -l {path}")
    except OSError:
        return  # nothing there; or what is wrong is said when it is made
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        code = probe.connect_ex(str(path))
    # EAGAIN: nobody accepts, but somebody listens (unix(7))
    if code in {0, errno.EAGAIN}:
        raise ControlError(
            f"another agent listens on the control socket {path}", f"fuser -v {path}"
        )
