"""One lab host with all that the roles make, four replicas of a stand-in engine and eight GPUs.

What stands in: the engines (``engine.py``, the tests' stand-in with metrics as long as the real
vLLM's), NVML (tests/fakes/nvml), and a tree of files for what the kernel says of the GPUs and in
its log. systemd, nginx, the agent and the node exporter are the real ones.
"""

from __future__ import annotations

import fcntl
import io
import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
import tomllib
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar
from urllib.error import URLError
from urllib.request import urlopen

from farrier.lab import Lab
from tests.bench.course import LAB, leaders
from tests.fakes.engine.packing import packed
from tests.fakes.nvml import build as fake_nvml
from tests.roles.converging import Converge

__all__ = [
    "GPUS",
    "HERE",
    "HOST",
    "REPLICAS",
    "OneHost",
    "OneHostError",
    "converge",
    "one_host",
    "until",
]

T = TypeVar("T")
Say = Callable[[str], None]

HOST = "gpu01"
HERE = "/opt/bench"
"""Where the host keeps what the benchmarks bring."""
GPUS = 8
REPLICAS: Mapping[str, int] = {f"m{number}": 8100 + number for number in range(1, 5)}
"""The ports of the replicas; each serves a model of its own name."""

_ENGINE = f"{HERE}/engine.py"
_NVML = f"{HERE}/libnvidia-ml.so.1"
_TREE = f"{HERE}/gpus"
_STATE = "/etc/fake-nvml.state"
_BUS = 0x18
"""The PCI bus of the first GPU of the fake NVML; the next ones are 8 apart."""
_KMSG = "6,1,1000000,-;Linux version 6.1.0 (a stand-in of the kernel's log)\n"
_DRIVER = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.95.05  Release Build\n"


class OneHostError(Exception):
    """The host does not do what a benchmark needs; the message says what it said."""


class OneHost:
    """The host *lab* has, converged."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.address = next(str(host.address) for host in lab.hosts if host.name == HOST)
        self.key: str = next(iter(tomllib.loads(lab.keys_file.read_text())["keys"].values()))

    @property
    def pid_one(self) -> int:
        """The host's PID 1, as seen from here."""
        return leaders(self.lab, [HOST])[0]

    def root(self, command: str, *, stdin: bytes = b"", check: bool = True) -> str:
        """What *command* printed, run by root's shell. Raises OneHostError unless it exits 0."""
        argv = ["ssh", "-F", str(self.lab.ssh_config), HOST, f"sudo sh -c {shlex.quote(command)}"]
        done = subprocess.run(argv, input=stdin, capture_output=True, check=False)
        if check and done.returncode:
            said = (done.stdout + done.stderr).decode(errors="replace")[-3000:]
            raise OneHostError(f"{HOST}: {command}: exit {done.returncode}\n{said}")
        return done.stdout.decode()

    def put(self, path: str, content: bytes | str, mode: str = "644") -> None:
        """Write a file of root's."""
        data = content.encode() if isinstance(content, str) else content
        where = f"mkdir -p $(dirname {path}) && cat > {path} && chmod {mode} {path}"
        self.root(where, stdin=data)

    def gpus(self, count: int, *, held: bool = False) -> None:
        """Have *count* GPUs, in NVML and on the PCI bus; *held*: with an engine's process on each.

        An engine that is restarted finds its GPUs still held by the process that it was.
        """
        busy = []
        if held:
            show = "systemctl show -P MainPID engine-"
            pids = [self.root(f"{show}{name}").strip() for name in REPLICAS]
            busy = [
                f"{number}.processes {pids[number // 2 % len(pids)]}:{64 * 2**30}"
                for number in range(count)
            ]
        # a file that is replaced is read anew, one that is written to may be read half
        self.put(f"{_STATE}.new", "\n".join([f"count {count}", *busy, ""]))
        functions = f"{_TREE}/sys/bus/pci/devices"
        lines = [f"mv {_STATE}.new {_STATE}", f"rm -rf {functions}"]
        for number in range(count):
            function = f"{functions}/0000:{_BUS + 8 * number:02x}:00.0"
            lines += [
                f"mkdir -p {function}",
                f"ln -sfn ../../drivers/nvidia {function}/driver",
                f"echo 0x10de > {function}/vendor",
                f"echo 0x2330 > {function}/device",
                f"echo 0x030200 > {function}/class",
            ]
        self.root(" && ".join(lines))

    def status(self) -> Any:
        """The agent's ``/status``; None where it does not answer."""
        try:
            with urlopen(f"http://{self.address}:9810/status", timeout=5) as answer:
                return json.load(answer)
        except (URLError, TimeoutError, ConnectionError):
            return None

    def phases(self) -> dict[str, str]:
        """The phase of every replica; empty while the agent does not answer."""
        return {
            one["name"]: one["phase"] for one in (self.status() or {"replicas": []})["replicas"]
        }

    def record(self, replica: str) -> Any:
        """The record that the agent keeps of *replica*."""
        return json.loads(self.root(f"cat /var/lib/farrier/replicas/{replica}.json"))

    def versions(self) -> str:
        """The versions of what is measured on it, in words."""
        script = (
            ". /etc/os-release; echo $PRETTY_NAME; nginx -v 2>&1 | cut -d/ -f2;"
            " /opt/farrier/agent/current/bin/python -V;"
            " dpkg-query -Wf '${Version}' prometheus-node-exporter"
        )
        system, nginx, python, exporter = self.root(script).splitlines()
        return f"the host {system}: {python}, nginx {nginx}, node exporter {exporter}"


