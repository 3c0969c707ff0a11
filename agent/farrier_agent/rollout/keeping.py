"""Keeps the lease and the mark *acting* on the disk: nothing is done before it is there.

``lease.json`` is replaced as a whole. ``token`` beside it has the greatest token once more, so that
a lease that is lost leaves tokens growing; the audit names them a third time. A file that is no
state is moved aside, and what it said is then *unknown*: as if a rollout were at work here, for one
may be. Who calls this may be killed after any line.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import msgspec

from farrier_agent.draining.record import Now
from farrier_agent.durable import replace
from farrier_agent.rollout.audit import AuditLog
from farrier_agent.rollout.lease import SCHEMA, State, lost

__all__ = ["LeaseFile", "LeaseFileError"]

_MAX_SIZE = 64 * 1024


class LeaseFileError(RuntimeError):
    """What is kept cannot be read or written; the message says which file, why, and what next."""


class _Head(msgspec.Struct):
    schema: int


_head = msgspec.json.Decoder(_Head)
_state = msgspec.json.Decoder(State)


class LeaseFile:
    """The state in *directory*. May block."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "lease.json"
        self._token = directory / "token"
        self._audit = AuditLog(directory)

    def load(self, now: Now) -> tuple[State, str | None]:
        """The state, and what was wrong with it where that was lost.

        Raises LeaseFileError when the file is a newer agent's or cannot be read; it then stands.
        """
        data = self._read()
        if data is None:
            token = self._highest()
            if token == 0:
                return State(), None
            return self._begin_anew(token, f"{self._path} is gone", now)
        try:
            head = _head.decode(data)
            if head.schema > SCHEMA:
                raise LeaseFileError(
                    f"{self._path}: schema {head.schema} is newer than this agent's ({SCHEMA});"
                    " next: upgrade the agent"
                )
            state = _state.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            aside = self._set_aside()
            why = f"{self._path}: {error}; it was moved to {aside}"
            return self._begin_anew(self._highest(), why, now)
        return msgspec.structs.replace(state, token=max(state.token, self._kept_token())), None

    def save(self, state: State, *, durable: bool = True) -> None:
        """Replace the state; *durable*: on the disk when this returns. Raises LeaseFileError."""
        try:
            self._path.parent.mkdir(mode=0o750, exist_ok=True)
            data = msgspec.json.format(msgspec.json.encode(state), indent=1) + b"\n"
            replace(self._path, data, mode=0o640, durable=durable)
            if durable and state.token != self._kept_token():
                replace(self._token, b"%d\n" % state.token, mode=0o640)
        except OSError as error:
            raise LeaseFileError(
                f"{self._path}: cannot be written: {error.strerror};"
                f" next: df -h {self._path.parent}"
            ) from error

    def _begin_anew(self, token: int, why: str, now: Now) -> tuple[State, str]:
        state = lost(token, now)
        self.save(state)
        return state, why

    def _read(self) -> bytes | None:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            with os.fdopen(os.open(self._path, flags), "rb") as file:
                return file.read(_MAX_SIZE)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise LeaseFileError(
                f"{self._path}: cannot be read: {error.strerror}; next: ls -l {self._path}"
            ) from error

    def _set_aside(self) -> Path:
        bad = self._path.with_suffix(".bad")
        try:
            self._path.replace(bad)
        except OSError as error:
            raise LeaseFileError(
                f"{self._path}: cannot be moved to {bad}: {error.strerror}"
            ) from error
        return bad

    def _kept_token(self) -> int:
        with suppress(OSError, ValueError):
            return max(0, int(self._token.read_bytes()[:32]))
        return 0

    def _highest(self) -> int:
        token = self._kept_token()
        with suppress(OSError):
            token = max(token, self._audit.highest_token())
        return token
