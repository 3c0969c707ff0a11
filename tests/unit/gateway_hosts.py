"""Stand-ins for hosts behind a gateway, and a real HAProxy before them, all on loopback.

A host is what a gateway sees of one: nginx's port (``/farrier-alive`` and the requests that it
takes, each of which is kept with its headers and its body) and the agent's check port.
"""

from __future__ import annotations

import http.client
import json
import shutil
import signal
import socket
import socketserver
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Protocol

from farrier.converge.templates import render
from farrier.spec import AgentSettings, ApiKey, HostSpec, Model
from roles.gateway import DEFAULTS, configuration
from roles.gateway.configuration import SHARES, Bounds, Places, bounds, config_text, maps
from roles.gateway.routes import routes
from tests.agent.host import free_port, until
from tests.proxies import started
from tests.tools import proxy

TEMPLATES = Path(configuration.__file__).parent / "templates"

__all__ = ["Gateway", "Host", "Known", "Request", "gateway", "key"]


class Known(Protocol):
    """A host as the inventory has it."""

    @property
    def spec(self) -> HostSpec:
        """Its name, its address, its ports, its models."""


@dataclass(frozen=True)
class Request:
    """A request that reached a host."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass
class Host:
    """A stand-in for one host. What it does can be changed while it runs.

    Each of its *models* has these LoRA *adapters*.
    *gate* is what a request gets: ``open``, a status as ``425``, or ``close`` (after it was read,
    without an answer). *takes* is what its agent says of its replicas; None: it hangs. *hold* is
    what every answer waits for.
    """

    name: str
    models: Mapping[str, str] = field(default_factory=lambda: {"tiny": "tiny"})
    adapters: tuple[str, ...] = ()
    gate: str = "open"
    takes: bool | None = True
    alive: bool = True
    port: int = 0
    check_port: int = 0
    seen: list[Request] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    hold: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.hold.set()
        host = self

        class Nginx(_Nginx):
            standin = host

        class Agent(_Agent):
            standin = host

        self._nginx = _Web(("127.0.0.1", self.port), Nginx)
        self._agent = _Checks(("127.0.0.1", self.check_port), Agent)
        self.port = self._nginx.server_address[1]
        self.check_port = self._agent.server_address[1]
        for server in (self._nginx, self._agent):
            threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def spec(self) -> HostSpec:
        """The host as the inventory has it."""
        return HostSpec(
            self.name,
            groups=("gpu",),
            address="127.0.0.1",
            nginx_port=self.port,
            agent=AgentSettings(check_port=self.check_port),
            models=tuple(
                Model(
                    model,
                    replica=replica,
                    source="path:/srv/models/x",
                    lora=dict.fromkeys(self.adapters, "path:/srv/adapters/x"),
                )
                for replica, model in self.models.items()
            ),
        )

    def refuse(self) -> None:
        """Take no connection any more on nginx's port."""
        self._nginx.shutdown()
        self._nginx.server_close()

    def end(self) -> None:
        """Free both ports."""
        self.hold.set()
        for server in (self._nginx, self._agent):
            server.shutdown()
            server.server_close()


