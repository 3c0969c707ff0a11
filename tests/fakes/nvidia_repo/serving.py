"""HTTP for the stand-in repositories, and a proxy through which alone a name of ours is reached."""

from __future__ import annotations

import threading
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

__all__ = ["BEHIND_PROXY", "Server", "serve_files", "serve_proxy"]

BEHIND_PROXY = "repository.invalid"
"""A host that exists for the proxy alone."""


class Server:
    """A running HTTP server; *asked* lists the paths (or URLs, of a proxy) that were asked for."""

    def __init__(self, server: ThreadingHTTPServer, asked: list[str]) -> None:
        self._server = server
        self.asked = asked
        self.port: int = server.server_address[1]
        threading.Thread(target=server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()


class _Files(SimpleHTTPRequestHandler):
    def __init__(self, *args: Any, asked: list[str], **kwargs: Any) -> None:
        self.asked = asked
        super().__init__(*args, **kwargs)

    def do_GET(self) -> None:
        self.asked.append(self.path)
        super().do_GET()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass


class _Proxy(BaseHTTPRequestHandler):
    def __init__(self, *args: Any, asked: list[str], root: Path, **kwargs: Any) -> None:
        self.asked = asked
        self.root = root
        super().__init__(*args, **kwargs)

    def do_GET(self) -> None:
        self.asked.append(self.path)
        url = urlsplit(self.path)
        path = (self.root / url.path.lstrip("/")).resolve()
        if url.hostname != BEHIND_PROXY or self.root not in path.parents or not path.is_file():
            self.send_error(404)
            return
        content = path.read_bytes()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass


def serve_files(root: Path, address: str) -> Server:
    """Serve *root* on a free port of *address*."""
    asked: list[str] = []
    handler = partial(_Files, directory=str(root), asked=asked)
    return Server(ThreadingHTTPServer((address, 0), handler), asked)


def serve_proxy(root: Path, address: str) -> Server:
    """A forward proxy that knows one host, :data:`BEHIND_PROXY`, which has *root*."""
    asked: list[str] = []
    handler = partial(_Proxy, asked=asked, root=root.resolve())
    return Server(ThreadingHTTPServer((address, 0), handler), asked)
