"""The stand-in as a test has it: started, given orders that are taken before it goes on, asked."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.fakes.systemd1.systemctl import enqueue

__all__ = ["Systemd"]

ROOT = Path(__file__).parents[3]
PATIENCE = 20.0


class Systemd:
    """The stand-in for systemd with its files in *root*, where ``bus`` is the socket."""

    def __init__(self, root: Path) -> None:
        self.bus = root / "bus"
        self._file = root / "systemd.json"
        self._now = root / "systemd.json.now"
        self._calls = root / "systemd.json.calls"
        self._log = root / "systemd.log"
        self._orders: dict[str, Any] = {"serial": 0, "units": {}, "programs": {}}
        self._program: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it can be connected to."""
        self._write()
        command = [sys.executable, "-m", "tests.fakes.systemd1", str(self.bus), str(self._file)]
        with self._log.open("ab") as log:
            self._program = subprocess.Popen(command, cwd=ROOT, stderr=log, stdout=log)
        self._wait(self.bus.exists)

    def stop(self) -> None:
        """End it with every process that its units run."""
        if self._program is None:
            return
        self._program.terminate()
        try:
            self._program.wait(PATIENCE)
        finally:
            self._program.kill()
            self._program.wait()
        self._program = None

    # -- orders ----------------------------------------------------------------------------------

    def order(self, **changes: Any) -> None:
        """Replace keys of the orders, None takes one away; it is done when this returns."""
        orders = self._orders | changes
        self._orders = {key: value for key, value in orders.items() if value is not None}
        self._orders["serial"] += 1
        self._write()
        if self._program is not None:
            self._wait(lambda: self._read().get("serial") == self._orders["serial"])

    def unit(self, name: str, **properties: Any) -> None:
        """Have the unit in this state, from now on."""
        # the number makes an entry that is the same again another one
        entry = properties | {"order": self._orders["serial"] + 1}
        self.order(units=self._orders["units"] | {name: entry})

    def programs(self, name: str, **programs: Any) -> None:
        """Give the unit programs to run, see the package's keys."""
        self.order(programs=self._orders["programs"] | {name: programs})

    def job(self, verb: str, name: str) -> None:
        """Have somebody start, stop or restart the unit; it goes on after this."""
        enqueue(self.bus, verb, name)

    # -- what it says ----------------------------------------------------------------------------

    def now(self, name: str) -> dict[str, Any]:
        """The unit as it is, by the names of the properties."""
        found: dict[str, Any] = self._read()["units"][name]
        return found

    def calls(self, *methods: str) -> list[str]:
        """The calls of *methods* (of all, without any) in order, each with what it was given."""
        lines = self._calls.read_text().splitlines() if self._calls.exists() else []
        return [line for line in lines if not methods or line.split()[0] in methods]

    def _read(self) -> dict[str, Any]:
        read: dict[str, Any] = json.loads(self._now.read_text())
        return read

    def _write(self) -> None:
        fresh = self._file.with_suffix(".new")
        fresh.write_text(json.dumps(self._orders, default=str))
        fresh.replace(self._file)

    def _wait(self, condition: Callable[[], bool]) -> None:
        end = time.monotonic() + PATIENCE
        while not condition():
            if self._program is None or self._program.poll() is not None:
                raise AssertionError(f"the stand-in for systemd ended: {self._log.read_text()}")
            if time.monotonic() > end:
                raise AssertionError(f"the stand-in for systemd hangs: {self._log.read_text()}")
            time.sleep(0.01)
