"""The fleet's hosts after a converge: who serves what, and how a test asks and commands them."""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from farrier.lab import Lab
from tests.fakes.engine.packing import packed
from tests.roles.converging import ROOT, Converge
from tests.roles.fleet import Answer, asked, until

__all__ = ["SOLO", "TINY", "Site", "account"]

FARRIER = Path(sys.executable).with_name("farrier")
_ENGINE = "/opt/standin/standin.py"
STOP_SECONDS = 5
"""Seconds from SIGTERM to SIGKILL: some manners wait for it."""


def engine(model: str, port: int, *options: str) -> dict[str, Any]:
    """A replica of *model* by the stand-in engine, which keeps an account of what it executed."""
    return {
        "name": model,
        "engine": "custom",
        "gpus": [],
        "port": port,
        "command": [
            *("/usr/bin/python3", _ENGINE, "--host", "{host}", "--port", "{port}"),
            *("--model", "{model}", "--account", account(model), "--start-delay", "2"),
            *options,
        ],
    }


def account(replica: str) -> str:
    """Where the stand-in of *replica* keeps what it executed, on its host."""
    return f"/var/lib/farrier/engines/{replica}/executed"


TINY = engine("tiny", 8101)
"""Served by every host."""
SOLO = engine("solo", 8102)
"""Served by gpu03 alone."""


