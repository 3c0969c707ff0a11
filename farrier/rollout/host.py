"""What a rollout asks of one host, by SSH: a look, its lease, and the verbs that the lease fences.

How it is fenced: :mod:`farrier.rollout.fenced`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from farrier_agent import status
from farrier_agent.control.protocol import (
    Bundle,
    Diagnosed,
    Done,
    Fingerprinted,
    GpuReset,
    LedgerCopy,
    Ledgers,
    LetGo,
    News,
    Ran,
    TakenUp,
)

from farrier.rollout.counts import Counts, parse
from farrier.rollout.driver_asked import OnHost, on_host, question_of_driver
from farrier.rollout.errors import RolloutError
from farrier.rollout.fenced import CALL_SECONDS, Fenced
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


@dataclass(frozen=True)
class Look:
    """How a host is, and what it counted of its requests (None: its metrics are not for us)."""

    seen: HostSeen
    counts: Counts | None


class Host(Fenced):
    """*target* during a rollout. Several threads may use it."""

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
                reboot_required={"yes": True, "no": False}.get(parts.get("reboot", "").strip()),
            ),
            counts,
        )

    def units(self, replicas: Sequence[str]) -> dict[str, tuple[str, str]]:
        """The text of the unit of each of *replicas*, and of the one before it ("": none)."""
        done = self.shell.run(question_of_units(replicas), timeout=LOOK_SECONDS)
        return texts_of_units(replicas, done.stdout)

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

    def let_go(
        self,
        replicas: Sequence[str],
        deed: str,
        *,
        gpus: Sequence[str] = (),
        on_news: Callable[[News], None] | None = None,
    ) -> LetGo:
        """Mark it and have nobody use its GPUs, for *deed*. Asked twice is once."""
        words = [*replicas, "--deed", deed]
        for one in gpus:
            words += ["--gpu", one]
        final = self._fenced("act", "let-go", *words, timeout=None, on_news=on_news)
        if not isinstance(final, LetGo):
            raise RolloutError(f"{self.name}: its agent answered {type(final).__name__}")
        return final

    def take_up(
        self, replicas: Sequence[str], *, on_news: Callable[[News], None] | None = None
    ) -> TakenUp:
        """Start again what was stopped to let go. Asked twice is once."""
        final = self._fenced("act", "take-up", *replicas, timeout=None, on_news=on_news)
        if not isinstance(final, TakenUp):
            raise RolloutError(f"{self.name}: its agent answered {type(final).__name__}")
        return final

    def gpu_reset(
        self, gpus: Sequence[str], *, on_news: Callable[[News], None] | None = None
    ) -> GpuReset:
        """Reset *gpus*, which nobody has. A second reset is no harm."""
        words = [word for one in gpus for word in ("--gpu", one)]
        final = self._fenced("act", "gpu-reset", *words, timeout=None, on_news=on_news)
        if not isinstance(final, GpuReset):
            raise RolloutError(f"{self.name}: its agent answered {type(final).__name__}")
        return final

    def gpu_diag(
        self,
        level: int,
        gpus: Sequence[str],
        *,
        attempt: int,
        on_news: Callable[[News], None] | None = None,
    ) -> Diagnosed:
        """Have DCGM diagnose *gpus* (every one, without). An *attempt* asked for twice is one."""
        words = ["--level", str(level), "--attempt", str(attempt)]
        words += [word for one in gpus for word in ("--gpu", one)]
        final = self._fenced("act", "gpu-diag", *words, timeout=None, on_news=on_news)
        if not isinstance(final, Diagnosed):
            raise RolloutError(f"{self.name}: its agent answered {type(final).__name__}")
        return final

    def fingerprint(
        self,
        action: str,
        replicas: Sequence[str],
        seconds: float,
        on_news: Callable[[News], None] | None = None,
    ) -> Fingerprinted:
        """What it is made of, and how fast *replicas* are, each measured for *seconds*."""
        timeout = CALL_SECONDS + 2 * (seconds + 10) * max(1, len(replicas))
        words = ("fingerprint", action, *replicas, "--seconds", f"{seconds:g}")
        final = self._last_word(self.shell.agent(*words, timeout=timeout, on_news=on_news))
        if not isinstance(final, Fingerprinted):
            raise RolloutError(f"{self.name}: its agent answered {type(final).__name__}")
        return final

    def driver(self, packages: Iterable[str | None]) -> OnHost:
        """Which driver is there, by its *packages*."""
        done = self.shell.run(question_of_driver(packages), timeout=CALL_SECONDS)
        return on_host(done.stdout)

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
