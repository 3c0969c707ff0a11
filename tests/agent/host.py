"""One host as the agent sees it, in a directory: fake NVML, fake systemctl, engines, the agent."""

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

from farrier_agent import status
from farrier_agent.config import AgentConfig, Replica, dumps
from prometheus_client.parser import text_string_to_metric_families

T = TypeVar("T")

FAKES = Path(__file__).parent.parent / "fakes"
TICK = 0.5
PATIENCE = 20.0
UUIDS = [f"GPU-fa4e0000-0000-4000-8000-{index:012x}" for index in range(8)]

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


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
        self.state_dir = root / "agent"
        self.config_path = root / "agent.toml"
        self.log_path = root / "agent.log"
        self._nvml_library = nvml_library
        self._units_path = root / "units.json"
        self._units: dict[str, Any] = {"units": {}}
        self._processes: list[subprocess.Popen[bytes]] = []
        self.port = free_port()
        self.agent: subprocess.Popen[bytes] | None = None
        for directory in (self.gates, self.started, root / "bin"):
            directory.mkdir()
        systemctl = root / "bin" / "systemctl"
        source = (FAKES / "systemctl" / "systemctl.py").read_text()
        systemctl.write_text(f"#!{sys.executable} -SE\n{source}")
        systemctl.chmod(0o755)
        self.systemd()
        self.nvml("count 2")

    def __enter__(self) -> Host:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.kill()
            process.wait()

    # -- what is around the agent ----------------------------------------------------------

    def nvml(self, text: str) -> None:
        """Replace the state of the fake NVML."""
        fresh = self.root / "nvml.new"
        fresh.write_text(text + "\n")
        fresh.replace(self.nvml_state)

    def systemd(self, **changes: Any) -> None:
        """Set keys of the fake systemctl's file, None takes one away."""
        self._units |= changes
        self._units = {key: value for key, value in self._units.items() if value is not None}
        fresh = self.root / "units.new"
        fresh.write_text(json.dumps(self._units))
        fresh.replace(self._units_path)

    def unit(self, name: str, run: int, active: str = "active", sub: str = "running") -> None:
        self.systemd(units=self._units["units"] | {name: unit_properties(run, active, sub)})

    def children(self) -> list[str]:
        """The agent's child processes."""
        assert self.agent is not None
        pid = self.agent.pid
        threads = Path(f"/proc/{pid}/task").glob("*/children")
        return [child for thread in threads for child in thread.read_text().split()]

    def systemctl_calls(self) -> list[str]:
        path = Path(f"{self._units_path}.calls")
        return path.read_text().splitlines() if path.exists() else []

    def engine(self, port: int, model: str, *more: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, str(FAKES / "engine" / "standin.py"), f"--port={port}"]
        process = subprocess.Popen([*command, f"--model={model}", *more], stderr=subprocess.DEVNULL)
        self._processes.append(process)
        return process

    # -- the agent -------------------------------------------------------------------------

    def configure(self, *replicas: Replica, accelerator: str = "cpu", **fields: Any) -> AgentConfig:
        config = AgentConfig(
            host="gpu01",
            accelerator=accelerator,  # type: ignore[arg-type]
            listen=f"127.0.0.1:{self.port}",
            gate_dir=str(self.gates),
            started_dir=str(self.started),
            run_dir=str(self.state_dir),
            nvml_library=str(self._nvml_library) if accelerator == "cuda" else None,
            replicas=list(replicas),
            **({"tick": TICK} | fields),
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
            "FAKE_SYSTEMCTL": str(self._units_path),
            **more,
        }

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run ``farrier-agent`` to its end."""
        command = [sys.executable, "-m", "farrier_agent.cli", *arguments]
        return subprocess.run(
            command, env=self.environment(), capture_output=True, text=True, check=False, timeout=30
        )

    def start(self, **more: str) -> subprocess.Popen[bytes]:
        """Start the agent and wait until it serves."""
        command = [sys.executable, "-m", "farrier_agent.cli", "run", f"--config={self.config_path}"]
        with self.log_path.open("ab") as log:
            self.agent = subprocess.Popen(command, env=self.environment(**more), stderr=log)
        self._processes.append(self.agent)
        until(lambda: self.get("/livez")[0] == 200)
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

    def reasons(self) -> list[str]:
        reasons: list[str] = json.loads(self.get("/readyz")[1])["reasons"]
        return reasons

    def samples(self) -> Samples:
        return samples(self.get("/metrics")[1].decode())

    def value(self, name: str, **labels: str) -> float | None:
        return self.samples().get((name, tuple(sorted(labels.items()))))

    def turns(self, count: int = 3) -> None:
        """Wait until systemctl was asked *count* more times, i.e. so many looks later."""
        goal = len(self.systemctl_calls()) + count
        until(lambda: len(self.systemctl_calls()) >= goal)


def unit_properties(run: int, active: str = "active", sub: str = "running") -> dict[str, str]:
    """A unit in its run number *run*: invocation and main process follow from it."""
    pid = str(1000 + run) if active in {"active", "reloading", "deactivating"} else "0"
    return {
        "MainPID": pid,
        "ActiveState": active,
        "SubState": sub,
        "InvocationID": f"{run:032x}",
    }


def replica(name: str = "tiny", port: int | None = None, **fields: Any) -> Replica:
    values = {"model": name, "engine": "vllm", "unit": f"engine-{name}.service"}
    return Replica(name=name, port=port or free_port(), config_hash="a" * 64, **(values | fields))


def samples(text: str) -> Samples:
    """All samples of an exposition; refuses what Prometheus or its conventions refuse."""
    found: Samples = {}
    for family in text_string_to_metric_families(text):
        assert family.documentation, f"{family.name} has no HELP"
        assert family.type != "unknown", f"{family.name} has no TYPE"
        assert family.samples, f"{family.name} has no sample"
        for sample in family.samples:
            key = (sample.name, tuple(sorted(sample.labels.items())))
            assert key not in found, f"twice: {key}"
            assert sample.value == sample.value, f"NaN: {key}"
            assert sample.name.endswith("_total") == (family.type == "counter"), sample.name
            found[key] = sample.value
    names = [line.split()[2] for line in text.splitlines() if line.startswith("# HELP")]
    assert len(names) == len(set(names)), "a family is in two pieces"
    return found
