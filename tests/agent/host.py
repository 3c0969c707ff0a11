"""One host as the agent sees it, in a directory: NVML, systemd, nginx, engines, the agent."""

from __future__ import annotations

import json
import os
import shutil
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
from tests.agent.nginx import USER, Nginx
from tests.fakes.systemd1.control import Systemd

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

FAKES = Path(__file__).parent.parent / "fakes"
TICK = 0.5
PATIENCE = 60.0
PROMPT = 10.0
"""Seconds for what is promised at once (SIGTERM: within 2 s), where other tests run too."""
UUIDS = [f"GPU-fa4e0000-0000-4000-8000-{index:012x}" for index in range(8)]


def pci_address(index: int) -> str:
    """Where the fake NVML has GPU *index*, as sysfs names it."""
    return f"0000:{0x18 + 8 * index:02x}:00.0"


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


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


class Host:
    """Everything under *root*; ``with`` ends every process that was started."""

    def __init__(self, root: Path, nvml_library: Path) -> None:
        self.root = root
        self.nvml_state = root / "nvml.state"
        self.gates = root / "open"
        self.started = root / "started"
        self.records = root / "replicas"
        self.evidence = root / "evidence"
        self.run_dir = root / "agent"
        self.kmsg = root / "kmsg"
        self.sys = root / "sys"
        self.control_path = self.run_dir / "control.sock"
        self.config_path = root / "agent.toml"
        self.log_path = root / "agent.log"
        self.systemd = Systemd(root)
        self.nginx = Nginx()
        self._nvml_library = nvml_library
        self._processes: list[subprocess.Popen[Any]] = []
        self.port = free_port()
        self.check_port = free_port()
        self.agent: subprocess.Popen[bytes] | None = None
        for directory in (self.gates, self.started, self.evidence, self.run_dir, root / "bin"):
            directory.mkdir()
        (root / "state").mkdir()
        self.kmsg.touch()
        self.nvml("count 2")
        self.bus(0, 1)

    def __enter__(self) -> Host:
        self.systemd.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.nginx.close()
        for process in self._processes:
            process.kill()
            process.wait()
        self.systemd.stop()

    # -- what is around the agent ----------------------------------------------------------

    def nvml(self, text: str) -> None:
        """Replace the state of the fake NVML."""
        fresh = self.root / "nvml.new"
        fresh.write_text(text + "\n")
        fresh.replace(self.nvml_state)

    def bus(self, *gpus: int) -> None:
        """Have the PCI bus know the GPUs of these indices."""
        shutil.rmtree(self.sys, ignore_errors=True)
        for index in gpus:
            function = self.sys / f"bus/pci/devices/{pci_address(index)}"
            function.mkdir(parents=True)
            for name, value in {
                "vendor": "0x10de",
                "device": "0x2330",
                "class": "0x030200",
            }.items():
                (function / name).write_text(f"{value}\n")

    def unit(self, name: str, run: int, active: str = "active", sub: str = "running") -> None:
        """Have systemd say that the unit is so, in its run number *run*."""
        self.systemd.unit(name, **unit_properties(run, active, sub))

    def engine(self, port: int, model: str, *more: str) -> subprocess.Popen[bytes]:
        """Start an engine that is no unit's."""
        process = subprocess.Popen(engine(port, model, *more), stderr=subprocess.DEVNULL)
        self._processes.append(process)
        return process

    def engine_unit(self, one: Replica, *more: str, **programs: Any) -> None:
        """Have systemd know the unit of *one* as the role writes it, without a way to drain."""
        gate = ["rm", "-f", str(self.gates / one.name)]
        keys = {"exec": engine(one.port, one.model, *more), "start_pre": [gate]}
        self.systemd.programs(one.unit, **(keys | {"stop_post": [gate]} | programs))

    def stop_program(self, one: Replica, *more: str) -> list[str]:
        """The program of the unit's ``ExecStop=``."""
        return [
            *(sys.executable, "-m", "farrier_agent.draining.stop", one.name),
            *(f"--port={one.port}", f"--nginx-user={USER}", f"--socket={self.control_path}"),
            *(f"--gate-dir={self.gates}", f"--state-dir={self.records}", *more),
        ]

    def evidence_unit(self, one: Replica) -> None:
        """Have systemd know the unit that keeps evidence about *one*."""
        why = self.run_dir / f"evidence-{one.name}"
        command = [sys.executable, "-m", "farrier_agent.evidence", one.name]
        command += [f"--why-file={why}", f"--config={self.config_path}"]
        command += [f"--directory={self.evidence}"]
        self.systemd.programs(f"farrier-evidence@{one.name}.service", exec=command, oneshot=True)

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


def engine(port: int, model: str, *more: str) -> list[str]:
    """The command of an engine on *port*."""
    program = str(FAKES / "engine" / "standin.py")
    return [sys.executable, program, f"--port={port}", f"--model={model}", *more]


def unit_properties(run: int, active: str = "active", sub: str = "running") -> dict[str, Any]:
    """A unit in its run number *run*: invocation and main process follow from it."""
    up = active in {"active", "reloading", "deactivating"}
    return {
        "MainPID": 1000 + run if up else 0,
        "ActiveState": active,
        "SubState": sub,
        "InvocationID": f"{run:032x}",
    }


def replica(name: str = "tiny", port: int | None = None, **fields: Any) -> Replica:
    values = {"model": name, "engine": "vllm", "unit": f"engine-{name}.service"}
    return Replica(name=name, port=port or free_port(), config_hash="a" * 64, **(values | fields))
