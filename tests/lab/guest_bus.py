"""A guest of the lab, its systemd and its bus, as the agent's units client meets them.

A guest's bus is reached through /proc from the operator's machine: the client under test runs in
the test's own process, with a cable in between that a test can cut or hold.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from farrier_agent.units.state import UnitState
from farrier_agent.units.watch import Units

from farrier.lab import Lab, machines


class Machine:
    """One guest: commands as root in it, units of the test's own, and its bus."""

    def __init__(self, lab: Lab, host: str) -> None:
        self.lab, self.host = lab, host
        self._made: dict[str, None] = {}
        self.leader = self._leader()
        self.bus = Path(f"/proc/{self.leader}/root/run/dbus/system_bus_socket")

    def _leader(self) -> int:
        for pid in machines.processes(self.lab.files.host(self.host))["guest"]:
            with contextlib.suppress(OSError):
                lines = Path(f"/proc/{pid}/status").read_text().splitlines()
                ids = next(line for line in lines if line.startswith("NSpid:")).split()
                if ids[-1] == "1":
                    return pid
        raise AssertionError(f"{self.host} has no process 1")

    def root(self, command: str) -> str:
        return self.lab.ssh(self.host, f"sudo sh -c '{command}'").stdout

    def put(self, name: str, text: str) -> None:
        """A unit file that systemd has not read yet; written from outside, whole."""
        self._made[name] = None
        path = Path(f"/proc/{self.leader}/root/run/systemd/system/{name}")
        path.write_text(text)

    def unit(self, name: str, text: str) -> str:
        self.put(name, text)
        self.root("systemctl daemon-reload")
        return name

    def shown(self, name: str, key: str) -> str:
        return self.root(f"systemctl show --value -p {key} {name}").strip()

    def clear(self) -> None:
        self.root("touch /run/probe-go")
        for name in self._made:
            self.root(f"systemctl stop {name} || true; systemctl reset-failed {name} || true")
            self.root(f"rm -f /run/systemd/system/{name}")
        self.root("rm -f /run/probe-go; systemctl daemon-reload")


class Cable:
    """A socket that leads to *bus*: cut, it ends every connection; held, nothing goes through."""

    def __init__(self, path: Path, bus: Path) -> None:
        self.path, self._bus = path, bus
        self.free = asyncio.Event()
        self.free.set()
        self._ends: set[asyncio.StreamWriter] = set()
        self._joints: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def plug(self) -> None:
        self._server = await asyncio.start_unix_server(self._join, str(self.path))

    async def cut(self) -> None:
        """End every connection, and let nobody connect until it is plugged in again."""
        assert self._server is not None
        self._server.close()
        self.path.unlink(missing_ok=True)
        for end in list(self._ends):
            end.transport.abort()
        self.free.set()
        if self._joints:
            await asyncio.wait(self._joints, timeout=10)

    def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._joined(reader, writer))
        self._joints.add(task)
        task.add_done_callback(self._joints.discard)

    async def _joined(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_unix_connection(str(self._bus))
        ends = {writer, far_writer}
        self._ends |= ends
        ways = [self._pass(reader, far_writer), self._pass(far_reader, writer)]
        tasks = [asyncio.ensure_future(way) for way in ways]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for end in ends:
            end.transport.abort()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._ends -= ends

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                await self.free.wait()
                writer.write(data)
                await writer.drain()


class Seen:
    """What the client told, in order."""

    def __init__(self) -> None:
        self.changes: list[tuple[UnitState | None, UnitState]] = []

    def __call__(self, before: UnitState | None, now: UnitState) -> None:
        self.changes.append((before, now))


Seeing = tuple[Units, Seen, Cable]


@contextlib.asynccontextmanager
async def watching(machine: Machine, directory: Path, *names: str) -> AsyncIterator[Seeing]:
    seen = Seen()
    cable = Cable(directory / "bus", machine.bus)
    await cable.plug()
    units = Units(names, path=cable.path, changed=seen)
    task = asyncio.create_task(units.run())
    try:
        await until(lambda: all(units.state(name) for name in names), task=task)
        yield units, seen, cable
    finally:
        task.cancel()
        await asyncio.wait({task}, timeout=10)
        await cable.cut()


async def until(
    question: Callable[[], object],
    seconds: float = 15,
    task: asyncio.Task[None] | None = None,
) -> None:
    end = time.monotonic() + seconds
    while not question():
        if task is not None and task.done():
            task.result()
        assert time.monotonic() < end, f"not within {seconds:g} s"
        await asyncio.sleep(0.02)


async def command(machine: Machine, text: str) -> str:
    """In a thread: the client goes on meanwhile."""
    return await asyncio.to_thread(machine.root, text)