class _Web(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def handle_error(self, request: object, client_address: object) -> None:
        """A gateway that goes away is no news."""


class _Checks(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 256


class _Agent(socketserver.StreamRequestHandler):
    standin: Host

    def handle(self) -> None:
        question = self.rfile.readline(80).decode()
        self.standin.asked.append(question)
        while self.standin.takes is None:
            time.sleep(0.05)
        self.wfile.write(b"up ready 100%\n" if self.standin.takes else b"up drain\n")


class _Nginx(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    standin: Host

    def do_GET(self) -> None:
        if self.path == "/farrier-alive":
            self._send(200 if self.standin.alive else 500, b"")
        else:
            self.do_POST()

    def do_POST(self) -> None:
        gate = self.standin.gate
        if gate not in {"open", "close"}:
            self.close_connection = True
            self._send(int(gate), b'{"error":{"message":"the gate"}}')
            return
        body = self._body()
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.standin.seen.append(Request(self.command, self.path, headers, body))
        if gate == "close":
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        if headers.get("x-test-stream"):
            self._stream()
            return
        self.standin.hold.wait(30)
        answer = {"from": self.standin.name, "usage": {"prompt_tokens": 7, "completion_tokens": 3}}
        self._send(200, json.dumps(answer).encode())

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b""
        while size := int(self.rfile.readline(32).split(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline(8)
        self.rfile.readline(8)
        return body

    def _stream(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.write(b"d\r\ndata: first\n\n\r\n")
        self.standin.hold.wait(30)
        self.wfile.write(b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")

    def _send(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        """Say nothing."""


@dataclass(frozen=True)
class Answer:
    """An answer, read to its end. *headers* have lower-case names."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """The body, parsed."""
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """The code of an error in OpenAI's shape, which it has to have in full."""
        error = self.json()["error"]
        assert error.keys() == {"message", "type", "param", "code"}
        code: str = error["code"]
        return code


@dataclass
class Gateway:
    """A running HAProxy: its ports, its directory, and what it wrote."""

    directory: Path
    port: int
    tls_port: int
    metrics_port: int
    process: subprocess.Popen[bytes]
    places: Places

    def command(self, *words: str) -> str:
        """What HAProxy's administration socket answers."""
        with socket.socket(socket.AF_UNIX) as asking:
            asking.settimeout(10)
            asking.connect(self.places.admin)
            asking.sendall((" ".join(words) + "\n").encode())
            answer = b""
            while part := asking.recv(65536):
                answer += part
        return answer.decode().strip()

    def servers(self, field: str = "status") -> dict[tuple[str, str], str]:
        """A field of each server by backend and name: ``UP``, ``DRAIN (agent)``."""
        lines = [line.split(",") for line in self.command("show stat").splitlines()]
        names = lines[0]
        rows = [dict(zip(names, line, strict=False)) for line in lines[1:]]
        return {
            (row["# pxname"], row["svname"]): row[field]
            for row in rows
            if row["svname"] not in {"FRONTEND", "BACKEND"}
        }

    def share(self, server: str, percent: int) -> None:
        """Give *server* that share, by the role's program."""
        argv = ["sh", str(self.directory / "share"), server, str(percent)]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    def reload(self) -> None:
        """Hand the servers' states to a new worker, as the role's program does."""
        before = self._worker()
        kept = self.directory / "states"
        kept.write_text(self.command("show servers state") + "\n\n")
        argv = ["awk", "-f", str(TEMPLATES / "states.awk"), str(self.config), str(kept)]
        fit = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
        Path(self.places.state).write_text(fit)
        # A master that has just started has no ear for it yet.
        for _ in range(5):
            self.process.send_signal(signal.SIGUSR2)
            with suppress(AssertionError):
                until(lambda: self._worker() not in {"", before}, 3)
                return
        raise AssertionError(f"no new worker: {(self.directory / 'log').read_text()[-2000:]}")

    def _worker(self) -> str:
        try:
            lines = self.command("show info").splitlines()
        except OSError:
            return ""
        return "".join(line for line in lines if line.startswith("Pid:"))

    @property
    def config(self) -> Path:
        """Its configuration; a reload takes what is there."""
        return self.directory / "haproxy.cfg"

    def settled(self) -> None:
        """Wait until every server's agent was asked once."""
        until(lambda: set(self.servers("agent_status").values()) == {"L7OK"})

    def ask(
        self,
        path: str = "/v1/chat/completions",
        body: Any = None,
        *,
        by: str | None = "alice",
        **headers: str,
    ) -> Answer:
        """One request on a connection of its own; *by* is the name of a key."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if by is not None:
            sent.setdefault("Authorization", f"Bearer {key(by).key}")
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request("GET" if body is None else "POST", path, data, sent)
            answer = connection.getresponse()
            names = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(answer.status, names, answer.read())
        finally:
            connection.close()

    def stream(self, *, by: str = "alice") -> http.client.HTTPResponse:
        """A stream, of which the first event was read."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        headers = {"Authorization": f"Bearer {key(by).key}", "X-Test-Stream": "yes"}
        connection.request("POST", "/v1/chat/completions", b'{"model":"tiny"}', headers)
        answer = connection.getresponse()
        if answer.status == 200:
            assert answer.readline() == b"data: first\n"
        return answer

    def log(self) -> list[dict[str, Any]]:
        """Its access log so far."""
        lines = (self.directory / "log").read_text().splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]


def key(name: str, **limits: Any) -> ApiKey:
    """The key of *name*: the name, again and again."""
    return ApiKey.of(name, (name * 24)[:24], **limits)


@contextmanager
def gateway(
    directory: Path,
    hosts: Iterable[Known],
    keys: Iterable[ApiKey] = (),
    *,
    open_access: bool = False,
    limits: Callable[[Bounds], Bounds] = lambda it: it,
    certificate: str = "",
    **data: Any,
) -> Iterator[Gateway]:
    """A real HAProxy before *hosts*, as the role would configure it with *data*."""
    specs = [host.spec for host in hosts]
    settings = DEFAULTS.data() | {
        "gateway_port": free_port(),
        "gateway_tls_port": free_port(),
        "gateway_addresses": ["127.0.0.1"],
        "gateway_metrics_port": free_port(),
        "gateway_metrics_address": "127.0.0.1",
        "gateway_agent_milliseconds": 100,
        "gateway_tls_certificate": certificate,
        **data,
    }
    places = Places(
        maps=str(directory),
        admin=str(directory / "admin.sock"),
        state=str(directory / "state"),
        certificate=certificate,
        user=None,
    )
    found = routes(specs, settings["gateway_weights"])
    for name, text in maps(found, {one.name: one for one in keys}).items():
        (directory / name).write_text(text)
    shutil.copy(TEMPLATES / "usage.lua", directory)
    for name in SHARES:
        (directory / name).touch()
    (directory / "share").write_text(render(TEMPLATES / "share.sh.j2", places=places))
    room = limits(replace(bounds(settings, 4096, 2, shared=False), connections=4000, threads=2))
    path = directory / "haproxy.cfg"
    path.write_text(config_text(found, settings, room, open_access=open_access, places=places))
    program, environment = proxy("haproxy")
    with (
        (directory / "log").open("wb") as log,
        started([program, "-W", "-f", str(path)], environment, log) as process,
    ):
        until(lambda: process.poll() is not None or Path(places.admin).exists())
        assert process.poll() is None, (directory / "log").read_text()
        yield Gateway(
            directory,
            settings["gateway_port"],
            settings["gateway_tls_port"],
            settings["gateway_metrics_port"],
            process,
            places,
        )
