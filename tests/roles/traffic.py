"""Clients that do not stop asking: streams, short POSTs and slow uploads through a host's nginx.

Each request has a connection of its own and a name of its own, which the stand-in engine keeps in
its account. So afterwards it can be said of every single one whether it was accepted, how it ended,
and whether the engine executed it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import threading
import time
import uuid
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any

__all__ = ["Plan", "Request", "Traffic"]

WHOLE = "whole"
"""Accepted and answered to its end."""
REFUSED = "refused"
"""503 with Retry-After: the gate is closed."""
UNREACHED = "unreached"
"""No connection: nobody listens at the moment, or the host is away."""
UNANSWERED = "unanswered"
"""The connection was closed before the first byte of an answer."""
CUT = "cut"
"""It ended in the middle, or with an error that stands for one (nginx: 502, 504)."""
WRONG = "wrong"
"""A whole answer that none should have had."""


@dataclass(frozen=True)
class Plan:
    """Who asks for what. A stream's and an upload's answer take *tokens* times the engine's delay.

    ``pause`` are a short POST's seconds between two requests, ``trickle`` the seconds that an
    upload takes; ``ignore_eos`` is for an engine with a mind of its own.
    """

    streams: int = 30
    posts: int = 30
    uploads: int = 5
    tokens: int = 40
    pause: float = 0.7
    trickle: float = 4.0
    model: str = "tiny"


@dataclass
class Request:
    """One request, as its client saw it. Times are seconds since the traffic began."""

    kind: str
    name: str
    began: float
    outcome: str = CUT
    status: int = 0
    ended: float = 0.0
    detail: str = ""

    def __str__(self) -> str:
        when = f"{self.began:.1f} to {self.ended:.1f} s"
        return (
            f"{self.kind} {self.name}, {when}: {self.outcome}, {self.status or '-'} {self.detail}"
        )


class Traffic:
    """Asks from when the block is entered until :meth:`end` or the block's end.

    Then no new request begins and those that run have *patience* seconds to end.
    """

    def __init__(
        self, address: str, key: str, plan: Plan | None = None, *, patience: float = 90
    ) -> None:
        self.plan = plan or Plan()
        self.prefix = uuid.uuid4().hex[:12]
        self.requests: list[Request] = []
        self.running: dict[str, Request] = {}
        self._address, self._key, self._patience = address, key, patience
        self._began = time.monotonic()
        self._over = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._ask()))

    def __enter__(self) -> Traffic:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.end()

    def end(self) -> None:
        """Begin nothing any more and wait for what runs."""
        self._over.set()
        self._thread.join()

    @property
    def now(self) -> float:
        """Seconds since the traffic began."""
        return time.monotonic() - self._began

    def at_work(self, kind: str) -> int:
        """How many requests of *kind* were accepted and are not over."""
        return sum(one.kind == kind and one.status == 200 for one in list(self.running.values()))

    def counts(self) -> Counter[tuple[str, str]]:
        """How many requests of which kind ended in which way."""
        return Counter((one.kind, one.outcome) for one in list(self.requests))

    def outcomes(self) -> Counter[str]:
        """How many requests ended in which way."""
        return Counter(one.outcome for one in list(self.requests))

    def of(self, outcome: str, *, since: float = 0.0) -> list[Request]:
        """Those that ended with *outcome* and began *since*."""
        return [one for one in self.requests if one.outcome == outcome and one.began >= since]

    def faults(self, executed: Mapping[str, int] | None) -> list[str]:
        """What must not have happened, a line each; *executed* None: the engine keeps no account.

        Whoever was accepted was served to the end, executed once; whoever was not was not executed.
        """
        bad = [str(one) for one in self.requests if one.outcome in {CUT, WRONG}]
        if executed is None:
            return bad
        for one in self.requests:
            times = executed.get(one.name, 0)
            if one.outcome in {REFUSED, UNREACHED, UNANSWERED} and times:
                bad.append(f"{one}, and executed {times} times")
            elif one.outcome == WHOLE and times != 1:
                bad.append(f"{one}, but executed {times} times")
        return bad

    # -- the clients ---------------------------------------------------------------------------

    async def _ask(self) -> None:
        plan = self.plan
        clients = [self._loop("stream", number, 0.0) for number in range(plan.streams)]
        clients += [self._loop("post", number, plan.pause) for number in range(plan.posts)]
        clients += [self._loop("upload", number, 0.5) for number in range(plan.uploads)]
        tasks = [asyncio.create_task(client) for client in clients]
        while not self._over.is_set():
            await asyncio.sleep(0.1)
        _, late = await asyncio.wait(tasks, timeout=self._patience) if tasks else (None, set())
        for task in late:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _loop(self, kind: str, number: int, pause: float) -> None:
        # not all at the same moment: that would be no traffic but a blow
        await asyncio.sleep(number * 0.03)
        serial = 0
        while not self._over.is_set():
            request = Request(kind, f"{self.prefix}-{kind}-{number}-{serial}", self.now)
            serial += 1
            self.running[request.name] = request
            try:
                await self._send(request)
            except asyncio.CancelledError:
                request.detail = f"not over {self._patience:.0f} s after the traffic's end"
                raise
            finally:
                request.ended = self.now
                del self.running[request.name]
                self.requests.append(request)
            refused = request.outcome != WHOLE
            await asyncio.sleep(max(pause, 1.0 if refused else 0.0))

    async def _send(self, request: Request) -> None:
        try:
            reader, writer = await asyncio.wait_for(
                asyncio.open_connection(self._address, 8080), timeout=3
            )
        except (TimeoutError, OSError) as error:
            request.outcome, request.detail = UNREACHED, repr(error)
            return
        try:
            sending = asyncio.create_task(self._write(request, writer))
            answer = await self._read(request, reader)
            sending.cancel()
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await sending
        finally:
            writer.close()
        judge(request, answer)

    async def _write(self, request: Request, writer: asyncio.StreamWriter) -> None:
        """A body at once, or, of an upload, drop by drop."""
        head, body = self._message(request)
        writer.write(head)
        drops = 12 if request.kind == "upload" else 1
        size = -(-len(body) // drops)
        for start in range(0, len(body), size):
            if start:
                await asyncio.sleep(self.plan.trickle / drops)
            writer.write(body[start : start + size])
            await writer.drain()

    async def _read(self, request: Request, reader: asyncio.StreamReader) -> bytes:
        """Everything until nginx closes; notes the status as soon as it is known."""
        answer = bytearray()
        try:
            while data := await reader.read(65536):
                answer += data
                if not request.status and len(answer) >= 12:
                    request.status = int(answer[9:12])
        except OSError as error:
            request.detail = repr(error)
        return bytes(answer)

    def _message(self, request: Request) -> tuple[bytes, bytes]:
        plan = self.plan
        short = request.kind == "post"
        value: dict[str, Any] = {
            "model": plan.model,
            "messages": [{"role": "user", "content": "hello"}],
            "user": request.name,
            "max_tokens": 4 if short else plan.tokens,
            "stream": request.kind == "stream",
            "ignore_eos": True,
        }
        body = json.dumps(value).encode()
        if request.kind == "upload":
            body = b" " * 6000 + body
        head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nHost: {self._address}\r\n"
            f"Authorization: Bearer {self._key}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        return head.encode(), body


def judge(request: Request, answer: bytes) -> None:
    """Set the outcome of *request* by its whole *answer*: status line, headers, body."""
    if not answer:
        request.outcome = UNANSWERED
        return
    head, _, body = answer.partition(b"\r\n\r\n")
    names = dict(_header(line) for line in head.split(b"\r\n")[1:])
    if request.status == 503:
        good = names.get(b"retry-after", b"").isdigit()
        request.outcome = REFUSED if good else WRONG
        request.detail += "" if good else "without Retry-After"
    elif request.status in {502, 504}:
        request.outcome = CUT
    elif request.status != 200:
        request.outcome, request.detail = (
            WRONG,
            request.detail + body[:200].decode(errors="replace"),
        )
    else:
        problem = _problem(request.kind, names, body)
        request.outcome = CUT if problem else WHOLE
        request.detail += problem


def _header(line: bytes) -> tuple[bytes, bytes]:
    name, _, value = line.partition(b":")
    return name.strip().lower(), value.strip()


def _problem(kind: str, names: Mapping[bytes, bytes], body: bytes) -> str:
    """Why a 200 is not what was asked for; nothing when it is."""
    if names.get(b"transfer-encoding") == b"chunked":
        received = len(body)
        body, whole = _joined(body)
        if not whole:
            return f"broken off after {received} bytes"
    elif len(body) != int(names.get(b"content-length", b"-1")):
        return f"{len(body)} bytes of {names.get(b'content-length', b'?').decode()}"
    if not re.search(rb'"finish_reason": ?"length"', body):
        return "finish_reason abort" if b'"abort"' in body else f"no completion: {body[:200]!r}"
    if kind == "stream" and not body.endswith(b"data: [DONE]\n\n"):
        return "no [DONE] at its end"
    return ""


def _joined(chunks: bytes) -> tuple[bytes, bool]:
    """The content of *chunks*, which nginx cuts anywhere, and whether the last one is there."""
    body = bytearray()
    while True:
        size, found, chunks = chunks.partition(b"\r\n")
        if not found:
            return bytes(body), False
        length = int(size, 16)
        body += chunks[:length]
        if chunks[length : length + 2] != b"\r\n":
            return bytes(body), False
        if not length:
            return bytes(body), True
        chunks = chunks[length + 2 :]
