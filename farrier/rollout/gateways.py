"""What a rollout asks of the gateways: a share of traffic for a canary, and what they saw of it.

All gateways at once, over SSH as root. Everything may be asked twice. What they saw is read from
the journal, where HAProxy's access log is (a line for each request, never limited): exactly, and by
replica, which the agent's metrics are not.
"""

from __future__ import annotations

import json
import shlex
import threading
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

from farrier_agent.collectors.gateway_log import Line

from farrier.fleet import Shell, ShellError, Target
from farrier.rollout.comparing import Answers
from farrier.rollout.errors import RolloutError

__all__ = ["SHARE", "Counting", "Gateways", "GatewaysError"]

SHARE = "/etc/haproxy/farrier/share"
"""The gateway's program that shares out: ``share [HOST:REPLICA PERCENT]``."""
ALL = 100
"""The share that ends a share."""
CALL_SECONDS = 30.0
PARALLEL = 16

_READ = """
import collections, json, subprocess, sys, time
now = time.time()
since, cursor, models = float(sys.argv[1]), sys.argv[2], set(sys.argv[3:])
found = collections.Counter()
if since:
    after = ["--after-cursor", cursor] if cursor else ["--since", "@%d" % since]
    words = ["journalctl", "-q", "-t", "haproxy", "-o", "cat", "--show-cursor", *after]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as journal:
        for line in journal.stdout:
            if line.startswith(b"-- cursor: "):
                cursor = line[11:].decode().strip()
            if not line.startswith(b"{"):
                continue
            try:
                one = json.loads(line)
                if one["model"] not in models or one["time"] < since:
                    continue
                first = one.get("first_token_ms", -1)
                if first < 0:
                    times = one["queue_ms"], one["connect_ms"], one["first_byte_ms"]
                    first = sum(max(0, each) for each in times) if times[2] >= 0 else -1
                step = 10 ** max(0, len(str(first)) - 2)
                key = one["replica"], one["status"], one["termination"][:2], first // step * step
                found[key] += 1
            except (ValueError, KeyError, TypeError):
                continue
    if journal.returncode:
        sys.exit("journalctl ended with %d" % journal.returncode)
counts = [[*key, count] for key, count in found.items()]
print(json.dumps({"now": now, "cursor": cursor, "counts": counts}))
"""
"""Prints how many requests ended since the last look, by replica, status, how they ended, and the
milliseconds until their first token, with two digits (until the answer's head, where a gateway does
not look into answers). Arguments: not before (seconds since the
epoch, 0: nothing is read), the journal's cursor, models."""

_T = TypeVar("_T")


class GatewaysError(RolloutError):
    """Some gateways did not do what they were asked; ``by`` says which, and why.

    ``refused``: one could be asked and said no, so that asking again would not help.
    """

    def __init__(self, by: Mapping[str, str], *, refused: bool = False) -> None:
        names = ", ".join(by)
        super().__init__(
            "; ".join(f"gateway {name}: {why}" for name, why in by.items()),
            f"farrier exec --sudo {names.replace(', ', ' ')} -- systemctl status haproxy",
        )
        self.by = by
        self.refused = refused


@dataclass
class _Place:
    """Where the reading of one gateway's journal stands."""

    since: float
    cursor: str = ""


@dataclass
class Counting:
    """The answers for ``models`` since it began, by HOST:REPLICA, from all gateways."""

    models: tuple[str, ...]
    answers: dict[str, Answers] = field(default_factory=dict)
    places: dict[str, _Place] = field(default_factory=dict)

    def sides(self, replica: str, others: Collection[str]) -> tuple[Answers, Answers]:
        """What is of *replica*, and of *others* together."""
        rest = Answers()
        for name in others:
            if (one := self.answers.get(name)) is not None:
                rest.add(one)
        return self.answers.get(replica) or Answers(), rest

    def take(self, counts: Iterable[tuple[str, int, str, int, int]]) -> None:
        """Add what a gateway read in its journal."""
        for replica, status, termination, milliseconds, count in counts:
            line = Line(time=0.0, status=status, termination=termination)
            one = Answers(statuses={line.code: count})
            if line.cut_by == "server":
                one.broken = count
            if 200 <= status < 300 and milliseconds >= 0:
                one.first_token[milliseconds] = count
            self.answers.setdefault(replica, Answers()).add(one)


