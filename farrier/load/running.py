"""The load itself: clients in loops, fresh ones at a rate, and an orderly end."""

from __future__ import annotations

import asyncio
import random
import resource
import time
import uuid
from collections.abc import Callable
from contextlib import suppress

from farrier.load.answer import Answer
from farrier.load.asking import Pace, first_model, headers, sending, streams
from farrier.load.connecting import Connections
from farrier.load.endpoint import Endpoint, EndpointError, Key
from farrier.load.judging import Asked, judge
from farrier.load.ledger import Ledger, Request
from farrier.load.plan import Plan, PlanError
from farrier.load.sending import LEFT, Connection, Sending, UnreachedError, UntouchedError

__all__ = ["run"]

LOOPS = ("stream", "post", "upload", "slow", "vanish")
FRESH_AT_ONCE = 1000
"""Fresh requests beyond so many that run are held back, and counted."""
MOST_REPEATS = 3
SPARE_FILES = 100
RAMP = 5.0
"""Seconds within which all clients of a kind have begun."""

Progress = Callable[[Ledger], None]


async def run(
    plan: Plan,
    endpoint: Endpoint,
    *,
    on_progress: Progress | None = None,
    stop: asyncio.Event | None = None,
    ledger: Ledger | None = None,
) -> Ledger:
    """Carry out *plan* against *endpoint*; the ledger, in which every request is over.

    *on_progress* is called about once a second, with the ledger as it is. Once *stop* is set no new
    request begins; the running ones are waited for, as at the end of the plan's seconds. A
    *ledger* that is handed in can be read meanwhile.

    Raises PlanError and EndpointError before the first request of the plan, and nothing after it.
    """
    load = _Load(plan, endpoint, ledger or Ledger(), stop or asyncio.Event())
    await load.prepare()
    return await load.run(on_progress)


class _Client:
    """Who asks: a name, a key, and the connection that is kept for the next request."""

    def __init__(self, kind: str, number: int, key: tuple[str, Key] | None) -> None:
        self.name = f"{kind}-{number}"
        self.kind = kind
        self.key_name = key[0] if key else ""
        self.key = key[1] if key else None
        self.connection: Connection | None = None
        self.serial = 0


