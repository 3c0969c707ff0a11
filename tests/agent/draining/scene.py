"""A serving replica in a directory: its gate, its record, its engine's port with requests on it."""

from __future__ import annotations

import os
import pwd
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from farrier_agent.draining.events import UnitSeen, WarmedUp
from farrier_agent.draining.keeping import Keeper
from farrier_agent.draining.record import Now, Record
from farrier_agent.draining.store import Store
from farrier_agent.gate import Gates

from tests.agent.host import until

USER = pwd.getpwuid(os.getuid()).pw_name
RUN = "0123456789abcdef0123456789abcdef"


@dataclass
class Told:
    """What systemd was told: ``when`` by the clock of :func:`time.monotonic`."""

    when: float
    text: str

    @property
    def seconds(self) -> float:
        return int(self.text.partition("EXTEND_TIMEOUT_USEC=")[2].split()[0]) / 1_000_000


@dataclass
class Scene:
    """``with`` ends every process and connection of it."""

    root: Path
    stack: ExitStack = field(default_factory=ExitStack)

    def __enter__(self) -> Scene:
        self.gate_dir, self.state_dir = self.root / "open", self.root / "replicas"
        self.gate_dir.mkdir()
        self.socket_path = self.root / "control.sock"
        self.gates = Gates(self.gate_dir)
        self.store = Store(self.state_dir)
        self.keeper = Keeper(self.store, self.gates)
        self.engine = self.stack.enter_context(socket.socket())
        self.engine.bind(("127.0.0.1", 0))
        self.engine.listen(64)
        self.port: int = self.engine.getsockname()[1]
        self.systemd = self.stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        self.systemd.bind(str(self.root / "notify"))
        self.systemd.setblocking(False)
        self.main = subprocess.Popen(["sleep", "600"])
        self.stack.callback(self._end, self.main)
        self.requests: list[socket.socket] = []
        self.logs = 0
        return self

    def __exit__(self, *_: object) -> None:
        self.stack.close()

    # -- the replica -----------------------------------------------------------------------

    def serves(self) -> Scene:
        self.keeper.tell("tiny", self.unit())
        self.keeper.tell("tiny", WarmedUp(RUN))
        self.keeper.open_gate("tiny", self.unit)
        return self

    def unit(self) -> UnitSeen:
        return UnitSeen("active", "running", RUN, Now.read().boot)

    def record(self) -> Record:
        return self.keeper.look("tiny")

    @property
    def gate_open(self) -> bool:
        return bool(self.gates.is_open("tiny"))

    def begin(self, count: int) -> None:
        """So many requests more."""
        for _ in range(count):
            one = socket.create_connection(("127.0.0.1", self.port), timeout=5)
            self.requests.append(self.stack.enter_context(one))

    def finish(self, count: int | None = None) -> None:
        """End so many requests, or all."""
        for one in self.requests[:count]:
            one.close()
        self.requests = self.requests[count:] if count is not None else []

    def engine_dies(self) -> None:
        self.main.kill()
        self.main.wait()

    # -- programs --------------------------------------------------------------------------

    def stop(self, *more: str, environment: Mapping[str, str] | None = None) -> Program:
        return self.program(
            "farrier_agent.draining.stop",
            "tiny",
            f"--port={self.port}",
            f"--nginx-user={USER}",
            f"--gate-dir={self.gate_dir}",
            f"--state-dir={self.state_dir}",
            f"--socket={self.socket_path}",
            *more,
            environment={"MAINPID": str(self.main.pid), **(environment or {})},
        )

    def agent(self, manner: str = "good") -> Program:
        agent = self.program(
            "tests.agent.draining.agent_for_stop",
            str(self.socket_path),
            str(self.state_dir),
            str(self.gate_dir),
            str(self.port),
            manner,
            environment={"RUN": RUN},
        )
        agent.until_it_says("listens")
        return agent

    def program(self, module: str, *arguments: str, environment: Mapping[str, str]) -> Program:
        self.logs += 1
        log = self.root / f"log{self.logs}"
        base = {key: value for key, value in os.environ.items() if key != "JOURNAL_STREAM"}
        with log.open("wb") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                env={
                    **base,
                    "INVOCATION_ID": RUN,
                    "NOTIFY_SOCKET": str(self.root / "notify"),
                    **environment,
                },
                stdout=out,
                stderr=out,
            )
        self.stack.callback(self._end, process)
        return Program(process, log)

    @staticmethod
    def _end(process: subprocess.Popen[bytes]) -> None:
        process.kill()
        process.wait()

    def hears(self, count: int) -> list[Told]:
        """Wait until systemd was told so much."""
        found: list[Told] = []

        def enough() -> bool:
            found.extend(self.told())
            return len(found) >= count

        until(enough)
        return found

    def told(self) -> list[Told]:
        """What systemd was told since the last time."""
        found: list[Told] = []
        while True:
            try:
                text = self.systemd.recv(4096).decode()
            except BlockingIOError:
                return found
            found.append(Told(time.monotonic(), text))


@dataclass
class Program:
    """A program of the scene, with its output in ``log``."""

    process: subprocess.Popen[bytes]
    log: Path

    def said(self) -> str:
        return self.log.read_text()

    def until_it_says(self, text: str) -> None:
        until(lambda: text in self.said())

    def ends(self, seconds: float = 20.0) -> int:
        return self.process.wait(timeout=seconds)

    @property
    def runs(self) -> bool:
        return self.process.poll() is None

    def kill(self, number: int = signal.SIGKILL) -> None:
        self.process.send_signal(number)
        self.process.wait(timeout=10)