class Gateways:
    """The fleet's gateways, *targets*, for the rollout of *holder*. Several threads may use it."""

    def __init__(self, targets: Iterable[Target], shells: Mapping[str, Shell] | None = None):
        self._shells = dict(shells) if shells else {one.name: Shell(one) for one in targets}
        self._lock = threading.Lock()

    @property
    def names(self) -> tuple[str, ...]:
        """Their names."""
        return tuple(self._shells)

    def close(self) -> None:
        """Let go of the connections."""
        for shell in self._shells.values():
            shell.close()

    def shares(self) -> dict[str, dict[str, int]]:
        """By gateway, who has a share of its own now, in percent. Raises GatewaysError."""
        return self._all(_shares)

    def replicas(self) -> dict[str, set[str]]:
        """By gateway, the HOST:REPLICA that it knows. Raises GatewaysError."""
        return self._all(_replicas)

    def share(self, replica: str, percent: int, *, rollout: str, holder: str) -> None:
        """Give *replica* (HOST:REPLICA) *percent* of its model's requests; 100 ends that.

        Where it is so already nothing is done. Raises GatewaysError with those where it is not.
        """

        def ask(shell: Shell) -> None:
            now = _shares(shell).get(replica, ALL)
            if now == percent:
                return
            _run(shell, f"{SHARE} {shlex.quote(replica)} {percent}")
            _note(shell, f"share {replica} {percent}", rollout, holder)

        with self._lock:  # of one rollout's threads, one after the other: maps are files
            self._all(ask)

    def counting(self, models: Iterable[str]) -> Counting:
        """Count from now on, by each gateway's own clock. Raises GatewaysError if none answers."""
        it = Counting(tuple(models))
        self._look(it)
        return it

    def count(self, it: Counting) -> dict[str, str]:
        """Add what was answered since the last time; gateways that could not be asked, and why.

        What one of those saw is counted the next time. Raises GatewaysError if none could be asked.
        """
        return self._look(it)

    def _look(self, it: Counting) -> dict[str, str]:
        silent: dict[str, str] = {}

        def read(shell: Shell) -> None:
            name = shell.target.name
            place = it.places.get(name)
            words = [f"{place.since:f}" if place else "0", place.cursor if place else ""]
            script = shlex.join(["python3", "-I", "-c", _READ, *words, *it.models])
            told = json.loads(_run(shell, script))
            if place is None:
                it.places[name] = _Place(told["now"])
                return
            with self._lock:
                it.take(tuple(one) for one in told["counts"])
            place.cursor = told["cursor"]

        try:
            self._all(read)
        except GatewaysError as said:
            silent = dict(said.by)
            if len(silent) == len(self._shells):
                raise
        return silent

    def _all(self, ask: Callable[[Shell], _T]) -> dict[str, _T]:
        """What each gateway answers to *ask*. Raises GatewaysError where one does not."""
        silent: dict[str, str] = {}
        refused: list[str] = []

        def one(shell: Shell) -> tuple[str, _T | None]:
            try:
                return shell.target.name, ask(shell)
            except ShellError as error:
                silent[shell.target.name] = error.what
            except RolloutError as error:
                silent[shell.target.name] = error.what
                refused.append(shell.target.name)
            return shell.target.name, None

        with ThreadPoolExecutor(PARALLEL) as pool:
            answers: dict[str, Any] = dict(pool.map(one, self._shells.values()))
        if silent:
            raise GatewaysError(silent, refused=bool(refused))
        return answers


def _shares(shell: Shell) -> dict[str, int]:
    lines = [line.split() for line in _run(shell, SHARE).splitlines()]
    return {words[0]: int(words[1]) for words in lines if len(words) == 2 and words[1].isdigit()}


def _replicas(shell: Shell) -> set[str]:
    """From HAProxy's configuration, for its socket may be busy: ``server HOST:REPLICA ADDRESS``."""
    said = _run(shell, "grep -E '^ *server ' /etc/haproxy/haproxy.cfg || true")
    return {line.split()[1] for line in said.splitlines()}


def _run(shell: Shell, command: str) -> str:
    done = shell.run(command, timeout=CALL_SECONDS)
    if done.code:
        said = done.stderr.strip().splitlines() or [f"exit code {done.code}"]
        raise RolloutError(said[-1] if done.code != 127 else f"it is no gateway: {said[-1]}")
    return done.stdout


def _note(shell: Shell, what: str, rollout: str, holder: str) -> None:
    """A line in the gateway's audit; an agent that is not there, or knows no notes, writes none."""
    words = ["farrier-agent", "audit", "--lines", "0", "--note", what]
    words += ["--rollout", rollout, "--holder", holder]
    shell.run(f"{shlex.join(words)} >/dev/null 2>&1 || true", timeout=CALL_SECONDS)
