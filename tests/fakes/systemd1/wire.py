"""The daemon's end of a D-Bus connection: letting in, calls, answers, signals, match rules."""

from __future__ import annotations

import asyncio
import itertools
import re
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from jeepney import HeaderFields, Message, MessageType, Parser, new_error, new_method_return

__all__ = ["Call", "CallError", "Peer", "Signal"]

_RULE = re.compile(r"(\w+)='([^']*)'")


class CallError(Exception):
    """A call is answered with the error *name*, a D-Bus name, and *text*."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(text)
        self.name = name


@dataclass(frozen=True)
class Call:
    """A method that somebody calls."""

    destination: str
    path: str
    interface: str
    member: str
    body: tuple[Any, ...]

    @classmethod
    def of(cls, message: Message) -> Call:
        fields = message.header.fields
        keys = HeaderFields.destination, HeaderFields.path, HeaderFields.interface
        destination, path, interface = (str(fields.get(key, "")) for key in keys)
        member = str(fields.get(HeaderFields.member, ""))
        return cls(destination, path, interface, member, tuple(message.body))


@dataclass(frozen=True)
class Signal:
    """A signal with the parts that match rules speak of. ``sender`` is a name of the bus."""

    sender: str
    message: Message

    def matches(self, rule: dict[str, str]) -> bool:
        fields, body = self.message.header.fields, self.message.body
        parts = {
            "type": "signal",
            "sender": self.sender,
            "path": fields.get(HeaderFields.path),
            "interface": fields.get(HeaderFields.interface),
            "member": fields.get(HeaderFields.member),
            "arg0": body[0] if body else None,
        }
        return all(parts.get(key) == value for key, value in rule.items())


Answer = Callable[["Peer", Call], Awaitable[tuple[str, tuple[Any, ...]]]]


class Peer:
    """One client of the bus. *answer* gives the signature and the values that a call returns."""

    def __init__(
        self,
        name: str,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        answer: Answer,
    ) -> None:
        self.name = name
        self.subscribed = False
        self._reader = reader
        self._writer = writer
        self._answer = answer
        self._serial = itertools.count(1)
        self._rules: list[dict[str, str]] = []
        self._calls: set[asyncio.Task[None]] = set()

    async def serve(self) -> None:
        """Let it in and answer it until it goes, or is dropped."""
        try:
            with suppress(OSError, EOFError, asyncio.LimitOverrunError):
                if await self._let_in():
                    await self._listen()
        finally:
            self.drop()

    def drop(self) -> None:
        """Close the connection, without an answer to what is still asked."""
        for call in self._calls:
            call.cancel()
        self._writer.transport.abort()

    def match(self, rule: str) -> None:
        """Send it the signals of *rule* from now on."""
        self._rules.append(dict(_RULE.findall(rule)))

    def unmatch(self, rule: str) -> None:
        """Forget a rule. Raises CallError when there is no such."""
        try:
            self._rules.remove(dict(_RULE.findall(rule)))
        except ValueError:
            raise CallError(
                "org.freedesktop.DBus.Error.MatchRuleNotFound", "The given match rule wasn't found"
            ) from None

    def hear(self, signal: Signal) -> None:
        """Send it *signal*, if it has a rule for it."""
        if any(signal.matches(rule) for rule in self._rules):
            self._send(signal.message)

    async def _let_in(self) -> bool:
        """EXTERNAL alone, as systems have it; the uid is what it says, for nobody else comes."""
        line = await self._reader.readuntil(b"\r\n")
        if not line.startswith(b"\0AUTH EXTERNAL "):
            self._writer.write(b"REJECTED EXTERNAL\r\n")
            return False
        self._writer.write(b"OK 0123456789abcdef0123456789abcdef\r\n")
        while (line := await self._reader.readuntil(b"\r\n")) != b"BEGIN\r\n":
            self._writer.write(b"ERROR\r\n")
        return True

    async def _listen(self) -> None:
        parser = Parser()
        while data := await self._reader.read(64 * 1024):
            for message in parser.feed(data):
                if message.header.message_type is MessageType.method_call:
                    call = asyncio.get_running_loop().create_task(self._attend(message))
                    self._calls.add(call)
                    call.add_done_callback(self._calls.discard)

    async def _attend(self, message: Message) -> None:
        try:
            signature, body = await self._answer(self, Call.of(message))
        except CallError as error:
            self._send(new_error(message, error.name, "s", (str(error),)))
        else:
            self._send(new_method_return(message, signature or None, body))

    def _send(self, message: Message) -> None:
        self._writer.write(message.serialise(next(self._serial)))