def until(question: Callable[[], T], patience: float, what: str) -> T:
    """The first true answer to *question*. Raises OneHostError after *patience* seconds."""
    end = time.monotonic() + patience
    while not (answer := question()):
        if time.monotonic() > end:
            raise OneHostError(f"not within {patience:.0f} s: {what}")
        time.sleep(0.1)
    return answer


@contextmanager
def one_host(say: Say) -> Iterator[OneHost]:
    """The host, ready; taken down at the end unless FARRIER_KEEP_LAB=1."""
    with (
        Path(tempfile.gettempdir(), f"farrier-tests-{LAB}.lock").open("w") as lock,
        tempfile.TemporaryDirectory(prefix="farrier-bench-") as scratch,
    ):
        # nobody else may be at work on the lab
        fcntl.flock(lock, fcntl.LOCK_EX)
        lab = Lab.open(LAB, report=say)
        try:
            lab.up([HOST])
            host = OneHost(lab)
            _prepare(host, Path(scratch))
            converge(lab, Path(scratch), say)
            _tell_of_load(host)
            until(lambda: set(host.phases().values()) == {"ready"}, 60, "every replica is ready")
            yield host
        finally:
            if os.environ.get("FARRIER_KEEP_LAB") != "1":
                lab.down()


def _prepare(host: OneHost, scratch: Path) -> None:
    # of a run that ended in the middle, where the lab is kept
    host.root("systemctl stop 'bench-*'; systemctl reset-failed", check=False)
    host.put(_ENGINE, _engine(), "755")
    host.put(_NVML, fake_nvml.build(scratch / "nvml").read_bytes(), "755")
    host.put(f"{_TREE}/proc/driver/nvidia/version", _DRIVER)
    host.put(f"{_TREE}/dev/kmsg", _KMSG)
    libraries = f"{_TREE}/usr/lib/x86_64-linux-gnu"
    host.put(f"{libraries}/libcuda.so.580.95.05", "stand-in\n")
    lines = [
        f"ln -sfn libcuda.so.580.95.05 {libraries}/libcuda.so.1",
        f"mkdir -p {_TREE}/sys/bus/pci/drivers/nvidia",
    ]
    host.root(" && ".join(lines))
    host.gpus(GPUS)


def _engine() -> bytes:
    """The tests' stand-in with this directory's ``engine.py`` around it, as one program."""
    buffer = io.BytesIO(packed())
    with zipfile.ZipFile(buffer, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("long_metrics.py", Path(__file__).with_name("engine.py").read_text())
    # the archive's own start is replaced: of two entries with one name the last counts
    return _replaced(buffer.getvalue(), "__main__.py", "import long_metrics\nlong_metrics.main()\n")


def _replaced(archive: bytes, name: str, text: str) -> bytes:
    old, buffer = zipfile.ZipFile(io.BytesIO(archive)), io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as new:
        for entry in old.namelist():
            new.writestr(entry, text if entry == name else old.read(entry))
    return buffer.getvalue()


def converge(
    lab: Lab,
    scratch: Path,
    say: Say,
    *,
    gateway: bool = False,
    data: Mapping[str, Any] | None = None,
) -> None:
    """Converge the host. *gateway*: it is one as well; *data*: more of its data.

    Raises OneHostError.
    """
    it = Converge(lab, scratch)
    command = ["/usr/bin/python3", _ENGINE, "--port", "{port}", "--model", "{model}"]
    pairs = [[gpu, gpu + 1] for gpu in range(0, GPUS, 2)]
    it.models[HOST] = [
        {"name": name, "engine": "custom", "gpus": gpus, "port": port, "command": command}
        for (name, port), gpus in zip(REPLICAS.items(), pairs, strict=True)
    ]
    it.data[HOST] = {
        "accelerator": "cuda",
        "agent_nvml_library": _NVML,
        "nvidia_driver_source": "none",
        "nginx_clients": "keys",
        "roots": {name: f"{_TREE}/{name}" for name in ("proc", "sys", "dev", "usr")},
        **(data or {}),
    }
    # inventory/lab.py puts these hosts into group gateway as well
    also = {"FARRIER_LAB_GATEWAYS": HOST} if gateway else {}
    run = it(limit=[HOST], timeout=300, environment=also)
    if run.returncode:
        raise OneHostError(f"the converge failed:\n{run.last_words(60)}")
    say(f"converged in {run.seconds:.0f} s")


def _tell_of_load(host: OneHost) -> None:
    """Have the agent read the engines' metrics, as it does of vLLM: the stand-ins have the same."""
    host.root(
        'sed -i \'s/^engine = "openai"/engine = "vllm"/\' /etc/farrier/agent.toml'
        " && systemctl restart farrier-agent"
    )


if __name__ == "__main__":
    # the host by itself, for trying: FARRIER_KEEP_LAB=1 python -m tests.bench.onehost
    with one_host(print):
        sys.exit(0)
