"""The registry: what it has, by digest, over plain HTTP."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

from tests.fakes.registry.image import Image

__all__ = ["Registry"]


class Registry:
    """A registry at *address*, a free port, while its block runs. *closed*: it wants a login."""

    def __init__(self, address: str, images: Sequence[Image]) -> None:
        self.blobs = {
            f"sha256:{hashlib.sha256(content).hexdigest()}": content
            for image in images
            for content in (image.config, image.layer, image.manifest)
        }
        self.closed = False
        registry = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                status, kind, body = registry.answer(self.path)
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                if status == 401:
                    self.send_header("WWW-Authenticate", 'Basic realm="the test\'s"')
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(body)

            do_HEAD = do_GET  # noqa: N815

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
                pass

        self.server = ThreadingHTTPServer((address, 0), Handler)
        self.server.daemon_threads = True
        self.name = f"{address}:{self.server.server_port}"

    def answer(self, path: str) -> tuple[int, str, bytes]:
        """Status, content type and body."""
        if self.closed:
            return 401, "application/json", _errors("UNAUTHORIZED", "authentication required")
        if path.rstrip("/") == "/v2":
            return 200, "application/json", b"{}"
        content = self.blobs.get(path.rpartition("/")[2])
        if content is None:
            code = "MANIFEST_UNKNOWN" if "/manifests/" in path else "BLOB_UNKNOWN"
            return 404, "application/json", _errors(code, code.lower().replace("_", " "))
        if "/manifests/" in path:
            return 200, str(json.loads(content)["mediaType"]), content
        return 200, "application/octet-stream", content

    def __enter__(self) -> Registry:
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.server.shutdown()
        self.server.server_close()


def _errors(code: str, message: str) -> bytes:
    return json.dumps({"errors": [{"code": code, "message": message}]}).encode()
