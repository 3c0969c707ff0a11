"""A unit: its properties as systemd has them on the bus, and its way from one state to another."""

from __future__ import annotations

import asyncio
import itertools
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.fakes.systemd1.processes import Main, run

__all__ = ["Job", "Unit", "path_of"]

JOBS = "/org/freedesktop/systemd1/job/"
_UNITS = "/org/freedesktop/systemd1/unit/"
_FORCED = {
    "LoadState": "load",
    "ActiveState": "active",
    "SubState": "sub",
    "InvocationID": "invocation",
    "MainPID": "main_pid",
    "NRestarts": "restarts",
    "Result": "result",
}
DEAD = {"inactive", "failed"}
_PIDS = itertools.count(4_200_000)  # beyond any that Linux gives


def path_of(name: str) -> str:
    """The object path of the unit *name*: what is no letter or digit is written in hex."""
    plain = (char if char.isascii() and char.isalnum() else f"_{ord(char):02x}" for char in name)
    return _UNITS + "".join(plain)


def _now() -> int:
    return time.time_ns() // 1000


@dataclass
class Job:
    """A job of the unit: ``verb`` is ``start``, ``stop`` or ``restart``."""

    number: int
    verb: str

    @property
    def path(self) -> str:
        return f"{JOBS}{self.number}"


