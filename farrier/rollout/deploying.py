"""``deploys/driver.py`` for a rollout: pyinfra in a process of its own, as an operator types it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from farrier.nvidia.planned import FILE, DriverPlan, read_plans, upstream
from farrier.rollout.errors import RolloutError

__all__ = ["DEPLOY", "Deploy", "Driver", "plan_driver", "said_last"]

DEPLOY = "deploys/driver.py"
LAST_LINES = 12
_FAILED = "Failed:"
"""The heading of a run's last lines under which it says what failed."""
_KILLED_AFTER = 20.0
"""Seconds that pyinfra has to end in once it was asked to."""


@dataclass(frozen=True)
class Driver:
    """The driver that is wanted: a ``version`` (None: what the inventory says), whose branch
    follows from it, and a ``flavour`` (None: the inventory's).
    """

    version: str | None = None
    flavour: str | None = None

    @property
    def data(self) -> tuple[str, ...]:
        """The options of pyinfra's that say it, whatever the inventory says."""
        if self.version is None:
            return ()
        wanted = {
            "nvidia_driver_version": self.version,
            # the inventory's may be another one, and a version has to be of its branch
            "nvidia_driver_branch": upstream(self.version).split(".", 1)[0],
        }
        if self.flavour is not None:
            wanted["nvidia_driver_flavour"] = self.flavour
        # as JSON: a plain 580 were a number to pyinfra
        words = [("--data", f"{name}={json.dumps(value)}") for name, value in wanted.items()]
        return tuple(word for pair in words for word in pair)


class Deploy:
    """One run of the deploy on *hosts*; everything that pyinfra says goes to *log*."""

    def __init__(
        self,
        hosts: Sequence[str],
        inventory: str,
        driver: Driver,
        log: Path,
        *,
        dry: bool = False,
    ) -> None:
        limits = [word for host in hosts for word in ("--limit", host)]
        mode = "--dry" if dry else "-y"
        self.words = [mode, *limits, *driver.data, inventory, DEPLOY]
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None
        self._ended = threading.Event()

    def run(self, environment: dict[str, str] | None = None) -> tuple[int, str]:
        """Run it to its end: its exit code, and the end of what it said. Raises RolloutError."""
        program = Path(sys.executable).with_name("pyinfra")
        try:
            with self._log.open("wb") as file:
                self._process = subprocess.Popen(
                    [str(program), *self.words],
                    env={**os.environ, **(environment or {})},
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
                code = self._process.wait()
        except OSError as error:
            raise RolloutError(f"pyinfra cannot be run: {error}") from error
        finally:
            self._ended.set()
        return code, said_last(self._log.read_text(encoding="utf-8", errors="replace"))

    def stop(self) -> None:
        """End it, where it still runs. A transaction that it began on a host goes on there."""
        process = self._process
        if process is None or self._ended.is_set():
            return
        process.terminate()
        if not self._ended.wait(_KILLED_AFTER):
            process.kill()


def said_last(log: str) -> str:
    """What a run says failed, where it says it; else its last lines. Pure."""
    lines = log.rstrip().splitlines()
    at = max((number for number, line in enumerate(lines) if line == _FAILED), default=None)
    told = lines[-LAST_LINES:] if at is None else lines[at + 1 : at + 1 + LAST_LINES]
    return "\n".join(line.strip() for line in told)


def plan_driver(
    hosts: Iterable[str], inventory: str, driver: Driver, log: Path
) -> dict[str, DriverPlan]:
    """What the role plans on *hosts*, which it changes nothing on; nothing for hosts without one.

    Raises RolloutError where it does not say.
    """
    names = list(hosts)
    if not names:
        return {}
    deploy = Deploy(names, inventory, driver, log, dry=True)
    with tempfile.TemporaryDirectory() as directory:
        told = Path(directory) / "plans"
        told.touch()
        code, said = deploy.run({FILE: str(told)})
        try:
            plans = read_plans(told.read_bytes().splitlines())
        except msgspec.DecodeError as error:
            raise RolloutError(f"the role's plan cannot be read: {error}", f"less {log}") from error
    if code and len(plans) < len(names):
        silent = ", ".join(name for name in names if name not in plans)
        raise RolloutError(
            f"{silent}: no plan for the driver (exit code {code}), nothing was changed:\n{said}",
            f"less {log}; then pyinfra {' '.join(deploy.words)}",
        )
    return plans
