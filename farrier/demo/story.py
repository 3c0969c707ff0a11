"""The demo's phases, in their order, with their seconds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from farrier_agent.status import Status

from farrier.demo.chat import Chat, curl
from farrier.demo.errors import DemoError
from farrier.demo.replicas import await_gates
from farrier.demo.rolling import COMMAND, roll
from farrier.demo.scrapes import Target, await_targets
from farrier.demo.screen import Screen, printable
from farrier.demo.web import AnswerError
from farrier.lab import Host, Lab, LabError

__all__ = ["ROOT", "Story"]

ROOT = Path(__file__).parents[2]
"""The checkout: pyinfra finds ``config.py``, ``inventory`` and ``deploys`` in it."""

LAB = "demo"
KEY = "demo"
"""Name of the API key that the lab makes for its clients."""
MODEL = "tiny"
PROMPT = "Say something."


class Story:
    """One run of the demo; what it found is collected in :attr:`found`, for ``--json``."""

    def __init__(self, screen: Screen, bootstrap_seconds: float | None) -> None:
        self.screen = screen
        self.lab = Lab.open(LAB, report=lambda text: screen.line(f"   {text}"))
        self.phases: list[tuple[str, float]] = []
        self.phase = "start"
        self.fresh = not self.lab.hosts
        self.found: dict[str, Any] = {}
        if bootstrap_seconds is not None:
            self.phases.append(("bootstrap", bootstrap_seconds))

    def tell(self) -> None:
        """Run every phase. Raises :class:`DemoError`; :attr:`phase` is then the one that failed."""
        with self._in("lab", "four bare Debian hosts as systemd-nspawn machines: farrier lab up"):
            self._raise_lab()
        with self._in("converge", f"FARRIER_ENV=lab pyinfra -y {' '.join(DEPLOY)}"):
            self._converge()
        with self._in("engines", "the agents open each replica's gate when its engine answers"):
            statuses = await_gates(
                {host.name: f"http://{host.address}:9810" for host in self.lab.hosts},
                lambda text: self.screen.line(f"   {text}"),
            )
        with self._in("chat", f"a streamed answer of {MODEL} through the fleet's one endpoint"):
            chat = self._chat()
        with self._in("targets", "Prometheus scrapes every host"):
            targets = await_targets(
                f"http://{self._one('monitor').address}:9090",
                lambda text: self.screen.line(f"   {text}"),
            )
            self.screen.line(f"   {len(targets)} of {len(targets)} targets are up")
        with self._in("rollout", f"every engine restarted under load: farrier {' '.join(COMMAND)}"):
            self.found["load"] = roll(
                *(self.screen, self.url, self._key(), MODEL),
                root=ROOT,
                environment=self._environment(),
            )
        self._conclude(statuses, chat, targets)

    @property
    def gpu_hosts(self) -> list[Host]:
        """The hosts that serve models."""
        return [host for host in self.lab.hosts if "gpu" in host.groups]

    @property
    def url(self) -> str:
        """Where clients reach the fleet: its gateway."""
        return f"http://{self._one('gateway').address}"

    def write_phases(self) -> Path:
        """Keep the seconds of the phases for docs/benchmarks.md; where they are."""
        path = ROOT / "build" / "demo-phases.json"
        path.parent.mkdir(exist_ok=True)
        data = {
            "at": int(time.time()),
            "cores": os.cpu_count(),
            "lab_was_up": not self.fresh,
            "phases": [{"phase": name, "seconds": round(s, 1)} for name, s in self.phases],
            "seconds": round(sum(seconds for _, seconds in self.phases), 1),
        }
        path.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
        return path

    @contextmanager
    def _in(self, phase: str, title: str) -> Iterator[None]:
        self.phase = phase
        self.screen.title(f"{phase}: {title}")
        began = time.monotonic()
        try:
            yield
        finally:
            self.phases.append((phase, time.monotonic() - began))

    def _raise_lab(self) -> None:
        try:
            self.lab.up()
        except LabError as error:
            raise DemoError(str(error), f".venv/bin/farrier lab status --name {LAB}") from error

    def _converge(self) -> None:
        environment = self._environment()
        if self.screen.plain:
            environment["PYINFRA_PROGRESS"] = "off"
        command = [str(Path(sys.executable).with_name("pyinfra")), "-y", *DEPLOY]
        done = subprocess.run(
            command, cwd=ROOT, env=environment, stdout=self.screen.descriptor, check=False
        )
        if done.returncode:
            raise DemoError(
                f"pyinfra ended with exit code {done.returncode}; its lines above name the host",
                f"FARRIER_ENV=lab .venv/bin/pyinfra -y -v {' '.join(DEPLOY)}",
            )

    def _environment(self) -> dict[str, str]:
        return os.environ | {"FARRIER_ENV": "lab", "FARRIER_LAB": LAB}

    def _chat(self) -> dict[str, Any]:
        chat = Chat(self.url, self._key(), MODEL, PROMPT)
        self.screen.word("   ")
        try:
            for text in chat:
                self.screen.word(printable(text))
        except AnswerError as error:
            self.screen.line("")
            raise DemoError(
                str(error),
                f".venv/bin/farrier lab ssh {self._one('gateway').name} --"
                " sudo journalctl -n 20 -o cat -t haproxy",
            ) from error
        first = chat.first or chat.seconds
        self.screen.line(
            f"\n   {chat.tokens or 'an unknown number of'} tokens in {chat.pieces} pieces,"
            f" the first after {first:.2f} s, the last after {chat.seconds:.2f} s, then [DONE]",
            style="dim",
        )
        return {
            "text": chat.text,
            "tokens": chat.tokens,
            "first_token_seconds": round(first, 3),
            "seconds": round(chat.seconds, 3),
        }

    def _key(self) -> str:
        try:
            keys = tomllib.loads(self.lab.keys_file.read_text(encoding="utf-8"))["keys"]
            return str(keys[KEY])
        except (OSError, tomllib.TOMLDecodeError, KeyError) as error:
            raise DemoError(
                f"no API key {KEY!r} in {self.lab.keys_file}: {error!r}",
                f".venv/bin/farrier lab up --name {LAB}",
            ) from error

    def _one(self, group: str) -> Host:
        return next(host for host in self.lab.hosts if group in host.groups)

    def _conclude(
        self, statuses: dict[str, Status], chat: dict[str, Any], targets: list[Target]
    ) -> None:
        self.screen.title("hosts and replicas")
        self.screen.table(HOST_COLUMNS, [row for h in self.lab.hosts for row in rows(h, statuses)])
        monitor = self._one("monitor")
        request = curl(self.url, self._key(), MODEL, PROMPT)
        self.screen.title("now you")
        self.screen.line(
            f"the key ({KEY}):\n\n    {self._key()}\n\na request to copy:\n\n    {request}\n"
        )
        self.screen.line("where to go next:\n")
        for command, meaning in NEXT:
            self.screen.line(f"    {command:44}{meaning}")
        self.screen.line(f"    {f'http://{monitor.address}:9090/targets':44}Prometheus")
        self.found |= {
            "hosts": [
                {
                    "name": host.name,
                    "address": str(host.address),
                    "groups": host.groups,
                    "suite": host.suite,
                    "replicas": [
                        {"name": r.name, "model": r.model, "engine": r.engine, "gate": r.gate}
                        for r in statuses[host.name].replicas
                    ],
                }
                for host in self.lab.hosts
            ],
            "chat": chat,
            "targets": [
                {"job": t.job, "instance": t.instance, "health": t.health} for t in targets
            ],
            "key": self._key(),
            "curl": request,
        }


DEPLOY = ["inventory", "deploys/llm.py"]
HOST_COLUMNS = ["host", "address", "groups", "replica", "engine", "model", "gate", "gpus"]
NEXT = [
    ("README.md", "your own hosts, from inventory/production.py on"),
    ("FARRIER_ENV=lab .venv/bin/farrier status", "hosts, replicas, verdicts, what is in flight"),
    (".venv/bin/farrier lab ssh gpu01", "look around on a host"),
    ("make test", "the same with every promise checked"),
    (".venv/bin/farrier lab down", "take the lab down; nothing of it stays"),
]


def rows(host: Host, statuses: dict[str, Status]) -> list[list[str]]:
    """*host*'s lines in the table, one for each of its replicas."""
    status = statuses[host.name]
    gpus = str(status.gpus.count) if status.gpus else "none"
    head = [host.name, str(host.address), ", ".join(host.groups)]
    if not status.replicas:
        return [[*head, "", "", "", "", gpus]]
    return [
        [*head, replica.name, replica.engine, replica.model, replica.gate or "unknown", gpus]
        for replica in status.replicas
    ]
