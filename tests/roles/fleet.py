"""The lab after its first converge, and how a test asks its hosts and their nginx."""

from __future__ import annotations

import http.client
import json
import subprocess
import time
import tomllib
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import pytest

from farrier.lab import TINY_MODEL, Lab
from tests.fakes.engine.packing import packed
from tests.roles.converging import Converge
from tests.roles.gpus import GPU_STATE, GPU_TREE, believes_in_gpus
from tests.roles.traffic import Plan, Traffic

__all__ = [
    "GPU_STATE",
    "GPU_TREE",
    "STAND_IN",
    "TINY",
    "Answer",
    "Fleet",
    "asked",
    "kill_agent",
    "until",
]

T = TypeVar("T")

TINY: Mapping[str, Any] = {
    "name": "tiny",
    "engine": "vllm",
    "source": f"path:{TINY_MODEL}",
    "gpus": [],
    "port": 8101,
    "args": {"enforce-eager": True, "max-model-len": 2048},
    "env": {"VLLM_CPU_KVCACHE_SPACE": "1"},
}
"""The tiny model, served by the real vLLM."""

_STAND_IN_PATH = "/opt/standin/standin.py"
ACCOUNT = "/var/lib/farrier/engines/tiny/executed"
"""What the stand-in executed, on its host: a line for each begin and each end of a request."""
STAND_IN: Mapping[str, Any] = {
    "name": "tiny",
    "engine": "custom",
    "gpus": [],
    "port": 8101,
    "command": [
        "/usr/bin/python3",
        _STAND_IN_PATH,
        *("--host", "{host}", "--port", "{port}", "--model", "{model}"),
        *("--account", ACCOUNT),
    ],
}
"""The same name, served by a stand-in: where the real engine has no wheel for the host's Python."""

STAND_IN_PATIENCE = 5
"""Seconds from SIGTERM to SIGKILL: some manners wait for it."""


