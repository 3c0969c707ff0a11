"""The server over Transformers as a process of its own, in the environment that its lock makes."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import tarfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from farrier.converge.environments import Environment
from farrier.wheelhouse import Wheelhouse, fill
from roles import transformers as role
from tests.agent.host import free_port
from tests.roles.converging import ROOT

__all__ = ["Served", "made_by", "python_of_the_lock", "serving", "started"]

UV = ROOT / ".venv" / "bin" / "uv"
PATIENCE = 900
"""Seconds for a start: importing torch with cold files takes most of them."""


def python_of_the_lock(directory: Path, wanted: Environment | None = None) -> Path:
    """An interpreter with what the lock of *wanted* for Python 3.11 has, as on a host.

    Without *wanted*, with that of the role's lock for CPUs, and the server.
    """
    wanted = wanted or role.transformers_environment("cpu", role.DEFAULTS.data())
    lock = dict(wanted.locks)["3.11"]
    name = f"{wanted.thing}-{wanted.release}-py3.11"
    archive = fill(Wheelhouse(name, lock, "3.11", wanted.sources, wanted.source), say=print)
    wheels, python = directory / "wheels", directory / "env" / "bin" / "python"
    with tarfile.open(archive) as tar:
        tar.extractall(wheels, filter="data")
    offline = ["-q", "--no-config", "--offline", "--no-index", "--python", str(python)]
    of_the_lock = ["--find-links", str(wheels), "--require-hashes", f"{wheels}/requirements.txt"]
    own = [["install", "--no-deps", str(wheel)] for wheel in (wheels / "source").glob("*.whl")]
    for words in (
        ["venv", "-q", "--no-config", "--no-project", "--python", "3.11", str(directory / "env")],
        *(
            ["pip", *way, *offline, "--cache-dir", str(directory / "cache")]
            for way in (["sync", *of_the_lock], *own)
        ),
    ):
        subprocess.run([UV, *words], check=True)
    return python


def made_by(python: Path, script: str, *arguments: str | Path) -> None:
    """Run *script*, which makes a model, with the lock's own torch."""
    words = [str(python), "-c", script, *map(str, arguments)]
    subprocess.run(words, env=_environment(), check=True)


def _environment() -> dict[str, str]:
    # one thread: two of them wait for one another longer than so small a model takes
    return os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": ""}


@dataclass
class Served:
    """A server that runs: *seen* are the statuses of its /health until it served or ended."""

    port: int
    process: subprocess.Popen[str]
    log: Path
    seen: set[int]

    def open(
        self, path: str, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> http.client.HTTPResponse:
        """The head of an answer on a connection of its own; closing it is leaving."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        data = body if body is None or isinstance(body, bytes) else json.dumps(body)
        kind = {"Content-Type": "application/json"} if body is not None else {}
        connection.request(
            "GET" if body is None else "POST", path, data, kind | dict(headers or {})
        )
        return connection.getresponse()

    def ask(self, path: str, body: Any = None) -> tuple[int, Any]:
        """An answer, read to its end."""
        answer = self.open(path, body)
        text = answer.read()
        return answer.status, json.loads(text) if b"{" in text[:1] else text.decode()

    def complete(self, **fields: Any) -> tuple[int, Any]:
        """A plain completion."""
        return self.ask("/v1/completions", {"model": "tiny", "prompt": "hello"} | fields)

    def stream(self, tokens: int) -> http.client.HTTPResponse:
        """A stream of *tokens*, whose first event was read."""
        body = {"model": "tiny", "prompt": "hello", "max_tokens": tokens, "stream": True}
        answer = self.open("/v1/completions", body | {"ignore_eos": True})
        assert answer.status == 200, answer.read()
        assert answer.readline().startswith(b"data: {")
        return answer

    def number(self, name: str, label: str = "") -> float:
        """A sample of its metrics; 0 for what is not there yet."""
        found = re.search(
            rf"^{name}{re.escape(label)} (\S+)$", self.ask("/metrics")[1], re.MULTILINE
        )
        return float(found[1]) if found else 0.0

    def ends(self, number: int | None = None, within: float = 120) -> int:
        """Its exit code, after the signal *number* where one is given."""
        if number is not None:
            self.process.send_signal(number)
        return self.process.wait(timeout=within)

    @property
    def said(self) -> str:
        """What it wrote so far."""
        return self.log.read_text(encoding="utf-8")


def started(python: Path, model: Path, *flags: str, log: Path) -> Served:
    """A server that may still load."""
    port = free_port()
    words = [*("-m", "farrier_transformers", "--model", str(model), "--port", str(port)), *flags]
    with log.open("w") as file:
        process = subprocess.Popen(
            [str(python), *words], env=_environment(), stderr=file, stdout=file, text=True
        )
    return Served(port, process, log, set())


@contextmanager
def serving(
    python: Path, model: Path, *flags: str, log: Path, cpu: bool = True
) -> Iterator[Served]:
    """A server that serves, or ended while it tried."""
    device = ("--device", "cpu") if cpu else ()
    served = started(python, model, *device, *flags, log=log)
    end = time.monotonic() + PATIENCE
    try:
        while served.process.poll() is None and 200 not in served.seen:
            assert time.monotonic() < end, served.said
            with suppress(ConnectionError, http.client.HTTPException):  # it does not listen yet
                served.seen.add(served.ask("/health")[0])
            time.sleep(0.2)  # between two looks: its one interpreter is busy importing
        yield served
    finally:
        served.process.send_signal(signal.SIGKILL)
        served.process.wait()
