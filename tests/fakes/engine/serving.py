"""The engine's HTTP server: paths, bodies, and answers in the manner of the moment."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import TCPServer
from typing import Any

from . import shapes
from .dialects import DIALECTS, Dialect
from .manners import Conduct, Manners, MannersError
from .work import Run, Work

MAX_BODY = 16 * 1024 * 1024
COMPLETIONS = ("/v1/chat/completions", "/v1/completions")


class BadRequestError(Exception):
    """The client's request cannot be served; the text goes into OpenAI's error shape."""


WORKER = """
import signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print(flush=True)
signal.alarm(3600)  # one that nobody kills ends by itself
signal.pause()
"""


def worker() -> subprocess.Popen[bytes]:
    """A process that ignores SIGTERM, from the moment on at which this returns."""
    process = subprocess.Popen([sys.executable, "-c", WORKER], stdout=subprocess.PIPE)
    if process.stdout:
        process.stdout.readline()
    return process


class Engine(ThreadingHTTPServer):
    """The listening engine: what it serves, how, and since when it is healthy.

    ``refuses`` is the status with which it refuses every new request, None while it does not.
    ``leaving``: it says that it is not ready, and serves on (SGLang after SIGTERM).
    """

    daemon_threads = True
    request_queue_size = 1024

    def __init__(
        self,
        address: tuple[str, int],
        model: str,
        conduct: Conduct,
        work: Work,
        *,
        start_delay: float,
        unhealthy_while: Path | None,
        dialect: Dialect = DIALECTS["vllm"],
        adapters: Sequence[str] = (),
    ) -> None:
        super().__init__(address, Handler)
        self.model = model
        self.names = (model, *adapters)
        self.dialect = dialect
        self.conduct = conduct
        self.work = work
        self.refuses: int | None = None
        self.leaving = False
        self._unhealthy_while = unhealthy_while
        self._healthy_at = time.monotonic() + start_delay
        self._last_metrics = b""
        self._workers: list[subprocess.Popen[bytes]] = []
        self.change({})

    def server_bind(self) -> None:
        """Bind without the base's reverse look-up of the address, which can take seconds."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]

    def started(self) -> bool:
        """It serves; before, it only listens."""
        return time.monotonic() >= self._healthy_at

    def healthy(self) -> bool:
        """What /health says, whatever the truth is."""
        return self.started() and not (self._unhealthy_while and self._unhealthy_while.exists())

    def metrics(self) -> bytes:
        """Its metrics; of a wedged engine those of before (vLLM's core tells after each step)."""
        if not self._last_metrics or self.conduct.now.answers != "wedge":
            self._last_metrics = self.dialect.page(self.model, self.work)
        return self._last_metrics

    def change(self, changes: object) -> Manners:
        """Change its manners. Raises MannersError."""
        self.metrics()
        manners = self.conduct.change(changes)
        while len(self._workers) < manners.workers:
            self._workers.append(worker())
        return manners

    def stop_listening(self) -> None:
        """Accept no connection any more; those that are there stay."""
        self.shutdown()
        self.server_close()

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is no news; anything else is."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


