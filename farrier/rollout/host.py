"""What a rollout asks of one host, by SSH: a look, its lease, and the verbs that the lease fences.

Whatever changes something carries the token of the lease in the same call, so that a process that
lost it changes nothing, however late it asks. A call whose answer was lost is asked again only
where that is the same as asking once.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from farrier_agent import status
from farrier_agent.control.protocol import (
    Bundle,
    Done,
    Failed,
    Final,
    Leased,
    LedgerCopy,
    Ledgers,
    News,
    Ran,
)

from farrier.fleet import AgentReply, LostError, NoAnswerError, Shell, Target, UnreachableError
from farrier.rollout.counts import Counts, parse
from farrier.rollout.errors import FencedError, RefusedError, RolloutError
from farrier.rollout.questions import (
    parts_of,
    question,
    question_of_units,
    texts_of_units,
)
from farrier.rollout.seen import OUR_REASON, HostSeen, seen
from farrier.rollout.units_seen import units_in

__all__ = ["LOOK_SECONDS", "Host", "Look"]

LOOK_SECONDS = 20.0
"""How long a host may take to say how it is."""
CALL_SECONDS = 30.0
"""How long the agent may take for what does not wait for requests or engines."""
BETWEEN = 1.0
"""Seconds between two attempts to reach a host."""

_T = TypeVar("_T")


@dataclass(frozen=True)
class Look:
    """How a host is, and what it counted of its requests (None: its metrics are not for us)."""

    seen: HostSeen
    counts: Counts | None


class Host:
    """*target* during a rollout. Several threads may use it."""

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

    # what changes nothing

    def look(self) -> Look:
        """How it is now. Raises ShellError, RolloutError."""
        done = self.shell.run(question(self.target), timeout=LOOK_SECONDS)
        parts = parts_of(done.stdout)
        try:
            told = status.loads(parts.get("status", "").strip().encode())
        except status.StatusError as error:
            said = done.stderr.strip().splitlines()
            raise RolloutError(
                f"{self.name}: its agent does not say how it is: {said[-1] if said else error}",
                f"farrier exec {self.name} -- systemctl status farrier-agent",
            ) from error
        counts = parse(parts["metrics"]) if "llm_" in parts.get("metrics", "") else None
        configurations = dict(
            words
            for line in parts.get("started", "").splitlines()
            if len(words := line.split()) == 2
        )
        return Look(
            seen(
                told,
                boot_id=parts.get("boot", "").strip() or None,
                configurations=configurations,
                units=units_in(parts.get("units", "")),
                waiting=counts.waiting if counts else {},
            ),
            counts,
        )

    def units(self, replicas: Sequence[str]) -> dict[str, tuple[str, str]]:
        """The text of the unit of each of *replicas*, and of the one before it ("": none)."""
        done = self.shell.run(question_of_units(replicas), timeout=LOOK_SECONDS)
        return texts_of_units(replicas, done.stdout)

    def lease(self) -> Leased | None:
        """Who has the lease."""
        final = self._ask("lease", "show").final
        return final if isinstance(final, Leased) else None

    def ledgers(self) -> tuple[LedgerCopy, ...]:
        """The ledgers that it keeps, without their content."""
        final = self._ask("ledger", "list").final
        return final.ledgers if isinstance(final, Ledgers) else ()

    def ledger(self, rollout: str) -> bytes | None:
        """The copy of one ledger."""
        final = self._ask("ledger", "get", rollout).final
        copies = final.ledgers if isinstance(final, Ledgers) else ()
        content = copies[0].content if copies else None
        return content.encode() if content is not None else None

    def outcome_of_run(self, rollout: str) -> str | None:
        """What the host's audit says of the end of this rollout's command; None: nothing."""
        reply = self._ask("audit", "--lines", "200")
        lines = getattr(reply.final, "lines", ())
        ends = [
            line.outcome
            for line in lines
            if getattr(line, "rollout", None) == rollout
            and "ran" in line.verb
            and not line.outcome.startswith("begun")
        ]
        return ends[-1] if ends else None

    # the lease

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

    # what the lease fences

    def drain(
        self,
        replicas: Sequence[str],
        rollout: str,
        *,
        deadline: float | None,
        on_deadline: str | None,
        on_news: Callable[[News], None],
    ) -> Done:
        """Drain *replicas* and wait for the end; a second drain joins the first."""
        words = [*replicas, "--wait", "--reason", f"{OUR_REASON}{rollout}"]
        if deadline is not None:
            words += ["--deadline", f"{deadline:g}"]
        if on_deadline is not None:
            words += ["--on-deadline", on_deadline]
        return self._done(self._fenced("drain", *words, timeout=None, on_news=on_news))

    def restart(
        self,
        runs: Mapping[str, str | None],
        *,
        on_news: Callable[[News], None],
    ) -> Done:
        """Restart the replicas of *runs* and wait until they are warm, gates closed.

        One that is not in the run that *runs* says is only waited for: asked twice is once.
        """
        words = list(runs)
        for name, run in runs.items():
            if run:
                words += ["--run", f"{name}={run}"]
        return self._done(self._fenced("act", "restart", *words, timeout=None, on_news=on_news))

    def put_back(self, replicas: Sequence[str]) -> Done:
        """Put the units of *replicas* back to those from before; interrupts nothing.

        Asked twice is once. Raises RefusedError where there is nothing to go back to.
        """
        # systemd reads all its units anew, which takes a while on a busy host
        return self._done(self._fenced("act", "back", *replicas, timeout=120))

    def reboot(self) -> None:
        """Mark it and reboot it."""
        self._fenced("act", "reboot", timeout=120)

    def run(self, command: Sequence[str]) -> Ran:
        """Mark it and run *command* there, as root."""
        final = self._fenced("act", "run", after=("--", *command), timeout=None)
        if not isinstance(final, Ran):
            raise RolloutError(f"{self.name}: its agent answered {type(final).__name__} to a run")
        return final

    def ready(self, replicas: Sequence[str], rollout: str, *, timeout: float | None = None) -> Done:
        """Take this rollout's drain of *replicas* back, and wait until they are ready."""
        words = (*replicas, "--wait", "--reason", f"{OUR_REASON}{rollout}")
        return self._done(self._fenced("ready", *words, timeout=timeout))

    def settle(self) -> None:
        """Take the mark away: all is well."""
        self._fenced("act", "done")

    def put(self, rollout: str, ledger: bytes) -> None:
        """Keep a copy of the ledger there."""
        self._fenced("ledger", "put", rollout, stdin=ledger)

    def evidence(self, replica: str, reason: str) -> str | None:
        """Collect what explains how *replica* fares; where it lies on the host."""
        words = (replica, "--reason", reason)
        final = self._ask("evidence", *words, timeout=120).final
        return final.path if isinstance(final, Bundle) else None

    def persistently(self, ask: Callable[[], _T], seconds: float) -> _T:
        """What *ask* answers; asked again while the host cannot be reached, for *seconds*.

        Only for what may be asked twice.
        """
        end = time.monotonic() + seconds
        while True:
            try:
                return ask()
            except (UnreachableError, LostError, NoAnswerError):
                if time.monotonic() + BETWEEN >= end:
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
