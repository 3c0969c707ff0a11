#!/usr/bin/env python3
"""A stand-in for the metadata services of AWS (IMDSv2), GCP and Azure, all on one port.

It is as strict as they are about headers, verbs and tokens. What it announces is its state, a JSON
object that ``GET /state`` shows and ``POST /state`` changes field by field:

- ``spot``, ``rebalance``: AWS's objects, null for none; ``scheduled``: AWS's list of events;
- ``preempted`` (true or false) and ``maintenance`` (a text): GCP;
- ``name`` and ``events``: Azure's name of this machine, and its list;
- ``broken``: a status that every path answers, ``"silent"`` for no answer at all, ``"garbage"``
  for a 200 with bytes that mean nothing; null for none;
- ``tokens``: how many tokens were given (AWS); set to 0, all of them are forgotten.

Standard library only; one file, to be copied to a host as it is.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

AWS, GCP, AZURE = "/latest/", "/computeMetadata/v1/instance/", "/metadata/"
GARBAGE = b"\x00\xff<html>[["


class Service(ThreadingHTTPServer):
    """The service and what it announces."""

    daemon_threads = True

    def __init__(self, address: tuple[str, int]) -> None:
        super().__init__(address, Handler)
        self.ended = threading.Event()
        self.state: dict[str, Any] = {
            "spot": None,
            "rebalance": None,
            "scheduled": [],
            "preempted": False,
            "maintenance": "NONE",
            "name": "gpu01",
            "events": [],
            "broken": None,
            "tokens": 0,
        }

    def server_bind(self) -> None:
        """Bind without the base's reverse look-up of the address, which can take seconds."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    server: Service

    def do_GET(self) -> None:
        if self.path == "/state":
            return self._json(self.server.state)
        if self._broken():
            return None
        if self.path.startswith(AWS):
            return self._aws(self.path.removeprefix(AWS))
        if self.path.startswith(GCP):
            return self._gcp(self.path.removeprefix(GCP))
        if self.path.startswith(AZURE):
            return self._azure(urlsplit(self.path.removeprefix(AZURE)))
        return self._send(404)

    def do_PUT(self) -> None:
        if self._broken():
            return None
        seconds = self.headers.get("X-aws-ec2-metadata-token-ttl-seconds", "")
        if self.path != AWS + "api/token" or not seconds.isdigit():
            return self._send(400)
        # a proxy on the way is no owner of the machine (IMDSv2)
        if self.headers.get("X-Forwarded-For") or not 1 <= int(seconds) <= 21600:
            return self._send(403)
        self.server.state["tokens"] += 1
        return self._send(200, f"token-{self.server.state['tokens']}".encode())

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        changes = json.loads(body)
        if self.path != "/state" or not set(changes) <= set(self.server.state):
            return self._send(400)
        self.server.state.update(changes)
        return self._json(self.server.state)

    def _broken(self) -> bool:
        broken = self.server.state["broken"]
        if broken == "silent":
            self.server.ended.wait(60)
            self.close_connection = True
        elif broken == "garbage":
            self._send(200, GARBAGE)
        elif broken:
            self._send(int(broken))
        return bool(broken)

    def _aws(self, path: str) -> None:
        token = self.headers.get("X-aws-ec2-metadata-token")
        if token not in {f"token-{n + 1}" for n in range(self.server.state["tokens"])}:
            return self._send(401)
        item = {
            "meta-data/spot/instance-action": "spot",
            "meta-data/events/maintenance/scheduled": "scheduled",
            "meta-data/events/recommendations/rebalance": "rebalance",
        }.get(path)
        value = self.server.state[item] if item else None
        return self._send(404) if value is None else self._json(value)

    def _gcp(self, path: str) -> None:
        if self.headers.get("Metadata-Flavor") != "Google":
            return self._send(403)
        if path == "preempted":
            return self._send(200, b"TRUE" if self.server.state["preempted"] else b"FALSE")
        if path == "maintenance-event":
            return self._send(200, self.server.state["maintenance"].encode())
        return self._send(404)

    def _azure(self, url: Any) -> None:
        if self.headers.get("Metadata") != "true" or "api-version" not in parse_qs(url.query):
            return self._send(400)
        if url.path == "instance/compute/name":
            return self._send(200, self.server.state["name"].encode())
        if url.path == "scheduledevents":
            events = self.server.state["events"]
            return self._json({"DocumentIncarnation": len(events), "Events": events})
        return self._send(404)

    def _json(self, value: object) -> None:
        self._send(200, json.dumps(value).encode(), "application/json")

    def _send(self, status: int, body: bytes = b"", kind: str = "text/plain") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        if status == 200 and self.path.startswith(GCP):
            self.send_header("Metadata-Flavor", "Google")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        """Say nothing per request."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="metadata.py", description="Clouds' metadata, faked.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    options = parser.parse_args()
    service = Service((options.host, options.port))
    print(f"metadata: serving on {options.host}:{options.port}", file=sys.stderr)
    service.serve_forever(poll_interval=0.1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
