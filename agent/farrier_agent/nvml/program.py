"""The NVML worker: ``python -I -m farrier_agent.nvml.program SOCKET PAGE PARENT [LIBRARY]``.

A process of its own, because a call into a sick driver may never return and a thread cannot be
killed. It reads the GPUs when it is asked to (:mod:`farrier_agent.nvml.wire` over descriptor
SOCKET), writes down each call before it makes it (:mod:`farrier_agent.nvml.calling`, PAGE), and
ends with the agent, with its process PARENT, and whenever NVML as a whole is of no use: only a new
process loads a library again that was exchanged.

Nothing is cleaned up at the end. That could hang too, and the kernel closes the driver's files.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import signal
import socket
import sys
import threading
import types
from collections.abc import Sequence
from typing import NoReturn

from farrier_agent.nvml import wire
from farrier_agent.nvml.calling import CallWriter
from farrier_agent.nvml.errors import NvmlError
from farrier_agent.nvml.events import Listener
from farrier_agent.nvml.session import Session

__all__ = ["Worker", "main"]

_PR_SET_PDEATHSIG = 1


class Worker:
    """Answers what comes through *channel*. *library* is as ``nvml_library`` in agent.toml."""

    def __init__(self, channel: socket.socket, calling: CallWriter, library: str | None) -> None:
        self._channel = channel
        self._calling = calling
        self._session = Session(library, calling=self._before_call)
        self._sending = threading.Lock()
        self._listener = Listener(lambda event: self._send(wire.Event(event=event)))
        self._frames = wire.Frames()
        self._number = 0
        self._count = 0
        self._named: set[int] = set()

    def serve(self) -> None:
        """Return when the agent is gone, or NVML is of no use."""
        while data := self._channel.recv(65536):
            asked = self._frames.feed(data)
            # nobody waits for the answers to those before the last
            if asked and not self._answer(wire.decode_ask(asked[-1])):
                return

    def _answer(self, ask: wire.Ask) -> bool:
        self._number = ask.number
        try:
            self._collect(ask)
        except NvmlError as error:
            number, words = ask.number, str(error)
            self._send(wire.Failed(number=number, kind=error.kind, words=words, call=error.call))
            return False
        # after the answer: registration touches every GPU, and may take its time
        self._listener.watch(self._session.nvml, self._session.known())
        return True

    def _collect(self, ask: wire.Ask) -> None:
        head = self._session.begin()
        count = head.count or 0
        if count != self._count:
            self._named.clear()
            self._count = count
        problem, hang = self._listener.problem()
        number = ask.number
        self._send(
            wire.Begun(
                number=number,
                gpus=head,
                events_problem=problem,
                events_hang=hang,
            )
        )
        for gpu in self._session.readings(_order(ask, count)):
            self._named.add(gpu.index)
            self._send(wire.Read(number=number, gpu=gpu))
        self._send(wire.Done(number=number, gpus=self._session.end()))

    def _before_call(self, function: str, gpu: int) -> None:
        """Tells who a GPU is as soon as that is known: the next call on it may hang."""
        self._calling(function, gpu)
        if gpu < 0 or gpu in self._named:
            return
        for known in self._session.known():
            if known.index == gpu:
                self._named.add(gpu)
                uuid, bus_id = known.uuid, known.pci_bus_id
                self._send(wire.Named(number=self._number, index=gpu, uuid=uuid, pci_bus_id=bus_id))

    def _send(self, message: wire.Answer) -> None:
        frame = wire.encode(message)
        with self._sending:
            self._channel.sendall(frame)


def _order(ask: wire.Ask, count: int) -> Sequence[int]:
    if ask.order is not None and ask.of == count:
        return ask.order
    first = ask.turn % count if count else 0
    return [*range(first, count), *range(first)]


def _end_with(parent: int) -> None:
    """Have the kernel kill this process when *parent* dies, even in the middle of a call."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(0)


def _spare_find_library() -> None:
    """Put off what ``ctypes.util`` drags in, which the binding imports and on Linux never asks.

    Behind it are shutil, subprocess, bz2 and lzma: 1.3 MiB of this process.
    """
    name = "ctypes.util"

    def find_library(library: str) -> str | None:
        del sys.modules[name]
        found: str | None = importlib.import_module(name).find_library(library)
        return found

    stand_in = types.ModuleType(name)
    stand_in.find_library = find_library  # type: ignore[attr-defined]
    sys.modules.setdefault(name, stand_in)


def main(arguments: Sequence[str]) -> NoReturn:
    """Serve until the end of this process."""
    channel, page, parent = (int(one) for one in arguments[:3])
    _end_with(parent)
    _spare_find_library()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's, meant for the agent
    writer = CallWriter(page)
    try:
        with socket.socket(fileno=channel) as one:
            Worker(one, writer, arguments[3] if len(arguments) > 3 else None).serve()
    except (OSError, wire.WireError) as error:
        print(f"nvml worker: {error}", file=sys.stderr)
    finally:
        # not sys.exit: it would wait for libraries, and a thread may hang in the driver
        os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1:])