@dataclass(frozen=True)
class Answer:
    """An HTTP answer, read to its end. *headers* have lower-case names."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """The body, parsed."""
        return json.loads(self.body)

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode()


def asked(
    address: tuple[str, int],
    path: str,
    *,
    method: str = "GET",
    key: str | None = None,
    body: Any = None,
    headers: Mapping[str, str] | None = None,
    timeout: float = 60,
) -> Answer:
    """One request to *address*; *body* is sent as JSON unless it is bytes."""
    connection = http.client.HTTPConnection(*address, timeout=timeout)
    sent = {"Authorization": f"Bearer {key}"} if key is not None else {}
    data = None
    if body is not None:
        method = "POST" if method == "GET" else method
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        sent["Content-Type"] = "application/json"
    try:
        connection.request(method, path, data, sent | dict(headers or {}))
        answer = connection.getresponse()
        names = {name.lower(): value for name, value in answer.getheaders()}
        return Answer(answer.status, names, answer.read())
    finally:
        connection.close()


class Fleet:
    """The lab's hosts, converged: gpu01 with the real vLLM, gpu02 and gpu03 with the stand-in.

    gpu02 has a fake NVML, and a tree in which a driver is loaded, and believes in its GPU. gpu03 is
    Debian 13, for which the real engine has no wheel.
    """

    def __init__(self, lab: Lab, converge: Converge) -> None:
        self.lab = lab
        self.converge = converge
        self.addresses = {host.name: str(host.address) for host in lab.hosts}
        self.gpu_hosts = [host.name for host in lab.hosts if "gpu" in host.groups]
        self.key: str = next(iter(tomllib.loads(lab.keys_file.read_text())["keys"].values()))

    def prepare(self) -> None:
        """Bring to the hosts what the inventory names and no role installs."""
        engine = packed()
        for host in ("gpu02", "gpu03"):
            self.put_bytes(host, _STAND_IN_PATH, engine, mode="755")
        # The lab has a gateway; these tests are clients of the hosts themselves.
        self.converge.everywhere = {"nginx_clients": "keys"}
        self.converge.models |= {
            "gpu01": [TINY],
            "gpu02": [{**STAND_IN, "gpus": [0]}],
            # as engines do, it listens for a while before it serves
            "gpu03": [{**STAND_IN, "command": [*STAND_IN["command"], "--start-delay", "4"]}],
        }
        self.converge.data |= {
            "gpu02": {
                **believes_in_gpus(self, "gpu02"),
                "agent_tick": 1.0,
                "engine_stop_timeout": STAND_IN_PATIENCE,
            },
            "gpu03": {"agent_tick": 1.0, "engine_stop_timeout": STAND_IN_PATIENCE},
        }

    def ssh(self, host: str, command: str, *, check: bool = True, stdin: str | None = None) -> str:
        """What *command* printed on *host*; a failure shows what it said."""
        done = self.lab.ssh(host, command, check=False, input=stdin)
        if check and done.returncode:
            pytest.fail(f"{host}: {command}: status {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout

    def root(self, host: str, command: str, *, check: bool = True, stdin: str | None = None) -> str:
        """The same as root, in one shell."""
        return self.ssh(host, f"sudo sh -c {_quoted(command)}", check=check, stdin=stdin)

    def put(self, host: str, path: str, content: str, mode: str = "644") -> None:
        """Write *path* on *host* as root, at once and whole."""
        self.put_bytes(host, path, content.encode(), mode)

    def put_bytes(self, host: str, path: str, content: bytes, mode: str = "644") -> None:
        """The same with bytes."""
        script = (
            f"mkdir -p $(dirname {path}) && cat > {path}.new && chmod {mode} {path}.new"
            f" && mv -f {path}.new {path}"
        )
        argv = ["ssh", "-F", str(self.lab.ssh_config), host, f"sudo sh -c {_quoted(script)}"]
        subprocess.run(argv, input=content, check=True, capture_output=True)

    def url(self, host: str, path: str = "") -> str:
        """Where clients reach *host*'s nginx."""
        return f"http://{self.addresses[host]}:8080{path}"

    def request(
        self,
        host: str,
        path: str,
        *,
        port: int = 8080,
        method: str = "GET",
        key: str | None = None,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = 60,
    ) -> Answer:
        """One request from the operator's machine; *body* is sent as JSON unless it is bytes."""
        return asked(
            (self.addresses[host], port),
            path,
            method=method,
            key=key,
            body=body,
            headers=headers,
            timeout=timeout,
        )

    def chat(
        self, host: str, path: str = "/v1/chat/completions", *, port: int = 8080, **more: Any
    ) -> Answer:
        """A short chat completion with the lab's key."""
        message = {"role": "user", "content": "hello"}
        body = {"model": "tiny", "messages": [message], "max_tokens": 4, **more}
        return self.request(host, path, port=port, key=self.key, body=body)

    def traffic(self, host: str, plan: Plan | None = None, *, patience: float = 90) -> Traffic:
        """Clients of *host*'s nginx; they begin when the block is entered."""
        return Traffic(self.addresses[host], self.key, plan, patience=patience)

    def executed(self, host: str, traffic: Traffic) -> dict[str, int]:
        """How often *host*'s stand-in began to execute each of *traffic*'s requests, ever."""
        lines = self.root(host, f"grep -h {traffic.prefix} {ACCOUNT} || test $? = 1").splitlines()
        entries = (json.loads(line) for line in lines)
        return Counter(entry["begun"] for entry in entries if "begun" in entry)

    def manners(self, host: str, **changes: Any) -> None:
        """Change how *host*'s stand-in behaves until it ends; see tests/fakes/engine/manners.py."""
        said = self.ssh(host, f"curl -sS -d {_quoted(json.dumps(changes))} 127.0.0.1:8101/manners")
        now = json.loads(said)
        assert now | changes == now, said

    def status(self, host: str) -> Any:
        """The agent's ``/status``."""
        return self.request(host, "/status", port=9810).json()

    def phase(self, host: str) -> str:
        """The phase of *host*'s replica, as its agent says."""
        phase: str = self.status(host)["replicas"][0]["phase"]
        return phase

    def ready(self, host: str) -> bool:
        """Whether the host's agent runs and says that the host is ready."""
        try:
            return self.request(host, "/readyz", port=9810).status == 200
        except OSError:
            return False

    def metrics(self, host: str) -> str:
        """The agent's ``/metrics``."""
        return self.request(host, "/metrics", port=9810).text

    def unit(self, host: str, name: str, what: str) -> str:
        """One property of a systemd unit (``MainPID``)."""
        return self.ssh(host, f"systemctl show -P {what} {name}").strip()

    def gate(self, host: str, replica: str = "tiny") -> bool:
        """Whether the replica's gate is open."""
        return self.ssh(host, f"ls /run/farrier/open/{replica} 2>/dev/null", check=False) != ""


def until(condition: Callable[[], T], patience: float, what: str) -> T:
    """The first true value of *condition*; fails after *patience* seconds, naming *what*."""
    deadline = time.monotonic() + patience
    while True:
        if value := condition():
            return value
        if time.monotonic() > deadline:
            pytest.fail(f"not within {patience:.0f} s: {what}")
        time.sleep(0.2)


def _quoted(command: str) -> str:
    return "'" + command.replace("'", "'\\''") + "'"


def kill_agent(fleet: Fleet, host: str) -> None:
    """``kill -9`` the agent of *host*, and wait until systemd has started another."""
    before = fleet.unit(host, "farrier-agent", "MainPID")
    fleet.root(host, f"kill -9 {before}")
    until(
        lambda: fleet.unit(host, "farrier-agent", "MainPID") not in {"0", before},
        15,
        "systemd starts the agent again",
    )
