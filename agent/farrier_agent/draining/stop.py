"""The program of an engine unit's ``ExecStop=+``: it ends when the replica is drained.

It asks the agent, which drains as for everybody. It stands on its own when the agent does not
answer in two seconds, dies meanwhile or does not get on: then it closes the gate, counts the
requests in flight and waits, on the same record under the same lock. When it is killed itself, its
next run (the unit names it twice) or the agent carries on from the record.

While it waits it asks systemd for more time, up to a cap: reboot.target gives up after 30 minutes.

Exit codes: 0 drained, or given up as the policy says, which is logged and recorded; 1 it was told
to end before; 2 wrong usage. systemd ends the engine after each of them.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from farrier_agent.draining import inflight, sockets
from farrier_agent.draining.asking import Asking
from farrier_agent.draining.book import Book, close, lost, say
from farrier_agent.draining.events import GaveUp, Looked, StopBegan
from farrier_agent.draining.extending import AHEAD, Extender
from farrier_agent.draining.record import Now, Phase, Record
from farrier_agent.draining.store import DEFAULT_DIRECTORY, Store
from farrier_agent.gate import Gates

__all__ = ["main"]

EVERY = 1.0
"""Seconds between two looks."""
STALE = 5.0
"""Seconds without a look after which the agent is taken to be at something else."""
_SIGNALS = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line, as the role writes it into the unit."""
    parser = argparse.ArgumentParser(
        prog="farrier_agent.draining.stop", description=(__doc__ or "").split("\n", maxsplit=1)[0]
    )
    add = parser.add_argument
    add("replica")
    add("--port", type=int, required=True, help="the engine's port on loopback")
    add("--nginx-user", default="www-data", help="as whom nginx's workers run [%(default)s]")
    add("--gate-dir", type=Path, default=Path("/run/farrier/open"))
    add("--state-dir", type=Path, default=DEFAULT_DIRECTORY)
    add("--socket", type=Path, default=Path("/run/farrier/agent/control.sock"))
    add("--answer-within", type=float, default=2.0, help="seconds for the agent to begin")
    add("--deadline", type=float, default=900.0, help="seconds, without the agent [%(default)s]")
    add("--on-deadline", choices=("extend", "force"), default="extend")
    add("--cap", type=float, default=1380.0, help="seconds after which nobody waits [%(default)s]")
    add("--client-ports", type=int, nargs="*", default=(), help="nginx's: wait for slow readers")
    add("--client-seconds", type=float, default=5.0, help="but no longer than this [%(default)s]")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Drain, as systemd asks for it. Returns the exit code."""
    options = parse(arguments)
    # before any thread: signals are waited for, not handled
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    gates = Gates(options.gate_dir)
    if not os.environ.get("MAINPID"):
        say("INFO", f"replica {options.replica}: its engine has ended by itself")
        close(gates, options.replica)
        return 0
    return _Stop(options, gates, os.environ).run()


class _Stop:
    """One run of ``ExecStop=``."""

    def __init__(
        self, options: argparse.Namespace, gates: Gates, environment: Mapping[str, str]
    ) -> None:
        self._options = options
        self._begun = time.monotonic()
        self._run_id = environment.get("INVOCATION_ID")
        self._main_pid = int(environment["MAINPID"])
        self._systemd = Extender(environment)
        self._book = Book(options.replica, Store(options.state_dir), gates)
        self._count = _counter(options)
        self._over = False

    def run(self) -> int:
        """Wait until the replica is drained, by whoever drains it. Returns the exit code."""
        self._systemd.say("draining: asking the agent")
        if not self._agent_drains():
            self._book.tell(self._stop())
        # also when the agent did it: somebody may have opened the gate by hand since
        return 0 if self._waited() else 1

    def _stop(self) -> StopBegan:
        options = self._options
        return StopBegan(
            self._run_id,
            # no settling: without the agent nobody tells the gateway, its own gate does
            settle=0.0,
            seconds=options.deadline,
            policy=options.on_deadline,
            cap=max(0.0, self._begun + options.cap - time.monotonic()),
        )

    def _agent_drains(self) -> bool:
        """The agent drained it. False: it does not answer, not any more, or does not get on."""
        options = self._options
        stop = self._stop()
        fields = {
            "replica": options.replica,
            "main_pid": self._main_pid,
            "invocation_id": self._run_id,
            "deadline": stop.seconds,
            "on_deadline": stop.policy,
            "cap": stop.cap,
        }
        asking = Asking(options.socket, fields, options.answer_within)
        asking.start()
        patience = time.monotonic() + options.answer_within
        why = "it does not get on"
        while time.monotonic() < patience and not self._told_to_end(0.0):
            over = asking.over.wait(0.2)
            record = self._book.read()
            if record is not None and not lost(record, self._stop()):
                if record.phase is Phase.DRAINED:
                    return True
                self._report(record)
                if _gets_on(record):
                    patience = time.monotonic() + EVERY
            if over:
                why = asking.why
                break
        say("WARNING", f"replica {options.replica}: drained here, not by the agent: {why}")
        return False

    def _waited(self) -> bool:
        """Count until nothing is in flight or waiting is given up. False: told to end before."""
        while True:
            record = self._book.tell(Looked(self._count()))
            if lost(record, self._stop()):
                if not Path(f"/proc/{self._main_pid}").exists():
                    return True
                record = self._book.tell(self._stop())
            elif record.phase is not Phase.DRAINING:
                break
            self._report(record)
            if self._told_to_end(EVERY):
                # the last count may be old: who is told to end may have been stopped until now
                self._book.tell(Looked(self._count()))
                self._book.tell(GaveUp("the program of ExecStop= was told to end"))
                return False
        if not (record.drain and record.drain.forced):
            self._wait_for_readers()
        return True

    def _told_to_end(self, seconds: float) -> bool:
        """Wait for so long, or until a signal says that it is over."""
        self._over = self._over or signal.sigtimedwait(_SIGNALS, seconds) is not None
        return self._over

    def _wait_for_readers(self) -> None:
        """nginx has all answers, but its clients may not: the network goes soon after it."""
        options = self._options
        end = time.monotonic() + options.client_seconds
        while options.client_ports and time.monotonic() < end:
            try:
                readers = inflight.unsent_clients(sockets.read(), options.client_ports)
            except sockets.SocketsError:
                return
            if not readers or self._told_to_end(0.2):
                return
            self._systemd.say(f"drained; {readers} clients still read their answers")

    def _report(self, record: Record) -> None:
        drain, cap = record.drain, record.stop_cap
        if drain is None or cap is None:
            return
        count = "unknown" if drain.in_flight is None else drain.in_flight
        left = max(0.0, cap - Now.read().boot)
        self._systemd.say(
            f"draining: requests in flight: {count}; waits {left:.0f} s at most",
            # beyond the cap nothing is asked for, whatever goes wrong here
            min(AHEAD, left + EVERY),
        )


def _gets_on(record: Record) -> bool:
    """Somebody settles, or has counted lately."""
    drain = record.drain
    if drain is None or (drain.looked is not None and drain.in_flight is None):
        return False  # who looks and cannot count will look for ever
    last = drain.settle_ends if drain.looked is None else drain.looked
    return Now.read().boot < last + STALE


def _counter(options: argparse.Namespace) -> Callable[[], int | None]:
    """Counts the requests in flight; None when they cannot be."""
    uid: int | None
    try:
        uid = inflight.uid_of(options.nginx_user)
    except sockets.SocketsError as error:
        say("ERROR", f"replica {options.replica}: {error}: every connection is waited for")
        uid = None
    told: set[str] = set()

    def count() -> int | None:
        try:
            seen = inflight.look(options.port, nginx_uid=-1 if uid is None else uid)
        except sockets.SocketsError as error:
            _once(told, "ERROR", f"replica {options.replica}: cannot be counted: {error}")
            return None
        if uid is None:
            return seen.requests + sum(number for _, number in seen.strangers)
        if seen.strangers:
            _once(told, "WARNING", f"replica {options.replica}: not waited for: {seen.in_words()}")
        return seen.requests

    return count


def _once(told: set[str], level: str, text: str) -> None:
    if text not in told:
        told.add(text)
        say(level, text)


if __name__ == "__main__":
    sys.exit(main())
