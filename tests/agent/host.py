"""One host in a directory: the agent, how it is asked, and what it answers."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from farrier_agent import status
from farrier_agent.config import AgentConfig, Replica, dumps
from farrier_agent.control import client
from farrier_agent.control.protocol import Final, Request
from farrier_agent.draining.record import Record

from tests.agent.asking import Asking
from tests.agent.exposition import Samples, samples
from tests.agent.nginx import USER
from tests.agent.surroundings import (
    FAKES,
    UUIDS,
    Surroundings,
    engine,
    free_port,
    pci_address,
    unit_properties,
)

__all__ = [
    "FAKES",
    "TICK",
    "UUIDS",
    "Host",
    "engine",
    "free_port",
    "pci_address",
    "replica",
    "samples",
    "unit_properties",
    "until",
]

T = TypeVar("T")

TICK = 0.5
PATIENCE = 60.0
PROMPT = 10.0
"""Seconds for what is promised at once (SIGTERM: within 2 s), where other tests run too."""


def until(question: Callable[[], T], seconds: float = PATIENCE) -> T:
    """The first answer to *question* that is true. Fails with the last one after *seconds*."""
    end = time.monotonic() + seconds
    while True:
        answer: T | None
        try:
            answer = question()
        except OSError:
            answer = None
        if answer:
            return answer
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds:g} s, last answer: {answer!r}")
        time.sleep(0.03)


class Host(Surroundings):
    """The agent and all that is around it."""

    def __init__(self, root: Path, nvml_library: Path) -> None:
        super().__init__(root)
        self.log_path = root / "agent.log"
        self._nvml_library = nvml_library
        self.port = free_port()
        self.check_port = free_port()
        self.agent: subprocess.Popen[bytes] | None = None

    # -- the agent -------------------------------------------------------------------------

    def configure(self, *replicas: Replica, accelerator: str = "cpu", **fields: Any) -> AgentConfig:
        defaults: dict[str, Any] = {
            "tick": TICK,
            "settle_seconds": 0.0,
            "warm_up_seconds": 30.0,
            "check_listen": f"127.0.0.1:{self.check_port}",
            "sys_root": str(self.sys),
            "nvml_library": str(self._nvml_library) if accelerator == "cuda" else None,
        }
        config = AgentConfig(
            host="gpu01",
            accelerator=accelerator,  # type: ignore[arg-type]
            listen=f"127.0.0.1:{self.port}",
            gate_dir=str(self.gates),
            started_dir=str(self.started),
            records_dir=str(self.records),
            evidence_dir=str(self.evidence),
            run_dir=str(self.run_dir),
            state_dir=str(self.root / "state"),
            rollout_dir=str(self.rollout),
            kmsg=str(self.kmsg),
            bus=str(self.systemd.bus),
            nginx_user=USER,
            replicas=list(replicas),
            **(defaults | fields),
        )
        self.config_path.write_text(dumps(config))
        return config

    def environment(self, **more: str) -> dict[str, str]:
        if "PYTHONPATH" in more and "PYTHONPATH" in os.environ:
            more["PYTHONPATH"] += os.pathsep + os.environ["PYTHONPATH"]
        return {
            **{key: value for key, value in os.environ.items() if key != "NOTIFY_SOCKET"},
            "PATH": f"{self.root / 'bin'}:{os.environ['PATH']}",
            "FAKE_NVML_STATE": str(self.nvml_state),
            **more,
        }

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run ``farrier-agent`` to its end."""
        command = [sys.executable, "-m", "farrier_agent.cli", *arguments]
        return subprocess.run(
            command, env=self.environment(), capture_output=True, text=True, check=False, timeout=60
        )

    def verb(self, verb: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a verb of ``farrier-agent`` that speaks with this agent, to its end."""
        return self.command(verb, f"--socket={self.control_path}", *arguments)

    def begin(self, verb: str, *arguments: str) -> subprocess.Popen[str]:
        """The same, without waiting for its end."""
        command = [sys.executable, "-m", "farrier_agent.cli", verb, *arguments]
        process = subprocess.Popen(
            [*command, f"--socket={self.control_path}"],
            env=self.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._processes.append(process)
        return process

    def ask(self, request: Request) -> Final:
        """Ask this agent over its control socket, as its command line does."""
        return client.ask(request, path=self.control_path, answer_within=10)

    def asking(self, request: Request) -> Asking:
        """The same in the background."""
        return Asking(self.control_path, request)

    def start(self, **more: str) -> subprocess.Popen[bytes]:
        """Start the agent and wait until it serves."""
        agent = self.start_anyhow(**more)
        until(lambda: self.get("/livez")[0] == 200)
        return agent

    def start_anyhow(self, **more: str) -> subprocess.Popen[bytes]:
        """Start the agent and wait until it is there for whoever may ask."""
        command = [sys.executable, "-m", "farrier_agent.cli", "run", f"--config={self.config_path}"]
        with self.log_path.open("ab") as log:
            self.agent = subprocess.Popen(command, env=self.environment(**more), stderr=log)
        self._processes.append(self.agent)
        until(lambda: self.get("/livez")[0])
        return self.agent

    def stop(self, number: int = signal.SIGTERM) -> float:
        """Send a signal to the agent and return the seconds until it ended."""
        assert self.agent is not None
        begun = time.monotonic()
        self.agent.send_signal(number)
        self.agent.wait(timeout=PATIENCE)
        return time.monotonic() - begun

    def log(self) -> str:
        return self.log_path.read_text()

    # -- what it answers -------------------------------------------------------------------

    def get(self, path: str, method: str = "GET") -> tuple[int, bytes, Mapping[str, str]]:
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", method=method)
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:
                return answer.status, answer.read(), answer.headers
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read(), error.headers  # type: ignore[return-value]

    def snapshot(self) -> status.Status:
        return status.loads(self.get("/status")[1])

    def replica(self, name: str = "tiny") -> status.Replica:
        return next(one for one in self.snapshot().replicas if one.name == name)

    def phase(self, name: str = "tiny") -> str | None:
        return self.replica(name).phase

    def record(self, name: str = "tiny") -> Record:
        """The record of the replica, as it is on the disk."""
        return msgspec.json.decode((self.records / f"{name}.json").read_bytes(), type=Record)

    def gate(self, name: str = "tiny") -> bool:
        return (self.gates / name).exists()

    def check(self, name: str = "tiny") -> str:
        """What a gateway is answered that asks for the replica."""
        with socket.create_connection(("127.0.0.1", self.check_port), timeout=5) as one:
            one.sendall(f"{name}\n".encode())
            with one.makefile() as answer:
                return answer.read()

    def reasons(self) -> list[str]:
        reasons: list[str] = json.loads(self.get("/readyz")[1])["reasons"]
        return reasons

    def samples(self) -> Samples:
        return samples(self.get("/metrics")[1].decode())

    def value(self, name: str, **labels: str) -> float | None:
        return self.samples().get((name, tuple(sorted(labels.items()))))

    def turns(self, count: int = 3) -> None:
        """Wait until the agent has published what it sees *count* more times, a tick apart."""
        at = self.snapshot().at
        until(lambda: self.snapshot().at >= at + count * TICK)


def replica(name: str = "tiny", port: int | None = None, **fields: Any) -> Replica:
    values = {"model": name, "engine": "vllm", "unit": f"engine-{name}.service"}
    return Replica(name=name, port=port or free_port(), config_hash="a" * 64, **(values | fields))
