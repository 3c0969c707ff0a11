"""One host by SSH: its lease, and the calls that the lease fences.

Whatever changes something carries the token of the lease in the same call, so that a process that
lost it changes nothing, however late it asks. A call whose answer was lost is asked again only
where that is the same as asking once.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from farrier_agent.control.protocol import Done, Failed, Final, Leased, News

from farrier.fleet import AgentReply, LostError, NoAnswerError, Shell, Target, UnreachableError
from farrier.rollout.errors import FencedError, RefusedError, RolloutError

__all__ = ["CALL_SECONDS", "Fenced"]

CALL_SECONDS = 30.0
"""How long the agent may take for what does not wait for requests or engines."""
BETWEEN = 1.0
"""Seconds between two attempts to reach a host."""

_T = TypeVar("_T")


class Fenced:
    """*target*, and the lease that a rollout has of it. Several threads may use it."""

    def __init__(self, target: Target, shell: Shell | None = None) -> None:
        self.target = target
        self.name = target.name
        self.shell = shell or Shell(target)
        self.token: int | None = None
        self.away = threading.Event()
        """It reboots: nobody wonders that its lease cannot be renewed."""

    def close(self) -> None:
        """Let go of the connection."""
        self.shell.close()

    def lease(self) -> Leased | None:
        """Who has the lease."""
        final = self._ask("lease", "show").final
        return final if isinstance(final, Leased) else None

    def take(self, rollout: str, holder: str, seconds: float, *, takeover: bool = False) -> None:
        """Take its lease. Raises RefusedError that says who has it."""
        more = ("--takeover",) if takeover else ()
        words = ("--rollout", rollout, "--holder", holder, "--seconds", f"{seconds:g}", *more)
        final = self._last_word(self._ask("lease", "take", *words))
        if not isinstance(final, Leased):
            raise RolloutError(f"{self.name}: its agent answered {type(final).__name__} to a lease")
        self.token = final.token

    def renew(self) -> None:
        """Have the lease for as long again. Raises FencedError when it is no longer ours."""
        self._fenced("lease", "renew")

    def release(self) -> None:
        """Give the lease back; what it holds drained is served again, unless it was acted on."""
        if self.token is not None:
            self._fenced("lease", "release")
            self.token = None

    def persistently(self, ask: Callable[[], _T], seconds: float) -> _T:
        """What *ask* answers; asked again while the host cannot be reached, for *seconds*.

        These count from when it was lost: a drain or a diagnosis may have gone on for hours by
        then. Only for what may be asked twice.
        """
        end: float | None = None
        while True:
            begun = time.monotonic()
            try:
                return ask()
            except (UnreachableError, LostError, NoAnswerError):
                now = time.monotonic()
                if end is None or now - begun > seconds:
                    end = now + seconds
                if now + BETWEEN >= end:
                    raise
            time.sleep(BETWEEN)

    def _fenced(
        self,
        verb: str,
        *words: str,
        after: Sequence[str] = (),
        timeout: float | None = CALL_SECONDS,
        stdin: bytes | None = None,
        on_news: Callable[[News], None] | None = None,
    ) -> Final:
        if self.token is None:
            raise FencedError(f"{self.name}: its lease is not ours")
        token = ("--token", str(self.token))
        asked = (verb, *words, *token, *after)
        return self._last_word(
            self.shell.agent(*asked, stdin=stdin, timeout=timeout, on_news=on_news)
        )

    def _ask(self, *words: str, timeout: float | None = CALL_SECONDS) -> AgentReply:
        return self.shell.agent(*words, timeout=timeout)

    def _last_word(self, reply: AgentReply) -> Final:
        final = reply.final
        if not isinstance(final, Failed):
            return final
        what = f"{self.name}: {final.error}"
        if final.code != 3:
            raise RolloutError(what, final.next)
        if self.token is not None and not self._is_ours():
            raise FencedError(what, final.next)
        raise RefusedError(what, final.next)

    def confirm(self) -> None:
        """Raise FencedError unless its lease is ours: then what went wrong is for others to say."""
        if not self._is_ours():
            raise FencedError(f"{self.name}: its lease ran out, or is another process's now")

    def _is_ours(self) -> bool:
        now = self.lease()
        return now is None or (now.token == self.token and now.expires_in is not None)

    def _done(self, final: Final) -> Done:
        if not isinstance(final, Done):
            raise RolloutError(f"{self.name}: its agent answered {type(final).__name__}")
        return final
