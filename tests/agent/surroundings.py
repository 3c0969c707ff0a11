"""What is around an agent, in a directory: NVML, the PCI bus, systemd, nginx, engines."""

from __future__ import annotations

import random
import shutil
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from farrier_agent.config import Replica

from tests.agent.nginx import USER, Nginx
from tests.fakes.systemd1.control import Systemd

if TYPE_CHECKING:
    from typing import Self  # since Python 3.11; the agent's floor is 3.10

__all__ = [
    "FAKES",
    "UUIDS",
    "Surroundings",
    "engine",
    "free_port",
    "pci_address",
    "unit_properties",
]

FAKES = Path(__file__).parent.parent / "fakes"
UUIDS = [f"GPU-fa4e0000-0000-4000-8000-{index:012x}" for index in range(8)]


def pci_address(index: int) -> str:
    """Where the fake NVML has GPU *index*, as sysfs names it."""
    return f"0000:{0x18 + 8 * index:02x}:00.0"


LISTENING = range(15000, 32000)
"""Below the ports that the kernel gives to connections (ip_local_port_range)."""
_chance = random.SystemRandom()


def free_port() -> int:
    """A port that nobody has, and that no client is given until somebody listens on it."""
    while True:
        with socket.socket() as one, suppress(OSError):
            one.bind(("127.0.0.1", _chance.choice(LISTENING)))
            return int(one.getsockname()[1])


class Surroundings:
    """Everything under *root*; ``with`` ends every process that was started."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.nvml_state = root / "nvml.state"
        self.gates = root / "open"
        self.started = root / "started"
        self.records = root / "replicas"
        self.evidence = root / "evidence"
        self.run_dir = root / "agent"
        self.rollout = root / "rollout"
        self.kmsg = root / "kmsg"
        self.sys = root / "sys"
        self.control_path = self.run_dir / "control.sock"
        self.config_path = root / "agent.toml"
        self.systemd = Systemd(root)
        self.nginx = Nginx()
        self._processes: list[subprocess.Popen[Any]] = []
        for directory in (self.gates, self.started, self.evidence, self.run_dir, root / "bin"):
            directory.mkdir()
        (root / "state").mkdir()
        self.kmsg.touch()
        self.nvml("count 2")
        self.bus(0, 1)

    def __enter__(self) -> Self:
        self.systemd.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.nginx.close()
        for process in self._processes:
            process.kill()
            process.wait()
        self.systemd.stop()

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
