#!/usr/bin/env python3
"""``ollama serve | list | pull NAME | create NAME -f FILE | cp FROM TO | --version``."""

from __future__ import annotations

import http.client
import importlib
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
serving = importlib.import_module("engine.serving")
manners = importlib.import_module("engine.manners")
dialects = importlib.import_module("engine.dialects")
work = importlib.import_module("engine.work")

VERSION = "0.33.0-standin"
ADDRESS = os.environ.get("OLLAMA_HOST", "127.0.0.1:11434").rpartition(":")


def tagged(name: str) -> str:
    return name if ":" in name.rpartition("/")[2] else f"{name}:latest"


class Store:
    """Manifests, as Ollama lays them out: manifests/REGISTRY/NAMESPACE/NAME/TAG."""

    def __init__(self) -> None:
        self.root = Path(os.environ["OLLAMA_MODELS"]) / "manifests" / "registry.ollama.ai"

    def path(self, name: str) -> Path:
        model, _, tag = tagged(name).rpartition(":")
        return self.root / (model if "/" in model else f"library/{model}") / tag

    def put(self, name: str, manifest: bytes) -> None:
        path = self.path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(manifest)

    def names(self) -> list[str]:
        found = (path.relative_to(self.root) for path in self.root.rglob("*") if path.is_file())
        named = (f"{path.parent}:{path.name}" for path in found)
        return sorted(name.removeprefix("library/") for name in named)


class Handler(serving.Handler):  # type: ignore[misc, name-defined]
    """The engine's, with Ollama's management of models."""

    def do_GET(self) -> None:  # noqa: N802 - the base's name
        names = Store().names()
        if self.path == "/api/tags":
            self._send_json(200, {"models": [{"name": name} for name in names]})
        elif self.path == "/v1/models":
            self._send_json(200, {"object": "list", "data": [{"id": name} for name in names]})
        elif self.path == "/api/version":
            self._send_json(200, {"version": VERSION})
        elif self.path.startswith("/debug/pprof/"):
            self._send(200, b"what Go's own page tells of the program")
        else:
            super().do_GET()

    def do_POST(self) -> None:  # noqa: N802 - the base's name
        if not self.path.startswith("/api/"):
            super().do_POST()
            return
        request: Any = self._read_json()
        why = self._managed(request)
        self._send_json(404 if why else 200, {"error": why} if why else {"status": "success"})

    def _complete(self, request: object) -> None:
        """One of its store's models, which is loaded when it is asked for it."""
        name = str(request.get("model")) if isinstance(request, dict) else ""
        if tagged(name) in Store().names():
            self.server.names, self.server.model = (name,), name
        super()._complete(request)

    def _managed(self, request: dict[str, str]) -> str | None:
        """Why the store could not be changed, or None."""
        store = Store()
        if self.path == "/api/pull":
            found = Path(os.environ["FAKE_OLLAMA_LIBRARY"]) / tagged(request["model"])
            if not found.is_file():
                return "pull model manifest: file does not exist"
            store.put(request["model"], found.read_bytes())
        elif self.path == "/api/create":
            file = Path(request["from"])
            if file.read_bytes()[:4] != b"GGUF":
                return "unknown type"
            store.put(request["model"], json.dumps(request).encode())
        elif self.path == "/api/copy":
            store.put(request["destination"], store.path(request["source"]).read_bytes())
        return None


def serve() -> int:
    """Until SIGTERM, which cuts what runs."""
    on_gpus = float(os.environ.get("FAKE_OLLAMA_ON_GPUS", "1"))
    delay = float(os.environ.get("STANDIN_TOKEN_DELAY", "0"))
    account = os.environ.get("STANDIN_ACCOUNT")
    engine = serving.Engine(
        (ADDRESS[0], int(ADDRESS[2])),
        "none",
        manners.Conduct(manners.Manners(token_delay=delay, on_gpus=on_gpus)),
        work.Work(0, Path(account) if account else None),
        start_delay=0.0,
        unhealthy_while=None,
        dialect=dialects.DIALECTS["ollama"],
    )
    engine.RequestHandlerClass = Handler
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    engine.serve_forever(0.05)
    return 0


def ask(method: str, path: str, body: object = None) -> Any:
    """What the server says; ends the program where there is none, or where it refuses."""
    connection = http.client.HTTPConnection(ADDRESS[0], int(ADDRESS[2]), timeout=20)
    try:
        connection.request(method, path, json.dumps(body) if body else None)
        answer = connection.getresponse()
    except OSError:
        raise SystemExit("Error: could not connect to ollama server, run 'ollama serve'") from None
    said = json.loads(answer.read())
    if answer.status != 200:
        raise SystemExit(f"Error: {said['error']}")
    return said


def main(argv: list[str]) -> int:
    """One of Ollama's commands."""
    match argv:
        case ["serve"]:
            return serve()
        case ["--version"]:
            print(f"ollama version is {VERSION}")
        case ["list"]:
            print(*(one["name"] for one in ask("GET", "/api/tags")["models"]), sep="\n")
        case ["pull", name]:
            ask("POST", "/api/pull", {"model": name})
        case ["create", name, "-f", file]:
            source = Path(file).read_text(encoding="utf-8").removeprefix("FROM ").strip()
            ask("POST", "/api/create", {"model": name, "from": source})
        case ["cp", source, destination]:
            ask("POST", "/api/copy", {"source": source, "destination": destination})
        case _:
            raise SystemExit(f"Error: unknown command {argv}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
