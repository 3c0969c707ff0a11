"""The program of a member's unit: its engine runs as long as the head's run that it joined.

It waits until the head's agent tells of a run, starts the engine, and ends it when that run is
over: the head was stopped, or ended and began anew. systemd then starts this program again, with
the unit as it is by then. While the head's agent cannot be asked nothing is started and nothing
ended.

SIGTERM is passed on, and waited for. Exit codes: 0 the run is over, or it was told to end; 2 wrong
usage; else that of the engine, which ended by itself.
"""

from __future__ import annotations

import argparse
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence

from farrier_agent.draining.book import say
from farrier_agent.spanning.runs import RUN, is_over, joinable, read

__all__ = ["ask", "main"]

LONGEST = 64
"""Bytes of an answer."""


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line, as the role writes it into the unit."""
    parser = argparse.ArgumentParser(
        prog="farrier_agent.spanning.follow",
        description=(__doc__ or "").split("\n", maxsplit=1)[0],
    )
    add = parser.add_argument
    add("--head", required=True, type=_address, help="the head's agent: address:port")
    add("--replica", required=True, help="the replica's name at its head")
    add("--every", type=float, default=1.0, help="seconds between two questions [%(default)s]")
    add("--patience", type=float, default=2.0, help="seconds for an answer [%(default)s]")
    add("--grace", type=float, default=30.0, help="seconds from SIGTERM to SIGKILL [%(default)s]")
    add("command", nargs="+", help="the engine, after --")
    return parser.parse_args(arguments)


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host.strip("[]"), int(port)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the engine for one run of the head. Returns the exit code."""
    return _Follower(parse(arguments)).follow()


def ask(head: tuple[str, int], replica: str, patience: float) -> str | None:
    """The run of *replica* as *head* tells it; None where it does not."""
    try:
        with socket.create_connection(head, patience) as connection:
            connection.settimeout(patience)
            connection.sendall(RUN + replica.encode() + b"\n")
            heard = b""
            while not heard.endswith(b"\n") and len(heard) < LONGEST:
                part = connection.recv(LONGEST)
                if not part:
                    break
                heard += part
    except OSError:
        return None
    return read(heard)


class _Follower:
    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._stopped = threading.Event()
        self._engine: subprocess.Popen[bytes] | None = None

    def follow(self) -> int:
        signal.signal(signal.SIGTERM, self._stop)
        run = self._awaited()
        if run is None:
            return 0
        say("INFO", f"joins run {run} of replica {self._options.replica}")
        # What is signalled from here on finds the engine, or the flag that it looks at next.
        with subprocess.Popen(self._options.command) as engine:
            self._engine = engine
            if self._stopped.is_set():
                engine.terminate()
            return self._until_over(engine, run)

    def _awaited(self) -> str | None:
        """The run to join; None when this program is to end before there is one."""
        told = False
        while not self._stopped.is_set():
            heard = self._ask()
            if heard and joinable(heard):
                return heard
            if not told:
                host, port = self._options.head
                why = "does not run" if heard is not None else f"is not told by {host}:{port}"
                say("INFO", f"waiting: replica {self._options.replica} {why}")
                told = True
            self._stopped.wait(self._options.every)
        return None

    def _until_over(self, engine: subprocess.Popen[bytes], run: str) -> int:
        while True:
            try:
                code = engine.wait(self._options.every)
            except subprocess.TimeoutExpired:
                if not self._stopped.is_set() and is_over(run, self._ask()):
                    say("INFO", f"run {run} of replica {self._options.replica} is over")
                    self._end(engine)
                    return 0
                continue
            if self._stopped.is_set():
                return 0
            say("ERROR", f"the engine ended by itself: {code}")
            return code if code >= 0 else 128 - code

    def _ask(self) -> str | None:
        return ask(self._options.head, self._options.replica, self._options.patience)

    def _end(self, engine: subprocess.Popen[bytes]) -> None:
        engine.terminate()
        try:
            engine.wait(self._options.grace)
        except subprocess.TimeoutExpired:
            engine.kill()

    def _stop(self, _signal: int, _frame: object) -> None:
        self._stopped.set()
        if self._engine is not None:
            self._engine.terminate()


if __name__ == "__main__":
    sys.exit(main())