class _Load:
    def __init__(self, plan: Plan, endpoint: Endpoint, ledger: Ledger, stop: asyncio.Event) -> None:
        self.plan, self.endpoint, self.ledger, self.over = plan, endpoint, ledger, stop
        self.ledger.prefix = self.ledger.prefix or f"load-{uuid.uuid4().hex[:10]}"
        self.random = random.Random(plan.seed)  # noqa: S311 - a load, not a secret
        self.pace = Pace(plan, self.random)
        self.from_where = Connections(plan, endpoint)
        self.models = plan.models
        self.keys = list(endpoint.client_keys().items())
        self.left = plan.requests
        self.connections: dict[str, Connection] = {}

    # -- before the first request ------------------------------------------------------------

    async def prepare(self) -> None:
        """See that it can be done. Raises PlanError, EndpointError."""
        _allow_files(self.plan)
        if not self.models:
            self.models = (await self._listed(),)
        for model in self.models:
            if self.keys and not any(key.may_use(model) for _, key in self.keys):
                raise EndpointError(f"no key of the file may use the model {model}")

    async def _listed(self) -> str:
        """The first model that the endpoint lists."""
        name, key = self.keys[0] if self.keys else ("", None)
        answer = Answer()
        client = _Client("models", 0, (name, key) if key else None)
        try:
            connection = await self._connection(client)
        except UnreachedError as error:
            raise EndpointError(f"{self.endpoint.url}: {error}") from None
        asking = Sending(
            self.endpoint.path("models"),
            self.endpoint.authority,
            headers(key, self.ledger.prefix, "application/json"),
            method="GET",
        )
        with suppress(TimeoutError):
            async with asyncio.timeout(self.plan.connect_seconds):
                await connection.ask(asking, answer, keep=False)
        return first_model(answer, self.endpoint.path("models"))

    # -- from the first request to the last --------------------------------------------------

    async def run(self, on_progress: Progress | None) -> Ledger:
        plan = self.plan
        numbers = (plan.streams, plan.posts, plan.uploads, plan.slow, plan.vanish)
        tasks: set[asyncio.Task[None]] = set()
        for kind, number in zip(LOOPS, numbers, strict=True):
            ramp = min(plan.ramp, RAMP / max(1, number))
            for one in range(number):
                tasks.add(asyncio.create_task(self._loop(self._client(kind, one), one * ramp)))
        if plan.fresh:
            tasks.add(asyncio.create_task(self._fresh()))
        beside = [asyncio.create_task(self._watch(on_progress))]
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(plan.seconds):
                    await self.over.wait()
            self.over.set()
            _, late = await asyncio.wait(tasks, timeout=plan.at_the_end)
        finally:
            self.over.set()
            for task in [*tasks, *beside]:
                task.cancel()
            await asyncio.gather(*tasks, *beside, return_exceptions=True)
            self.from_where.close()
            self.ledger.seconds = self.ledger.now
        del late
        if on_progress:
            on_progress(self.ledger)
        return self.ledger

    async def _watch(self, on_progress: Progress | None) -> None:
        """Once a second: give up on the silent, tell how it goes."""
        while True:
            await asyncio.sleep(1)
            now = time.monotonic()
            for name, connection in list(self.connections.items()):
                _, answer = self.ledger.running[name]
                if now - answer.last_byte > self.plan.silence:
                    connection.give_up(answer, f"nothing came for {self.plan.silence:g} s")
            if on_progress:
                on_progress(self.ledger)

    def _client(self, kind: str, number: int) -> _Client:
        key = self.keys[number % len(self.keys)] if self.keys else None
        return _Client(kind, number, key)

    async def _loop(self, client: _Client, late: float) -> None:
        await self._rest(late)
        try:
            while not self.over.is_set() and self._may():
                request = await self._one(client)
                if request.outcome not in {"complete", "vanished"}:
                    await self._rest(self.plan.after_refusal)
                elif client.kind == "post":
                    # at all distances: a server closes idle connections after a time of its own
                    await self._rest(self.random.uniform(0, 2 * self.plan.pause))
        finally:
            if client.connection and not self.plan.http2:  # there it is shared
                client.connection.close()

    async def _fresh(self) -> None:
        """Requests at a rate, whatever becomes of those before."""
        running: set[asyncio.Task[Request]] = set()
        number, began = 0, time.monotonic()
        try:
            while not self.over.is_set() and self._may():
                if len(running) < FRESH_AT_ONCE:
                    task = asyncio.create_task(self._one(self._client("fresh", number)))
                    running.add(task)
                    task.add_done_callback(running.discard)
                else:
                    self.ledger.held_back += 1
                number += 1
                await self._rest(began + number / self.plan.fresh - time.monotonic())
            if running:
                await asyncio.wait(running)
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    def _may(self) -> bool:
        """One more request, if the plan has it."""
        self.left -= 1
        if self.left < 0:
            self.over.set()
        return self.left >= 0

    async def _rest(self, seconds: float) -> None:
        """Wait, but not beyond the end."""
        if seconds > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self.over.wait()

    # -- one request -------------------------------------------------------------------------

    async def _one(self, client: _Client) -> Request:
        serial, client.serial = client.serial, client.serial + 1
        name = f"{self.ledger.prefix}-{client.name}-{serial}"
        tokens = self.pace.tokens(client.kind)
        model = self._model(client)
        request = Request(name, client.kind, self.ledger.now, model, tokens, client.key_name)
        answer = Answer()
        self.ledger.begin(request, answer)
        to_send = sending(self.plan, self.endpoint, request, client.key, serial)
        try:
            while not await self._asked(client, request, to_send, answer):
                request.repeats += 1
        except UnreachedError as error:
            self.ledger.end(request, "unreached", str(error))
        except asyncio.CancelledError:
            if not answer.whole:
                answer.end(f"not over {self.plan.at_the_end:g} s after the load's end")
            self._settle(request, answer)
            raise
        else:
            self._settle(request, answer)
        return request

    async def _asked(
        self, client: _Client, request: Request, to_send: Sending, answer: Answer
    ) -> bool:
        """Send it once; False where the server says that it did not touch it."""
        try:
            connection = await self._connection(client)
        except asyncio.CancelledError:
            raise UnreachedError("no connection by the load's end") from None
        request.reused = connection.served > 0
        self.connections[request.name] = connection
        try:
            await connection.ask(
                to_send, answer, keep=self.plan.keep_alive and client.kind != "fresh"
            )
        except UntouchedError as error:
            if request.repeats < MOST_REPEATS:
                return False
            answer.end(str(error))
        finally:
            del self.connections[request.name]
        return True

    async def _connection(self, client: _Client) -> Connection:
        client.connection = await self.from_where.get(
            client.connection, fresh=client.kind == "fresh", small=client.kind == "slow"
        )
        return client.connection

    def _model(self, client: _Client) -> str:
        key = client.key
        allowed = [one for one in self.models if key is None or key.may_use(one)]
        return self.random.choice(allowed or self.models)

    def _settle(self, request: Request, answer: Answer) -> None:
        request.status = answer.status
        request.server = answer.headers.get(self.plan.server_header.lower(), "")
        request.first_byte = self.ledger.since(answer.first_byte)
        request.first_token = self.ledger.since(answer.first_token)
        stream = streams(request.kind)
        asked = Asked(request.model, request.tokens, stream, self.plan.ignore_eos)
        outcome, detail = judge(asked, answer)
        if answer.broken == LEFT and outcome == "incomplete":
            outcome, detail = "vanished", ""
        if outcome == "complete" and request.kind == "stream" and answer.first_token:
            self.pace.learn(request.tokens, answer.last_byte - answer.first_token)
        self.ledger.end(request, outcome, detail)


def _allow_files(plan: Plan) -> None:
    """Have as many open files as the plan needs. Raises PlanError where that is forbidden."""
    needed = plan.clients + min(FRESH_AT_ONCE, round(plan.fresh * 60)) + SPARE_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < needed:
        if hard != resource.RLIM_INFINITY and hard < needed:
            raise PlanError(
                f"{needed} open files are needed and {hard} allowed; next: ulimit -Hn {needed}"
            )
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
