"""OpenAI's endpoints over one worker."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response, StreamingResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from farrier_transformers.bodies import ChatBody, CompletionBody, EmbeddingBody, GenerationBody
from farrier_transformers.errors import ApiError, NoModelError, error_body
from farrier_transformers.jobs import Ended, Job, Line, Piece, Vector
from farrier_transformers.metrics import Meters
from farrier_transformers.models import Embeds, Generates, Model
from farrier_transformers.sampling import Sampling
from farrier_transformers.shapes import Shape, embeddings, models
from farrier_transformers.worker import State, Worker

__all__ = ["Api"]

TEXT_TOKENS = 16
"""``max_tokens`` of a plain completion that does not say: OpenAI's."""
CLIENT_LEFT = 499
"""nginx's status for it; nobody reads the answer."""


class Api:
    """Answers for the model called *name*, with what *worker* makes of the jobs in *line*."""

    def __init__(self, name: str, line: Line, meters: Meters, worker: Worker) -> None:
        self._name = name
        self._line = line
        self._meters = meters
        self._worker = worker
        self._created = int(time.time())

    def application(
        self, lifespan: Callable[[FastAPI], AbstractAsyncContextManager[None]]
    ) -> FastAPI:
        """The ASGI application, which lives within *lifespan*."""
        app = FastAPI(lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
        add = app.add_api_route
        add("/health", self.health, response_model=None)
        add("/metrics", self.metrics, response_model=None)
        add("/v1/models", self.models, response_model=None)
        add("/v1/chat/completions", self.chat, methods=["POST"], response_model=None)
        add("/v1/completions", self.complete, methods=["POST"], response_model=None)
        add("/v1/embeddings", self.embed, methods=["POST"], response_model=None)
        app.add_exception_handler(ApiError, _refused)
        app.add_exception_handler(RequestValidationError, _misunderstood)
        app.add_exception_handler(HTTPException, _elsewhere)
        return app

    async def health(self) -> Response:
        """200 once a token was generated, and while the thread that generates is alive."""
        state = self._worker.state
        said = {"status": "ok" if state is State.READY else state.value}
        if self._worker.why:
            said["why"] = self._worker.why
        return JSONResponse(said, 200 if state is State.READY else 503)

    async def metrics(self) -> Response:
        """Prometheus' page."""
        return Response(generate_latest(self._meters.registry), media_type=CONTENT_TYPE_LATEST)

    async def models(self) -> Response:
        """The one model."""
        context = self._worker.model.context if self._worker.model else None
        return JSONResponse(models(self._name, self._created, context))

    async def chat(self, body: ChatBody, request: Request) -> Response:
        """A conversation's next message."""
        model = self._generates(body.model)
        prompt = await asyncio.to_thread(model.encode_chat, body.conversation)
        room = model.room(prompt, body.max_completion_tokens or body.max_tokens)
        return await self._generated(body, model, prompt, room, request)

    async def complete(self, body: CompletionBody, request: Request) -> Response:
        """A text's continuation."""
        model = self._generates(body.model)
        prompt = await asyncio.to_thread(model.encode, body.only_prompt)
        room = model.room(prompt, body.max_tokens or TEXT_TOKENS)
        return await self._generated(body, model, prompt, room, request)

    async def embed(self, body: EmbeddingBody, request: Request) -> Response:
        """Vectors."""
        model = self._embeds(body.model)
        if body.dimensions is not None:
            raise ApiError(400, "dimensions is not supported by this server", param="dimensions")
        inputs = [await asyncio.to_thread(model.encode, one) for one in body.inputs]
        job = Job(model.vectors(inputs))
        self._line.join(job)
        events = await self._while_asked(job, request, _all(job))
        vectors = [event for event in events or () if isinstance(event, Vector)]
        if events is None:
            return Response(status_code=CLIENT_LEFT)
        return JSONResponse(embeddings(self._name, vectors, body.encoding_format))

    def _generates(self, asked: str) -> Generates:
        """The model, which has to generate. Raises :class:`ApiError`."""
        model = self._model(asked)
        if isinstance(model, Generates):
            return model
        raise ApiError(400, "this model embeds text: ask /v1/embeddings", param="model")

    def _embeds(self, asked: str) -> Embeds:
        """The model, which has to embed. Raises :class:`ApiError`."""
        model = self._model(asked)
        if isinstance(model, Embeds):
            return model
        raise ApiError(
            400,
            "this model generates text: ask /v1/chat/completions or /v1/completions",
            param="model",
        )

    def _model(self, asked: str) -> Model:
        if asked != self._name:
            raise NoModelError(asked, self._name)
        return self._worker.ready()

    async def _generated(
        self,
        body: GenerationBody,
        model: Generates,
        prompt: list[int],
        room: int,
        request: Request,
    ) -> Response:
        chat = isinstance(body, ChatBody)
        sampling = Sampling(
            room,
            *(body.temperature, body.top_p, body.top_k, body.seed, body.stops, body.ignore_eos),
        )
        job = Job(model.answer(prompt, sampling))
        name = f"{'chatcmpl' if chat else 'cmpl'}-{secrets.token_hex(12)}"
        shape = Shape(name, self._name, int(time.time()), chat, body.stream and body.counts)
        self._line.join(job)
        if body.stream:
            return _Stream(_told(job, shape), lambda: self._line.leave(job))
        events = await self._while_asked(job, request, _all(job))
        if events is None:
            return Response(status_code=CLIENT_LEFT)
        text = "".join(event.text for event in events if isinstance(event, Piece))
        ended = next(event for event in events if isinstance(event, Ended))
        return JSONResponse(shape.whole(text, ended))

    async def _while_asked(self, job: Job, request: Request, work: Any) -> list[Any] | None:
        """What *work* comes to; None where the client left before, which ends the job."""
        working = asyncio.ensure_future(work)
        gone = asyncio.ensure_future(_gone(request))
        try:
            await asyncio.wait({working, gone}, return_when=asyncio.FIRST_COMPLETED)
            return await working if working.done() else None
        finally:
            working.cancel()
            gone.cancel()
            self._line.leave(job)


class _Stream(StreamingResponse):
    """Events as they come; *over* is called when the last was sent, or the client left."""

    def __init__(self, events: AsyncIterator[str], over: Callable[[], None]) -> None:
        super().__init__(events, media_type="text/event-stream")
        self._over = over

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._over()


async def _told(job: Job, shape: Shape) -> AsyncIterator[str]:
    """The stream of *job*. One that is cut off has an error for its last event, and no [DONE]."""
    for event in shape.first():
        yield _line(event)
    try:
        async for said in job:
            if isinstance(said, Piece):
                yield _line(shape.piece(said.text))
            elif isinstance(said, Ended):
                for event in shape.last(said):
                    yield _line(event)
    except ApiError as error:
        yield _line(error.body)
        return
    yield "data: [DONE]\n\n"


def _line(event: dict[str, Any]) -> str:
    return f"data: {json.dumps(event, ensure_ascii=False, separators=(',', ':'))}\n\n"


async def _all(job: Job) -> list[Any]:
    return [event async for event in job]


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)  # noqa: S101 - the handler's type is Starlette's
    return JSONResponse(error.body, error.status, dict(error.headers))


async def _misunderstood(_: Request, error: Exception) -> Response:
    """FastAPI's 422, as OpenAI has it: the first thing that is wrong, and where."""
    assert isinstance(error, RequestValidationError)  # noqa: S101
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"][1:] if not isinstance(part, int))
    if first["type"] == "json_invalid":
        where = ""
    what = str(first["msg"]).removeprefix("Value error, ")
    message = f"{where}: {what}" if where else f"the body is no good: {what}"
    field = where.partition(".")[0] or None
    return JSONResponse(error_body(400, message, param=field), 400)


async def _elsewhere(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101
    headers = dict(error.headers or {})
    return JSONResponse(
        error_body(error.status_code, str(error.detail)), error.status_code, headers
    )
