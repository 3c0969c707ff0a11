"""The web configuration in force, read again when one of its files changes.

A file that cannot be used changes nothing: what was in force stays. Where nothing was, nobody is
answered: an endpoint that was to be protected never falls back to an open one.
"""

from __future__ import annotations

import logging
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from farrier_agent.web import passwords
from farrier_agent.web.bucket import Bucket
from farrier_agent.web.configuration import (
    RateLimit,
    WebConfigError,
    WebConfiguration,
    parse,
    seconds,
)
from farrier_agent.web.tls import Tls
from farrier_agent.web.users import Users

__all__ = ["LOOK_SECONDS", "InForce", "Rules", "check", "summary"]

log = logging.getLogger("farrier-agent")

LOOK_SECONDS = 1.0
"""The files are looked at so often at most. A change counts once it is seen twice as it is."""
MAX_BYTES = 1024 * 1024

Stamp = tuple[int, int, int, int] | None


class Rules(NamedTuple):
    """What holds for connections and requests. None: plain HTTP; everybody; without end."""

    tls: Tls | None = None
    users: Users | None = None
    limit: Bucket | None = None
    headers: tuple[tuple[str, str], ...] = ()


class _Read(NamedTuple):
    """What the files say. ``contents``: by key; the configuration's own is ``""``."""

    configuration: WebConfiguration
    contents: dict[str, bytes]


class InForce:
    """The rules of the file at *path*; None: no file, plain HTTP for everybody."""

    def __init__(
        self,
        path: Path | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.path = path
        self._clock = clock
        self._rules: Rules | None = Rules() if path is None else None
        self._read: _Read | None = None
        self._problem: str | None = None
        self._watched: frozenset[Path] = frozenset({path} if path else ())
        self._stamps: dict[Path, Stamp] = {}
        self._settled = False
        self._looked: float | None = None

    @property
    def problem(self) -> str | None:
        """Why the file as it is now cannot be used and what that costs; None: it is in force."""
        return self._problem

    @property
    def good(self) -> bool | None:
        """Whether the file as it is now is in force; None where there is none."""
        return None if self.path is None else self._problem is None

    def rules(self) -> Rules | None:
        """What holds now; None: nobody is answered. Looks at the files at most once a second."""
        now = self._clock()
        if self.path and (self._looked is None or now - self._looked >= LOOK_SECONDS):
            self._looked = now
            self._look(self.path)
        return self._rules

    def _look(self, path: Path) -> None:
        stamps = {one: _stamp(one) for one in self._watched}
        first, changed = not self._stamps, stamps != self._stamps
        self._stamps = stamps
        if changed and not first:
            # half of a file may be written: half of the protection. Nor would a second change
            # within the file system's clock be seen
            self._settled = False
            return
        if self._settled:
            return
        self._settled = not first
        try:
            self._take(path)
        except WebConfigError as error:
            self._blame(f"{path}: {error}")
        else:
            self._blame(None)
        if self._watched != stamps.keys():
            self._settled = False
            self._stamps = {one: _stamp(one) for one in self._watched}

    def _take(self, path: Path) -> None:
        text = _contents("", path)
        configuration = _parsed(text)
        files = configuration.files(path.parent)
        self._watched = frozenset({path, *files.values()})
        contents = {"": text} | {key: _contents(key, file) for key, file in files.items()}
        read = _Read(configuration, contents)
        if read == self._read:
            return
        self._rules = _rules(read, self._read, self._rules)
        self._read = read
        log.info("the web configuration %s is in force: %s", path, summary(configuration))

    def _blame(self, problem: str | None) -> None:
        if problem is not None:
            cost = (
                "the one that was read before stays in force"
                if self._rules
                else "until it can be used every HTTP request is refused with 503"
            )
            problem = f"web configuration: {problem}; {cost}"
        if problem and problem != self._problem:
            log.error("%s", problem)
        elif self._problem and not problem:
            log.info("the web configuration %s can be used again", self.path)
        self._problem = problem


def check(path: Path) -> str:
    """What the web configuration at *path* says, in a few words.

    Raises :class:`WebConfigError` where it cannot be used, as whoever asks. Nothing is changed.
    """
    try:
        text = _contents("", path)
        configuration = _parsed(text)
        files = configuration.files(path.parent)
        contents = {key: _contents(key, file) for key, file in files.items()}
        _rules(_Read(configuration, contents), None, None)
    except WebConfigError as error:
        raise WebConfigError(f"{path}: {error}") from None
    return summary(configuration)


def summary(configuration: WebConfiguration) -> str:
    """What *configuration* says, in a few words."""
    tls = configuration.tls_server_config
    users = len(configuration.basic_auth_users)
    words = ["plain HTTP" if tls is None else f"TLS from {tls.min_version}"]
    if tls is not None and tls.asks_clients:
        names = tls.client_allowed_sans
        words.append(
            f"client certificates of {len(names)} name(s)" if names else "any client of the CA"
        )
    words.append(f"{users} user(s)" if users else "no passwords")
    if users and tls is None:
        words.append("whose passwords anybody on the way can read")
    return ", ".join(words)


def _parsed(text: bytes) -> WebConfiguration:
    try:
        return parse(text.decode())
    except UnicodeDecodeError as error:
        raise WebConfigError(f"not UTF-8: {error.reason} at byte {error.start}") from None


def _rules(read: _Read, before: _Read | None, rules: Rules | None) -> Rules:
    """The rules of *read*; of those *before* remain the parts that are wanted as they were."""
    wanted = read.configuration
    tls, users = None, None
    if wanted.tls_server_config is not None:
        files = {key: value for key, value in read.contents.items() if key}
        had = before and {key: value for key, value in before.contents.items() if key}
        same = before and before.configuration.tls_server_config == wanted.tls_server_config
        kept = rules.tls if rules and same and had == files else None
        tls = kept or Tls(wanted.tls_server_config, files)
    if wanted.basic_auth_users:
        passwords.check()
        users = Users(wanted.basic_auth_users, rules.users if rules else None)
    same_limit = before and before.configuration.rate_limit == wanted.rate_limit
    limit = rules.limit if rules and same_limit else _bucket(wanted.rate_limit)
    headers = wanted.http_server_config.headers.items()
    return Rules(tls, users, limit, tuple((name, value) for name, value in headers if value))


def _bucket(limit: RateLimit) -> Bucket | None:
    interval = seconds(limit.interval)
    return Bucket(interval, limit.burst) if interval else None


def _stamp(path: Path) -> Stamp:
    """What is another when a file changes; None where it cannot be seen."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ctime_ns, found.st_mtime_ns, found.st_size, found.st_ino


def _contents(key: str, path: Path) -> bytes:
    where = f"{key}: {path}: " if key else ""
    try:
        # not blocking: a FIFO in its place must not hold everything up
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(fd, "rb") as file:  # noqa: PTH123 - of a descriptor
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise WebConfigError(f"{where}not a regular file")
            data = file.read(MAX_BYTES + 1)
    except PermissionError as error:
        who = f"{error.strerror} for the agent's user; next: ls -lL {path}"
        raise WebConfigError(f"{where}{who}") from None
    except OSError as error:
        raise WebConfigError(f"{where}{error.strerror}") from None
    if len(data) > MAX_BYTES:
        raise WebConfigError(f"{where}more than {MAX_BYTES // 1024} KiB")
    return data
