#!/usr/bin/env python3
"""A stand-in for an OpenAI-compatible engine: the interface of one, without a model behind it.

It answers ``/health``, ``/v1/models``, ``/v1/chat/completions`` and ``/v1/completions`` (both also
as a stream of server-sent events that ends in ``data: [DONE]``) and ``/metrics`` with two of vLLM's
metrics. It repeats words of its own, so a reader can see that it is no model. Standard library
only, Python 3.11 or newer; one file, to be copied to a host as it is.

Until ``--start-delay`` seconds have passed it listens, but every path answers 503: an engine that
listens is not yet one that serves. SIGTERM ends it at once and cuts its streams, as most engines
do.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import TCPServer
from typing import Any

WORDS = ("the", "stand-in", "engine", "answers", "with", "words", "of", "its", "own")
MAX_BODY = 16 * 1024 * 1024
DEFAULT_TOKENS = 16


class BadRequestError(Exception):
    """The client's request cannot be served; the text goes into OpenAI's error shape."""


class Engine(ThreadingHTTPServer):
    """The listening engine: what it serves and since when it is healthy."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, options: argparse.Namespace) -> None:
        super().__init__((options.host, options.port), Handler)
        self.model: str = options.model
        self.token_delay: float = options.token_delay
        self.unhealthy_while: Path | None = options.unhealthy_while
        self.healthy_at: float = time.monotonic() + options.start_delay
        self.counter = threading.Lock()
        self.running = 0
        self.served = 0

    def server_bind(self) -> None:
        """Bind without the base's reverse look-up of the address, which can take seconds."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]

    def started(self) -> bool:
        return time.monotonic() >= self.healthy_at

    def healthy(self) -> bool:
        return self.started() and not (self.unhealthy_while and self.unhealthy_while.exists())

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is no news; anything else is."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


class Handler(BaseHTTPRequestHandler):
    """One connection to the engine."""

    protocol_version = "HTTP/1.1"
    server_version = "farrier-standin"
    server: Engine

    def do_GET(self) -> None:
        if self.path == "/health":
            self.send_body(200 if self.server.healthy() else 503, b"")
        elif not self.server.started():
            self.send_problem(503, "the engine is starting")
        elif self.path == "/v1/models":
            self.send_json(200, {"object": "list", "data": [self.model_card()]})
        elif self.path == "/metrics":
            self.send_body(200, self.metrics(), "text/plain; version=0.0.4")
        else:
            self.send_problem(404, f"no such path: {self.path}")

    def do_POST(self) -> None:
        if not self.server.started():
            self.close_connection = True
            return self.send_problem(503, "the engine is starting")
        try:
            if self.path not in {"/v1/chat/completions", "/v1/completions"}:
                self.close_connection = True
                return self.send_problem(404, f"no such path: {self.path}")
            request = self.read_request()
        except BadRequestError as error:
            self.close_connection = True
            return self.send_problem(400, str(error))
        if request.get("model") != self.server.model:
            return self.send_problem(404, f"The model `{request.get('model')}` does not exist.")
        with self.server.counter:
            self.server.running += 1
        try:
            self.complete(request, chat=self.path == "/v1/chat/completions")
        finally:
            with self.server.counter:
                self.server.running -= 1
                self.server.served += 1

    def read_request(self) -> dict[str, Any]:
        try:
            length = int(self.headers.get("Content-Length", ""))
        except ValueError:
            raise BadRequestError("a body with Content-Length is needed") from None
        if not 0 <= length <= MAX_BODY:
            raise BadRequestError(f"Content-Length {length} is not within 0 and {MAX_BODY}")
        try:
            request = json.loads(self.rfile.read(length))
        except ValueError as error:
            raise BadRequestError(f"the body is not JSON: {error}") from None
        if not isinstance(request, dict):
            raise BadRequestError("the body is not a JSON object")
        return request

    def complete(self, request: dict[str, Any], *, chat: bool) -> None:
        wanted = request.get("max_completion_tokens") or request.get("max_tokens") or DEFAULT_TOKENS
        count = wanted if isinstance(wanted, int) and wanted > 0 else DEFAULT_TOKENS
        words = [WORDS[i % len(WORDS)] + " " for i in range(count)]
        if request.get("stream"):
            return self.stream(words, chat=chat)
        time.sleep(self.server.token_delay * count)
        text = "".join(words)
        choice: dict[str, Any] = {"index": 0, "finish_reason": "length", "logprobs": None}
        choice |= {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
        usage = {"prompt_tokens": 1, "completion_tokens": count, "total_tokens": count + 1}
        kind = "chat.completion" if chat else "text_completion"
        return self.send_json(200, self.envelope(kind) | {"choices": [choice], "usage": usage})

    def stream(self, words: list[str], *, chat: bool) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        head = self.envelope("chat.completion.chunk" if chat else "text_completion")
        for number, word in enumerate(words):
            time.sleep(self.server.token_delay)
            choice: dict[str, Any] = {"index": 0, "logprobs": None}
            choice["finish_reason"] = "length" if number == len(words) - 1 else None
            if chat:
                choice["delta"] = {"content": word} | ({} if number else {"role": "assistant"})
            else:
                choice["text"] = word
            self.send_event(json.dumps(head | {"choices": [choice]}))
        self.send_event("[DONE]")
        self.wfile.write(b"0\r\n\r\n")

    def send_event(self, data: str) -> None:
        event = f"data: {data}\n\n".encode()
        self.wfile.write(b"%x\r\n%s\r\n" % (len(event), event))

    def envelope(self, kind: str) -> dict[str, Any]:
        name = f"standin-{time.time_ns():x}"
        created = int(time.time())
        return {"id": name, "object": kind, "created": created, "model": self.server.model}

    def model_card(self) -> dict[str, Any]:
        return {"id": self.server.model, "object": "model", "created": 0, "owned_by": "standin"}

    def metrics(self) -> bytes:
        label = f'{{model_name="{self.server.model}"}}'
        return (
            "# HELP vllm:num_requests_running Requests being answered.\n"
            "# TYPE vllm:num_requests_running gauge\n"
            f"vllm:num_requests_running{label} {self.server.running}\n"
            "# HELP vllm:request_success_total Requests answered.\n"
            "# TYPE vllm:request_success_total counter\n"
            f"vllm:request_success_total{label} {self.server.served}\n"
        ).encode()

    def send_problem(self, status: int, message: str) -> None:
        self.send_json(status, {"error": {"message": message, "type": "standin", "code": status}})

    def send_json(self, status: int, value: dict[str, Any]) -> None:
        self.send_body(status, json.dumps(value).encode(), "application/json")

    def send_body(self, status: int, body: bytes, kind: str = "text/plain") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        """Say nothing per request: the journal of a test is read by people."""


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="standin.py", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--model", required=True, help="the one model name that it serves")
    parser.add_argument("--start-delay", type=float, default=0.0, help="seconds before healthy")
    parser.add_argument("--token-delay", type=float, default=0.02, help="seconds per word")
    parser.add_argument("--unhealthy-while", type=Path, help="/health is 503 while PATH exists")
    parser.add_argument("--exit-at-start", type=int, metavar="CODE", help="complain and exit")
    return parser.parse_args(argv)


def main() -> int:
    options = parse()
    if options.exit_at_start is not None:
        print(
            f"standin: RuntimeError: asked to exit at start with status {options.exit_at_start}",
            file=sys.stderr,
        )
        return int(options.exit_at_start)
    try:
        engine = Engine(options)
    except OSError as error:
        print(f"standin: cannot listen on {options.host}:{options.port}: {error}", file=sys.stderr)
        return 1
    print(f"standin: serving {options.model} on {options.host}:{options.port}", file=sys.stderr)
    engine.serve_forever(poll_interval=0.2)
    return 0


if __name__ == "__main__":
    sys.exit(main())
