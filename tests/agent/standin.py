"""The stand-in engine as tests of the agent's parts use it: a process on a port, and a client."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tests.agent.host import FAKES, free_port, until

PROGRAM = FAKES / "engine" / "standin.py"


class Client:
    """A client of the engine; each request has a connection of its own."""

    def __init__(self, port: int) -> None:
        self.port = port

    def ask(self, method: str, path: str, body: object = None, **headers: str) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        data = None if body is None else json.dumps(body)
        connection.request(method, path, data, headers)
        answer = connection.getresponse()
        text = answer.read()
        kind = answer.headers.get("Content-Type", "")
        return answer.status, json.loads(text) if "json" in kind else text.decode()

    def chat(self, name: str = "x", *, stream: bool = False, tokens: int = 4) -> tuple[int, Any]:
        body = {"model": "tiny", "messages": [], "max_tokens": tokens, "stream": stream}
        return self.ask("POST", "/v1/chat/completions", body, **{"X-Request-Id": name})

    def begin(self, name: str, *, tokens: int = 40) -> http.client.HTTPResponse:
        """Send a request for a stream and return when its first token came."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        body = {"model": "tiny", "messages": [], "max_tokens": tokens, "stream": True}
        headers = {"X-Request-Id": name}
        connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
        answer = connection.getresponse()
        assert answer.readline().startswith(b"data: ")
        return answer

    def manners(self, **changes: object) -> tuple[int, Any]:
        return self.ask("POST", "/manners", changes)

    def executed(self) -> dict[str, Any]:
        account: dict[str, Any] = self.ask("GET", "/executed")[1]
        return account

    def ends(self, *expected: str) -> None:
        """Wait until the requests ended so: the client has its bytes a little before."""
        wanted = {end: expected.count(end) for end in expected}
        until(lambda: self.executed()["ends"] == wanted)

    def listens(self) -> bool:
        try:
            return self.ask("GET", "/health")[0] == 200
        except ConnectionError:
            return False


@contextmanager
def engine(
    *options: str, program: Path = PROGRAM, wait: bool = True
) -> Iterator[tuple[Client, subprocess.Popen[bytes]]]:
    """An engine that serves the model ``tiny``; *wait* until it is healthy."""
    client = Client(free_port())
    command = [sys.executable, str(program), f"--port={client.port}", "--model=tiny", *options]
    # a group of its own: workers that outlive their engine end with it
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True) as process:
        try:
            if wait:
                until(client.listens)
            yield client, process
        finally:
            with suppress(ProcessLookupError):  # none of them is left
                os.killpg(process.pid, signal.SIGKILL)
