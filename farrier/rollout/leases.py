"""Keeps the leases of a rollout's hosts alive, and knows which were lost."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from farrier.fleet import ShellError
from farrier.rollout.errors import CutOffError, FencedError, RefusedError, RolloutError
from farrier.rollout.host import Host

__all__ = ["Leases"]

PARALLEL = 16


class Leases:
    """The leases of *hosts* for *rollout*, each for *seconds*, renewed at a third of that time.

    A lease is lost when a host refuses to renew it, or could not be asked for as long as it lasts.
    ``lost`` is by host; nothing more may be done on one.
    """

    def __init__(self, hosts: Sequence[Host], rollout: str, holder: str, seconds: float) -> None:
        self._hosts = tuple(hosts)
        self._rollout = rollout
        self._holder = holder
        self._seconds = seconds
        self._renewed: dict[str, float] = {}
        self._closed = threading.Event()
        self.lost: dict[str, FencedError] = {}

    def take_all(
        self, *, takeover: Collection[str] = (), wait: Mapping[str, float] | None = None
    ) -> None:
        """Take every lease, or none. Raises RefusedError with who has one, ShellError.

        On the hosts *takeover* what another rollout left half done is taken over. *wait*: so many
        seconds for hosts (by name) that cannot be reached now, as one that reboots.
        """
        # the first one alone: of two rollouts of the same hosts one gets it, and goes on
        head, rest = self._hosts[:1], self._hosts[1:]

        def take(host: Host) -> None:
            seconds = (wait or {}).get(host.name, 0.0)
            host.persistently(lambda: self.take(host, takeover=host.name in takeover), seconds)

        try:
            for part in (head, rest):
                with ThreadPoolExecutor(PARALLEL) as pool:
                    list(pool.map(take, part))
        except (RolloutError, ShellError):
            self.release_all()
            raise
        for host in self._hosts:
            threading.Thread(target=self._keep, args=(host,), daemon=True).start()

    def take(self, host: Host, *, takeover: bool = False) -> None:
        """Take one lease; again where it is ours already, which fences whoever had it."""
        before = time.monotonic()
        host.token = None
        try:
            host.take(self._rollout, self._holder, self._seconds, takeover=takeover)
        except RefusedError as error:
            raise RefusedError(f"the lease of {error.what}", error.next) from error
        self._renewed[host.name] = before
        self.lost.pop(host.name, None)

    def check(self, host: str) -> None:
        """Raise FencedError if the lease of *host* was lost."""
        if error := self.lost.get(host):
            raise error

    def release_all(self) -> list[str]:
        """Give every lease back that is ours; which could not be, and why."""
        self._closed.set()

        def release(host: Host) -> str | None:
            if host.name in self.lost or host.token is None:
                return None
            try:
                host.release()
            except (RolloutError, ShellError) as error:
                return f"{host.name}: its lease runs out by itself: {getattr(error, 'what', error)}"
            return None

        with ThreadPoolExecutor(PARALLEL) as pool:
            return [said for said in pool.map(release, self._hosts) if said]

    def _keep(self, host: Host) -> None:
        pause: float = self._seconds / 3
        while not self._closed.wait(pause):
            pause = self._seconds / 3
            if host.away.is_set() or host.name in self.lost:
                continue
            before = time.monotonic()
            token = host.token
            try:
                host.renew()
                self._renewed[host.name] = before
            except FencedError as error:
                if not host.away.is_set() and host.token == token and not self._closed.is_set():
                    self.lost[host.name] = error
            except (RolloutError, ShellError) as error:
                since = time.monotonic() - self._renewed[host.name]
                if since > self._seconds and not host.away.is_set():
                    self.lost[host.name] = CutOffError(
                        f"{host.name}: its lease could not be renewed for {since:.0f} s:"
                        f" {getattr(error, 'what', error)}"
                    )
                pause = min(2.0, self._seconds / 6)
