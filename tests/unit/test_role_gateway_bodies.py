"""Bodies: how large, by which protocol: the gateway in a real HAProxy."""

from __future__ import annotations

import json
import socket
import subprocess
import threading
from contextlib import suppress

import pytest

from tests.agent.host import until
from tests.unit.gateway_hosts import Gateway, Host, key
from tests.unit.gateway_running import LIMIT, hosts, running

__all__ = ["hosts", "running"]


def sized(size: int) -> bytes:
    """A body of *size* bytes with the model at its end."""
    frame = b'{"prompt":"","model":"tiny"}'
    return frame.replace(b'""', b'"' + b"x" * (size - len(frame)) + b'"')


def curl(port: int, body: bytes, *options: str, check: bool = True) -> tuple[int, str]:
    """Status and code of a POST by curl, which speaks HTTP/2 as well; 0 where it saw no answer."""
    done = subprocess.run(
        [
            *("curl", "-sS", "--max-time", "20", "-w", "\n%{http_code}", "--data-binary", "@-"),
            *("-H", f"Authorization: Bearer {key('alice').key}", *options),
            f"http://127.0.0.1:{port}/v1/chat/completions",
        ],
        input=body,
        capture_output=True,
        check=check,
    )
    answer, _, status = done.stdout.decode().rpartition("\n")
    return int(status), json.loads(answer or "{}").get("error", {}).get("code", "")


class Tap:
    """A way to the gateway on which what it answers is kept, byte by byte.

    HAProxy ends an HTTP/2 request that it refused early with RST_STREAM after the whole answer.
    curl 7.88 takes the reset for the answer, so here the answer itself is looked at.
    """

    def __init__(self, port: int) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._to = port
        self.heard = b""
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        client, _ = self._listener.accept()
        gateway = socket.create_connection(("127.0.0.1", self._to))
        threading.Thread(target=self._send, args=(client, gateway), daemon=True).start()
        with suppress(OSError):
            while heard := gateway.recv(65536):
                self.heard += heard
                client.sendall(heard)

    @staticmethod
    def _send(client: socket.socket, gateway: socket.socket) -> None:
        with suppress(OSError):
            while said := client.recv(65536):
                gateway.sendall(said)

    def frames(self) -> list[tuple[int, int, bytes]]:
        """The frames of HTTP/2 (RFC 9113, 4.1): type, flags, payload."""
        found, rest = [], self.heard
        while len(rest) >= 9:
            end = 9 + int.from_bytes(rest[:3], "big")
            found.append((rest[3], rest[4], rest[9:end]))
            rest = rest[end:]
        return found

    def close(self) -> None:
        self._listener.close()


@pytest.mark.parametrize(
    "options",
    [("--http1.1",), ("--http1.1", "-H", "Transfer-Encoding: chunked")],
    ids=["h1", "h1-chunked"],
)
def test_a_body_over_the_limit_is_413_and_one_at_it_is_served(
    running: Gateway, hosts: list[Host], options: tuple[str, ...]
) -> None:
    assert curl(running.port, sized(LIMIT), *options) == (200, "")
    for size in (LIMIT + 1, 2 * LIMIT, 20 * LIMIT):
        assert curl(running.port, sized(size), *options) == (413, "request_too_large"), size
    assert [request.body for host in hosts for request in host.seen] == [sized(LIMIT)]


@pytest.mark.parametrize("options", [(), ("-H", "Content-Length:")], ids=["h2", "h2-no-length"])
def test_it_is_the_same_with_http_2(
    running: Gateway, hosts: list[Host], options: tuple[str, ...]
) -> None:
    http_2 = ("--http2-prior-knowledge", *options)
    assert curl(running.port, sized(LIMIT), *http_2) == (200, "")
    for size in (LIMIT + 1, 2 * LIMIT, 20 * LIMIT):
        tap = Tap(running.port)
        status, code = curl(tap.port, sized(size), *http_2, check=False)
        assert (status, code) in {(413, "request_too_large"), (0, "")}
        until(lambda: b"request_too_large" in tap.heard)  # noqa: B023
        kinds = [
            (kind, payload) for kind, flags, payload in tap.frames() if kind == 0 and flags & 1
        ]
        tap.close()
        assert len(kinds) == 1, "one DATA frame with END_STREAM"
        assert json.loads(kinds[0][1])["error"]["code"] == "request_too_large"
    assert [request.body for host in hosts for request in host.seen] == [sized(LIMIT)]


def test_tiny_chunks_are_measured_by_what_they_hold(running: Gateway, hosts: list[Host]) -> None:
    def chunks(body: bytes) -> bytes:
        connection = socket.create_connection(("127.0.0.1", running.port), timeout=20)
        with connection:
            connection.sendall(
                b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n"
                b"Transfer-Encoding: chunked\r\nAuthorization: Bearer "
                + str(key("alice").key).encode()
                + b"\r\n\r\n"
            )
            pieces = b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n"
            connection.sendall(pieces)
            return connection.recv(200)

    assert chunks(sized(LIMIT)).startswith(b"HTTP/1.1 200 ")
    assert [request.body for host in hosts for request in host.seen] == [sized(LIMIT)]
    assert chunks(sized(LIMIT + 1)).startswith(b"HTTP/1.1 413 ")


def test_a_larger_body_goes_through_with_its_model_in_the_header(
    running: Gateway, hosts: list[Host]
) -> None:
    body = sized(40 * LIMIT)
    assert running.ask(body=body, X_Model="tiny").status == 200
    assert [request.body for host in hosts for request in host.seen] == [body]