class Site:
    """Hosts of the lab ``fleet``: three serve *tiny*, gpu03 *solo* too; all engines are stand-ins.

    The gateways ask for keys: *everyone* may use all models, *tiny-only* only tiny, *slow* is
    allowed three requests a minute, *narrow* two at a time.
    """

    def __init__(self, lab: Lab, converge: Converge) -> None:
        self.lab = lab
        self.converge = converge
        self.addresses = {host.name: str(host.address) for host in lab.hosts}
        self.gpus = [host.name for host in lab.hosts if "gpu" in host.groups]
        self.gateways = [host.name for host in lab.hosts if "gateway" in host.groups]
        self.keys_file = converge.directory / "keys.toml"
        self.keys = {
            name: f"sk-{name}-{secrets.token_hex(20)}"
            for name in ("everyone", "tiny-only", "slow", "narrow")
        }

    @property
    def key(self) -> str:
        """One that may use everything."""
        return self.keys["everyone"]

    def prepare(self) -> None:
        """Write the inventory, and bring to the hosts what it names and no role installs."""
        limits = {
            "everyone": "",
            "tiny-only": 'models = ["tiny"]\n',
            "slow": "requests_per_minute = 3\n",
            "narrow": "streams = 2\n",
        }
        self.keys_file.touch(0o600)
        self.keys_file.write_text(
            "".join(
                f'[keys.{name}]\nkey = "{self.keys[name]}"\n{more}' for name, more in limits.items()
            )
        )
        program = packed()
        for host in self.gpus:
            self.put(host, _ENGINE, program, mode="755")
        for host in self.gpus:
            self.converge.models[host] = [TINY, SOLO] if host == "gpu03" else [TINY]
            self.converge.data[host] = {
                "agent_tick": 1.0,
                "engine_stop_timeout": STOP_SECONDS,
                "api_keys_file": str(self.keys_file),
            }
        for host in self.gateways:
            self.converge.data[host] = {"api_keys_file": str(self.keys_file)}

    def settle(self) -> None:
        """Return when every replica serves and every gateway knows it."""
        for host in self.gpus:
            until(lambda: self.ready(host), 120, f"{host} serves")  # noqa: B023
        for gateway in self.gateways:
            until(lambda: len(self.models(gateway)) == 2, 30, f"{gateway} knows both models")  # noqa: B023
            until(lambda: self.all_up(gateway), 60, f"{gateway} knows every replica as up")  # noqa: B023

    def all_up(self, gateway: str) -> bool:
        """Whether *gateway*'s checks find every replica well."""
        states = {row[17] for row in self.servers(gateway) if not row[0].startswith("_")}
        return states == {"UP"}

    def servers(self, gateway: str) -> list[list[str]]:
        """What *gateway*'s HAProxy says of each of its servers: the fields of ``show stat``."""
        said = self.root(gateway, "echo 'show stat' | socat stdio /run/haproxy/admin.sock")
        rows = [line.split(",") for line in said.splitlines()]
        return [row for row in rows if len(row) > 36 and ":" in row[1]]

    # -- hosts -----------------------------------------------------------------------------------

    def ssh(self, host: str, command: str, *, check: bool = True) -> str:
        """What *command* printed on *host*; a failure shows what it said."""
        done = self.lab.ssh(host, command, check=False)
        if check and done.returncode:
            pytest.fail(f"{host}: {command}: status {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout

    def root(self, host: str, command: str, *, check: bool = True) -> str:
        """The same as root, in one shell."""
        quoted = "'" + command.replace("'", "'\\''") + "'"
        return self.ssh(host, f"sudo sh -c {quoted}", check=check)

    def put(self, host: str, path: str, content: bytes, mode: str = "644") -> None:
        """Write *path* on *host* as root, at once and whole."""
        script = (
            f"mkdir -p $(dirname {path}) && cat > {path}.new && chmod {mode} {path}.new"
            f" && mv -f {path}.new {path}"
        )
        argv = ["ssh", "-F", str(self.lab.ssh_config), host, f"sudo sh -c '{script}'"]
        subprocess.run(argv, input=content, check=True, capture_output=True)

    def unit(self, host: str, name: str, what: str) -> str:
        """One property of a systemd unit (``MainPID``)."""
        return self.ssh(host, f"systemctl show -P {what} {name}").strip()

    def gate(self, host: str, replica: str = "tiny") -> bool:
        """Whether the replica's gate is open."""
        return self.ssh(host, f"ls /run/farrier/open/{replica} 2>/dev/null", check=False) != ""

    def status(self, host: str) -> Any:
        """The agent's ``/status``."""
        return self.request(host, "/status", port=9810).json()

    def phase(self, host: str, replica: str = "tiny") -> str:
        """The phase of a replica, as its agent says."""
        replicas = {one["name"]: one["phase"] for one in self.status(host)["replicas"]}
        phase: str = replicas[replica]
        return phase

    def ready(self, host: str) -> bool:
        """Whether the host's agent runs and says that the host is ready."""
        try:
            return self.request(host, "/readyz", port=9810).status == 200
        except OSError:
            return False

    def manners(self, host: str, port: int = 8101, **changes: Any) -> None:
        """Change how *host*'s stand-in behaves until it ends; see tests/fakes/engine/manners.py."""
        said = json.dumps(changes)
        self.ssh(host, f"curl -sS -d '{said}' 127.0.0.1:{port}/manners")

    def executed(self, prefix: str, *replicas: str) -> Counter[str]:
        """How often the fleet's engines began each request whose name starts with *prefix*."""
        begun: Counter[str] = Counter()
        for host in self.gpus:
            for replica in replicas or ("tiny", "solo"):
                found = f"grep -hs {prefix} {account(replica)} || true"
                for line in self.root(host, found).splitlines():
                    entry = json.loads(line)
                    if "begun" in entry:
                        begun[entry["begun"]] += 1
        return begun

    # -- clients ---------------------------------------------------------------------------------

    def url(self, gateway: str, path: str = "/v1") -> str:
        """Where clients reach the fleet."""
        return f"http://{self.addresses[gateway]}{path}"

    def request(
        self,
        host: str,
        path: str,
        *,
        port: int = 80,
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
        self, gateway: str, model: str = "tiny", *, key: str | None = None, **more: Any
    ) -> Answer:
        """A short chat completion."""
        message = {"role": "user", "content": "hello"}
        body = {"model": model, "messages": [message], "max_tokens": 4, **more}
        return self.request(gateway, "/v1/chat/completions", key=key or self.key, body=body)

    def models(self, gateway: str, key: str | None = None) -> list[str]:
        """What the gateway says it serves; nothing while it does not answer."""
        try:
            answer = self.request(gateway, "/v1/models", key=key or self.key)
        except OSError:
            return []
        return [one["id"] for one in answer.json()["data"]] if answer.status == 200 else []

    # -- the operator ----------------------------------------------------------------------------

    def environment(self, **converge: Any) -> dict[str, str]:
        """The environment in which ``farrier`` and ``pyinfra`` mean this fleet."""
        return self.converge.environment(**converge)

    def farrier(
        self,
        *argv: str,
        environment: Mapping[str, str] | None = None,
        check: int | None = 0,
        timeout: float = 600,
        cwd: Path = ROOT,
    ) -> subprocess.CompletedProcess[str]:
        """Run the command ``farrier``; *check* is the exit code that it has to end with."""
        done = subprocess.run(
            [str(FARRIER), *argv],
            cwd=cwd,
            env=dict(environment or self.environment()),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if check is not None and done.returncode != check:
            words = " ".join(argv)
            pytest.fail(
                f"farrier {words}: exit {done.returncode}, not {check}\n{done.stdout}{done.stderr}",
                pytrace=False,
            )
        return done

    def start(
        self,
        argv: Sequence[str],
        *,
        environment: Mapping[str, str] | None = None,
        cwd: Path = ROOT,
    ) -> subprocess.Popen[str]:
        """Start ``farrier`` in a process group of its own: for one that is to be killed."""
        return subprocess.Popen(
            [str(FARRIER), *argv],
            cwd=cwd,
            env=dict(environment or self.environment()),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
