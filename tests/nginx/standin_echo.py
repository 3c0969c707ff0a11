"""A stand-in engine that answers what its request asks for, and tells what it got. Not a model.

``X-Answer: 425`` is answered with that status; ``X-Answer: break`` by closing the connection;
``X-Hold: 2`` waits that many seconds first, ``X-Hold-While: /run/held`` while there is that file,
a minute at the most. Anything else gets 200 and, as JSON, the engine's port and the request's
method, path, headers (lower-case names) and the length of its body.
"""

from __future__ import annotations

import json
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class Handler(BaseHTTPRequestHandler):
    """Answers one request."""

    def do_POST(self) -> None:
        """Reads the whole body, then answers."""
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        time.sleep(float(self.headers.get("X-Hold", 0)))
        gives_up = time.monotonic() + 60
        held = Path(self.headers.get("X-Hold-While", "/nowhere"))
        while held.exists() and time.monotonic() < gives_up:
            time.sleep(0.05)
        answer = self.headers.get("X-Answer", "200")
        if answer == "break":
            return
        got = {
            "port": int(sys.argv[1]),
            "method": self.command,
            "path": self.path,
            "headers": {name.lower(): value for name, value in self.headers.items()},
            "body": len(body),
        }
        text = json.dumps(got).encode() if answer == "200" else b"the engine's own words"
        self.send_response(int(answer), "as asked")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_GET = do_POST  # noqa: N815 - http.server's names


class Server(ThreadingHTTPServer):
    """With room for many connections at once."""

    request_queue_size = 512


if __name__ == "__main__":
    Server(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