class Handler(BaseHTTPRequestHandler):
    """One connection to the engine."""

    protocol_version = "HTTP/1.1"
    server_version = "farrier-standin"
    server: Engine
    _prompt = ""

    def do_GET(self) -> None:
        dialect = self.server.dialect
        if self.path in dialect.ready:
            ready = self.server.healthy() and not self.server.leaving
            self._send(200 if ready else dialect.starting, b"")
        elif self.path in dialect.alive:
            self._send(200, b"running")
        elif self.path == "/executed":
            self._send_json(200, self.server.work.executed())
        elif self.path == "/manners":
            self._send_json(200, vars(self.server.conduct.now))
        elif not self.server.started():
            self._problem(503, "the engine is starting")
        elif self.path == "/v1/models":
            self._send_json(200, shapes.models(dialect.model(self.server.model)))
        elif self.path == dialect.metrics and self.server.conduct.now.metrics:
            self._send(200, self.server.metrics(), "text/plain; version=0.0.4")
        elif (say := dialect.says.get(self.path)) is not None:
            self._send_json(200, say(self.server.model, self.server.work, self.server.conduct.now))
        else:
            self._problem(404, f"no such path: {self.path}")

    def do_POST(self) -> None:
        try:
            if self.path == "/manners":
                changed = self.server.change(self._read_json())
                self._send_json(200, vars(changed))
            elif not self.server.started():
                self._refuse(503, "the engine is starting")
            elif self.path not in COMPLETIONS:
                self._refuse(404, f"no such path: {self.path}")
            else:
                self._complete(self._read_json())
        except (BadRequestError, MannersError) as error:
            self._refuse(400, str(error))

    def _complete(self, request: object) -> None:
        if not isinstance(request, dict):
            raise BadRequestError("the body is not a JSON object")
        if self.server.refuses is not None:
            self._refuse(self.server.refuses, "the engine is shutting down")
        elif self.server.dialect.names_model and request.get("model") not in self.server.names:
            self._problem(404, f"The model `{request.get('model')}` does not exist.")
        else:
            # nginx names requests itself; a client names its own in OpenAI's field "user"
            user = request.get("user") or self.headers.get("X-Request-Id")
            name = str(user or uuid.uuid4().hex)
            with self.server.work.execution(name, shapes.prompt_tokens(request)) as run:
                self._prompt = f"{request.get('messages')}{request.get('prompt')}"
                self.server.conduct.take_in(self._prompt)
                if self._answered_badly(run):
                    return
                answer = self._stream if request.get("stream") else self._whole
                answer(run, request)

    def _refuse(self, status: int, message: str) -> None:
        self.close_connection = True
        self._problem(status, message)

    # -- reading -----------------------------------------------------------------------------

    def _read_json(self) -> object:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            body = self._read_chunks()
        else:
            try:
                length = int(self.headers.get("Content-Length", ""))
            except ValueError:
                raise BadRequestError("a body with Content-Length is needed") from None
            if not 0 <= length <= MAX_BODY:
                raise BadRequestError(f"Content-Length {length} is not within 0 and {MAX_BODY}")
            body = self.rfile.read(length)
            if len(body) < length:
                raise BadRequestError("the body ended before its Content-Length")
        try:
            return json.loads(body)
        except ValueError as error:
            raise BadRequestError(f"the body is not JSON: {error}") from None

    def _read_chunks(self) -> bytes:
        body = b""
        while True:
            try:
                size = int(self.rfile.readline(32).split(b";")[0], 16)
            except ValueError:
                raise BadRequestError("the body's chunks cannot be read") from None
            if not 0 <= size <= MAX_BODY - len(body):
                raise BadRequestError(f"the body is larger than {MAX_BODY} bytes")
            chunk = self.rfile.read(size)
            if len(chunk) < size:
                raise BadRequestError("the body ended before its last chunk")
            self.rfile.readline(32)
            if not size:
                return body
            body += chunk

    # -- answering ---------------------------------------------------------------------------

    def _whole(self, run: Run, request: dict[str, Any]) -> None:
        chat, count = self.path == COMPLETIONS[0], shapes.tokens_wanted(request)
        done, finish = 0, "length"
        while done < count and finish == "length":
            self.server.conduct.pause()
            if self._manner() == "abort":
                finish = "abort"
            elif self._answered_badly(run):
                return
            else:
                done += 1
                self.server.work.token()
        prompt = shapes.prompt_tokens(request)
        answer = shapes.completion(self.server.model, done, prompt, chat=chat, finish=finish)
        run.end = finish  # before the last byte: who has the answer may ask for the account
        self._send_json(200, answer)

    def _manner(self) -> str:
        """What this request gets now."""
        return self.server.conduct.answers(self._prompt)

    def _answered_badly(self, run: Run) -> bool:
        """The manner of the moment is one that gives no completion, and was carried out."""
        manner = self._manner()
        if manner in {"500", "503"}:
            run.end = manner
            self._refuse(int(manner), "as it was asked to")
        elif manner == "close":
            run.end = "closed"
            self._hang_up()
        elif manner == "garbage":
            run.end = "garbage"
            self._send(200, b"\x00\xff<html>", "application/json")
        else:
            return False
        return True

    def _hang_up(self) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def _stream(self, run: Run, request: dict[str, Any]) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        chunks = shapes.Chunks(self.server.model, chat=self.path == COMPLETIONS[0])
        count, said = shapes.tokens_wanted(request), 0
        for number in range(count):
            self.server.conduct.pause()
            manner = self._manner()
            if manner == "abort":
                self._event(json.dumps(chunks.chunk("", first=not number, finish="abort")))
                run.end = "abort"
                break
            if manner in {"500", "503", "close"} or (manner == "break" and number >= count // 2):
                run.end = "broken"
                self._hang_up()
                return
            self.server.work.token()
            said = number + 1
            finish = "length" if number == count - 1 else None
            event = chunks.chunk(shapes.word(number), first=not number, finish=finish)
            self._event(json.dumps(event))
            run.end = finish or run.end
        if (request.get("stream_options") or {}).get("include_usage"):
            self._event(json.dumps(chunks.usage(said, shapes.prompt_tokens(request))))
        if self._manner() != "undone":
            self._event("[DONE]")
        self.wfile.write(b"0\r\n\r\n")

    def _event(self, data: str) -> None:
        event = f"data: {data}\n\n".encode()
        self.wfile.write(b"%x\r\n%s\r\n" % (len(event), event))

    def _problem(self, status: int, message: str) -> None:
        self._send_json(status, shapes.problem(status, message))

    def _send_json(self, status: int, value: object) -> None:
        self._send(status, json.dumps(value).encode(), "application/json")

    def _send(self, status: int, body: bytes, kind: str = "text/plain") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        """Say nothing per request: the journal of a test is read by people."""
