"""A host that has the role nginx and two stand-in engines, and requests of every kind of client."""

from __future__ import annotations

import json
import secrets
import shlex
from collections.abc import Mapping, Sequence
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from farrier.lab import Lab
from tests.roles.converging import Converge
from tests.roles.fleet import Answer

__all__ = ["ALICE", "BOB", "GATEWAY", "HOSTS", "MODELS", "Site", "error"]

HOSTS = ("gpu01", "gpu02")
"""Debian 12 and 13."""
GATEWAY = {"X-Farrier-Key": "carol", "X-Request-ID": "r-1", "X-Farrier-Server": "gpu01:tiny"}
"""What a gateway sends with a request for tiny."""
ALICE, BOB = (f"sk-{secrets.token_hex(16)}" for _ in range(2))
_COMMAND = ["/bin/serve", "{host}", "{port}"]
MODELS: Sequence[Mapping[str, Any]] = (
    {"name": "tiny", "engine": "custom", "gpus": [], "port": 8101, "command": _COMMAND},
    {
        "name": "Org/Other",
        "replica": "other",
        "engine": "custom",
        "gpus": [],
        "port": 8102,
        "command": _COMMAND,
    },
)
_PROGRAM = "/opt/standin/echo.py"
_UNIT = "/run/systemd/system/standin@.service"
_UNIT_TEXT = f"""
[Service]
ExecStart=/usr/bin/python3 {_PROGRAM} %i
Restart=always
"""
_GATES = "/run/farrier/open"


class Site:
    """One host. The machine that the tests run on is a gateway to it where its data says so."""

    def __init__(self, lab: Lab, converge: Converge, name: str, directory: Path) -> None:
        self.lab = lab
        self.name = name
        self.here = str(lab.definition.gateway)
        self.address = next(str(host.address) for host in lab.hosts if host.name == name)
        self._converge = converge
        self._directory = directory

    def prepare(self) -> None:
        """Bring the stand-ins to the host, start them, and open both gates."""
        program = Path(__file__).with_name("standin_echo.py").read_text(encoding="utf-8")
        self.root(f"mkdir -p /opt/standin {_GATES}; cat > {_PROGRAM}", stdin=program)
        self.root(f"cat > {_UNIT}; systemctl daemon-reload", stdin=_UNIT_TEXT)
        self.root(
            "python3 -c 'import http.server' 2>/dev/null || { apt-get -q update &&"
            " apt-get -q -y install --no-install-recommends python3; } >&2"
        )
        self.start()
        self.open()

    def start(self) -> None:
        """Start the engines that do not run; they answer when it returns."""
        ports = [model["port"] for model in MODELS]
        units = " ".join(f"standin@{port}" for port in ports)
        answers = " ".join(
            f"until curl -s -d '' 127.0.0.1:{port} >&2; do :; done;" for port in ports
        )
        self.root(f"systemctl reset-failed; systemctl start {units}; {answers}")

    def root(self, command: str, *, stdin: str | None = None, check: bool = True) -> str:
        """What *command* printed on the host, as root."""
        words = f"sudo sh -c {shlex.quote(command)}"
        done = self.lab.ssh(self.name, words, check=False, input=stdin)
        if check and done.returncode:
            pytest.fail(f"{self.name}: {command}: {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout

    def open(self, *replicas: str) -> None:
        """Open the gates of *replicas* (default: all)."""
        self.root("cd /run/farrier/open && touch " + " ".join(replicas or ("tiny", "other")))

    def close(self, replica: str = "tiny") -> None:
        """Close one gate."""
        self.root(f"rm -f {_GATES}/{replica}")

    def converge(
        self, keys: str = "", models: Sequence[Mapping[str, Any]] = MODELS, **data: Any
    ) -> list[str]:
        """The role with this data: what it changed. *keys* is what stands in the file of keys."""
        if keys:
            file = self._directory / "keys.toml"
            file.write_text(keys, encoding="utf-8")
            file.chmod(0o600)
            data["api_keys_file"] = str(file)
        run = self._converge(
            deploy="tests/nginx/deploy.py",
            models={self.name: models},
            data={self.name: data},
            limit=[self.name],
        )
        if run.returncode:
            pytest.fail(run.last_words(), pytrace=False)
        return run.changed(self.name)

    def refused(self, **data: Any) -> str:
        """What a converge with this data says that has to fail."""
        run = self._converge(
            deploy="tests/nginx/deploy.py",
            models={self.name: MODELS},
            data={self.name: data},
            limit=[self.name],
        )
        assert run.returncode != 0
        return run.stderr

    def ask(
        self,
        path: str = "/v1/chat/completions",
        headers: Mapping[str, str] | None = None,
        *,
        body: bytes = b"{}",
        method: str = "POST",
        connection: HTTPConnection | None = None,
    ) -> Answer:
        """One request from this machine, on *connection* or on one of its own."""
        own = connection or HTTPConnection(self.address, 8080, timeout=30)
        try:
            own.request(method, path, body if method == "POST" else None, dict(headers or {}))
            answer = own.getresponse()
            names = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(answer.status, names, answer.read())
        finally:
            if connection is None:
                own.close()

    def ask_from_the_host(
        self, path: str = "/v1/chat/completions", headers: Mapping[str, str] | None = None
    ) -> int:
        """The status of a request that the host itself sends: it is no gateway."""
        lines = "".join(f'header = "{name}: {value}"\n' for name, value in (headers or {}).items())
        url = f"http://127.0.0.1:8080{path}"
        # not by its command line, which the journal keeps
        command = f"curl -K - -s -o /dev/null -w '%{{http_code}}' -d '{{}}' {url}"
        return int(self.root(command, stdin=lines))

    def logged(self, count: int = 1) -> list[dict[str, Any]]:
        """The last *count* requests in nginx's access log."""
        lines = self.root(f"tail -n {count} /var/log/nginx/farrier-access.log").splitlines()
        return [json.loads(line) for line in lines]


def error(answer: Answer) -> tuple[int, str]:
    """The status and the code of an error in OpenAI's shape."""
    assert answer.headers["content-type"] == "application/json"
    told = answer.json()["error"]
    assert set(told) == {"message", "type", "param", "code"}
    return answer.status, told["code"]
