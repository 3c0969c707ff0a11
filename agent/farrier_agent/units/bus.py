"""One connection to a D-Bus daemon: calls with their answers, and signals.

Messages and authentication are jeepney's, the connection is ours: jeepney's own router drops
signals when a queue is full, and its receiver ends at an answer that comes after its asker gave up.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jeepney import DBusAddress, HeaderFields, Message, MessageType, Parser, new_method_call
from jeepney.auth import BEGIN, AuthenticationError, Authenticator

from farrier_agent.units.state import UnitsError

__all__ = ["SYSTEM_BUS", "Bus", "BusLostError", "CallError", "connect"]

SYSTEM_BUS = Path("/run/dbus/system_bus_socket")
PATIENCE = 10.0
"""Seconds that an answer may take; a daemon-reload keeps systemd busy for some."""
MAX_MESSAGE = 16 * 1024 * 1024
"""Bytes; D-Bus itself allows 128 MiB. All properties of a unit are some 20 kB."""

_GONE = {
    "org.freedesktop.DBus.Error.Disconnected",
    "org.freedesktop.DBus.Error.NameHasNoOwner",
    "org.freedesktop.DBus.Error.NoReply",
    "org.freedesktop.DBus.Error.ServiceUnknown",
}
"""The daemon answers for a service that went away over the question."""

_DAEMON = DBusAddress(
    "/org/freedesktop/DBus", bus_name="org.freedesktop.DBus", interface="org.freedesktop.DBus"
)


class BusLostError(UnitsError):
    """There is no connection with systemd, or it broke; the message says why.

    Of a call that was under way it is not known whether it was heard.
    """


class CallError(UnitsError):
    """A call was answered with an error. ``name`` is D-Bus's name of it."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(f"{text} ({name})")
        self.name = name


class Bus:
    """A connection. *heard* is called with each signal, in order, in the event loop."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        heard: Callable[[Message], None],
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._heard = heard
        self._serial = itertools.count(1)
        self._answers: dict[int, asyncio.Future[Message]] = {}
        self._receiver = asyncio.get_running_loop().create_task(self._receive())

    async def call(
        self,
        address: DBusAddress,
        method: str,
        signature: str = "",
        body: tuple[Any, ...] = (),
        *,
        timeout: float | None = None,
    ) -> tuple[Any, ...]:
        """What *method* returns. Raises :class:`CallError` or :class:`BusLostError`.

        A bus that does not answer within *timeout* seconds (None: :data:`PATIENCE`) is taken for
        lost, and closed: what comes from it after that could be about another world.
        """
        if self._receiver.done():
            raise BusLostError(self._why())
        timeout = PATIENCE if timeout is None else timeout
        message = new_method_call(address, method, signature or None, body)
        serial = next(self._serial)
        answer: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._answers[serial] = answer
        try:
            self._writer.write(message.serialise(serial))
            # asyncio.wait and not wait_for, which can lose a cancellation before Python 3.12
            await asyncio.wait({answer}, timeout=timeout)
            if not answer.done():
                self.close(f"{method} was not answered within {timeout:g} s")
                raise BusLostError(f"{method} was not answered within {timeout:g} s")
            return _body(answer.result())
        finally:
            del self._answers[serial]
            answer.cancel()

    async def match(self, rule: str) -> None:
        """Ask the daemon for the signals of *rule*. Raises as :meth:`call`."""
        await self.call(_DAEMON, "AddMatch", "s", (rule,))

    async def hello(self) -> None:
        """Say hello, as the first call has to. Raises as :meth:`call`."""
        await self.call(_DAEMON, "Hello")

    async def lost(self) -> str:
        """Wait until the connection is lost and say why."""
        await asyncio.wait({self._receiver})
        return self._why()

    def close(self, why: str = "closed") -> None:
        """Close the connection. Calls that wait for an answer fail."""
        if not self._receiver.done():
            self._receiver.cancel(why)
        self._writer.transport.abort()

    def _why(self) -> str:
        if self._receiver.cancelled():
            return "the connection to the bus was closed"
        return self._receiver.result()

    async def _receive(self) -> str:
        """Dispatch what comes until nothing more can; returns why."""
        try:
            return await self._read_all()
        except OSError as error:
            return f"the connection to the bus broke: {error}"
        except Exception as error:  # jeepney raises whatever a malformed message makes of it
            return f"the bus does not speak D-Bus: {error!r}"
        finally:
            self._writer.transport.abort()
            for answer in self._answers.values():
                if not answer.done():
                    answer.set_exception(BusLostError("the connection to the bus was lost"))

    async def _read_all(self) -> str:
        parser = Parser()
        while data := await self._reader.read(64 * 1024):
            parser.add_data(data)
            while (message := parser.get_next_message()) is not None:
                self._dispatch(message)
            if (parser.next_msg_size or 0) > MAX_MESSAGE:
                return f"the bus announced a message of {parser.next_msg_size} bytes"
        return "the bus closed the connection"

    def _dispatch(self, message: Message) -> None:
        kind = message.header.message_type
        if kind is MessageType.signal:
            self._heard(message)
        elif kind in {MessageType.method_return, MessageType.error}:
            answer = self._answers.get(message.header.fields.get(HeaderFields.reply_serial, 0))
            if answer is not None and not answer.done():
                answer.set_result(message)


async def connect(path: Path, heard: Callable[[Message], None], *, timeout: float = 5.0) -> Bus:
    """A connection to the bus at *path*, within *timeout* seconds. Raises BusLostError."""
    opening = asyncio.ensure_future(_open(path, heard))
    try:
        await asyncio.wait({opening}, timeout=timeout)
        if not opening.done():
            raise BusLostError(f"{path} does not answer within {timeout:g} s")
        return opening.result()
    except (OSError, EOFError, AuthenticationError) as error:
        raise BusLostError(f"no connection to the bus at {path}: {error}") from error
    finally:
        opening.cancel()


async def _open(path: Path, heard: Callable[[Message], None]) -> Bus:
    reader, writer = await asyncio.open_unix_connection(str(path))
    try:
        authenticator = Authenticator()
        for line in authenticator:
            writer.write(line)
            data = await reader.read(1024)
            if not data:
                raise EOFError("it closed the connection")
            authenticator.feed(data)
        writer.write(BEGIN)
        bus = Bus(reader, writer, heard)
        await bus.hello()
    except BaseException:
        writer.transport.abort()
        raise
    return bus


def _body(message: Message) -> tuple[Any, ...]:
    if message.header.message_type is MessageType.error:
        name = str(message.header.fields.get(HeaderFields.error_name, "unknown error"))
        text = message.body[0] if message.body and isinstance(message.body[0], str) else name
        raise BusLostError(text) if name in _GONE else CallError(name, text)
    return tuple(message.body)