@dataclass
class Unit:
    """One unit. *changed* is called after each step, *removed* when a job is over."""

    name: str
    changed: Callable[[Unit], None]
    removed: Callable[[Unit, Job, str], None]
    programs: Mapping[str, Any] = field(default_factory=dict)
    load: str = "not-found"
    active: str = "inactive"
    sub: str = "dead"
    invocation: str = ""
    main_pid: int = 0
    restarts: int = 0
    result: str = "success"
    main_start: int = 0
    main_exit: int = 0
    state_change: int = 0
    job: Job | None = None
    _main: Main | None = None
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    # -- what is on the bus ----------------------------------------------------------------------

    def unit_properties(self) -> dict[str, tuple[str, Any]]:
        """The interface org.freedesktop.systemd1.Unit, as far as it goes here."""
        job = (self.job.number, self.job.path) if self.job else (0, "/")
        return {
            "Id": ("s", self.name),
            "LoadState": ("s", self.load),
            "ActiveState": ("s", self.active),
            "SubState": ("s", self.sub),
            "InvocationID": ("ay", bytes.fromhex(self.invocation)),
            "StateChangeTimestamp": ("t", self.state_change),
            "Job": ("(uo)", job),
            "NeedDaemonReload": ("b", False),
        }

    def service_properties(self) -> dict[str, tuple[str, Any]]:
        """The interface org.freedesktop.systemd1.Service, as far as it goes here."""
        return {
            "MainPID": ("u", self.main_pid),
            "NRestarts": ("u", self.restarts),
            "Result": ("s", self.result),
            "ExecMainStartTimestamp": ("t", self.main_start),
            "ExecMainExitTimestamp": ("t", self.main_exit),
        }

    def force(self, properties: Mapping[str, Any]) -> None:
        """Take *properties* from the file."""
        before = (self.invocation, self.main_pid)
        for key, value in {"LoadState": "loaded", **properties}.items():
            if key in _FORCED:
                setattr(self, _FORCED[key], value)
        if self.main_pid and before != (self.invocation, self.main_pid):
            self.main_start = _now()
        self._tell()

    # -- jobs ------------------------------------------------------------------------------------

    def enqueue(self, verb: str, number: int) -> Job:
        """A job, in the mode ``replace``: it is merged with one of its kind, or cancels another."""
        if self.job and self.job.verb == verb:
            return self.job
        if self.job:
            self._over(self.job, "canceled")
        self.job = job = Job(number, verb)
        self.changed(self)
        self._task(self._work(job))
        return job

    async def _work(self, job: Job) -> None:
        # a stop that has begun goes on, also when its job was cancelled by a start
        async with self._turn:
            if self.job is not job:
                return
            done = True
            if job.verb in {"stop", "restart"}:
                await self._stop()
            if job.verb in {"start", "restart"} and self.job is job:
                self.restarts = 0 if self.active != "active" else self.restarts
                done = await self._start()
            if self.job is job:
                self._over(job, "done" if done else "failed")

    def _over(self, job: Job, result: str) -> None:
        self.job = None
        self.changed(self)
        self.removed(self, job, result)

    def close(self) -> None:
        """End all that it does and runs."""
        for task in self._tasks:
            task.cancel()
        if self._main:
            self._main.kill_all()

    # -- from one state to another ---------------------------------------------------------------

    async def _start(self) -> bool:
        if self.active == "active":
            return True
        self.invocation = uuid.uuid4().hex
        self.result, self.main_exit = "success", 0
        if self.programs.get("start_pre"):
            self._enter("activating", "start-pre")
            if not await self._run("start_pre"):
                await self._ended("exit-code")
                return False
        self._enter("activating", "start")
        self.main_start = _now()
        if "exec" not in self.programs:
            self.main_pid = next(_PIDS)
            self._enter("active", "running")
            return True
        try:
            self._main = main = await Main.start(self.programs["exec"], self._environment())
        except OSError:
            await self._ended("exit-code")
            return False
        self.main_pid = main.pid
        if self.programs.get("oneshot"):
            self._tell()
            status = await main.ended()
            await self._ended("exit-code" if status else "success")
            return not status
        self._enter("active", "running")
        self._task(self._watch(main))
        return True

    async def _watch(self, main: Main) -> None:
        status = await main.ended()
        async with self._turn:
            if self._main is not main:
                return
            if status:
                self._enter("deactivating", "stop-sigterm")
            else:
                self._main, self.main_pid, self.main_exit = None, 0, _now()
                self._enter("deactivating", "stop")
                await self._run("stop")
                self._main = main
            await self._ended("signal" if status < 0 else "exit-code" if status else "success")

    async def _stop(self) -> None:
        if self.active in DEAD:
            return
        if self.sub == "auto-restart":
            self._enter("inactive", "dead")
            return
        self._enter("deactivating", "stop")
        await self._run("stop")
        self._enter("deactivating", "stop-sigterm")
        if self._main:
            self._main.terminate()
            try:
                await self._main.ended(self.programs.get("stop_seconds", 5.0))
            except TimeoutError:
                self._enter("deactivating", "stop-sigkill")
                self._main.kill_all()
                await self._main.ended()
        await self._ended("success", restart=False)

    async def _ended(self, result: str, *, restart: bool = True) -> None:
        """The main process is gone, if there ever was one."""
        self.main_pid, self.main_exit = 0, _now()
        main, self._main = self._main, None
        if self.programs.get("stop_post"):
            self._enter("deactivating", "stop-post")
            await self._run("stop_post")
        if main:
            main.kill_all()
        self.result = result
        seconds = self.programs.get("restart_seconds")
        if result == "success":
            self._enter("inactive", "dead")
        elif restart and seconds is not None:
            # counted before the pause, as by systemd 252 and 257
            self.restarts += 1
            self._enter("activating", "auto-restart")
            self._task(self._restart(seconds))
        else:
            self._enter("failed", "failed")

    async def _restart(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        async with self._turn:
            if self.sub == "auto-restart":
                await self._start()

    # -- small parts -----------------------------------------------------------------------------

    def _environment(self) -> dict[str, str]:
        environment = {"INVOCATION_ID": self.invocation}
        if self._main and self._main.alive:
            environment["MAINPID"] = str(self.main_pid)
        return environment

    async def _run(self, which: str) -> bool:
        """Run the programs of *which* in turn, up to the first that fails and must not."""
        for command in self.programs.get(which, ()):
            may_fail = command[0] == "-"
            if await run(command[may_fail:], self._environment()) and not may_fail:
                return False
        return True

    def _enter(self, active: str, sub: str) -> None:
        self.active, self.sub = active, sub
        self._tell()

    def _tell(self) -> None:
        self.state_change = _now()
        self.changed(self)

    def _task(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
