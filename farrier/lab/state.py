"""What the lab keeps on the operator's disk, and the locks around it.

``/var/lib/farrier-lab/<lab>/`` (0700)::

    lab.json       hosts that were brought up
    keys.toml      API keys of the lab's clients
    ca.pem         the lab's certificate authority; gateway.pem: its gateways' certificate and key
    id_ed25519     the operator's SSH key; known_hosts, ssh_config: for ssh -F
    host_keys/     the hosts' SSH keys, made before their first boot
    hosts/<host>/  disk.json (what the disk was made from), upper, work, merged, console.log

Beside it ``ip_forward.json`` remembers what the first lab of this boot found.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from farrier.lab.errors import LabError

__all__ = ["STATE", "HostFiles", "LabFiles", "locked", "read_json", "write_private"]

STATE = Path(os.environ.get("FARRIER_LAB_STATE", "/var/lib/farrier-lab"))
"""Where all labs keep their disks and keys; FARRIER_LAB_STATE names another place."""

LOCK_PATIENCE = 900.0
"""Seconds that a command waits for another one: longer than a first ``up`` with nothing cached."""


class HostFiles:
    """Paths of one host's disk."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.upper = directory / "upper"
        self.work = directory / "work"
        self.merged = directory / "merged"
        self.made_from = directory / "disk.json"
        self.console = directory / "console.log"


class LabFiles:
    """Paths of one lab's state."""

    def __init__(self, name: str, state: Path = STATE) -> None:
        self.name = name
        self.directory = state / name
        self.lab = self.directory / "lab.json"
        self.api_keys = self.directory / "keys.toml"
        self.ca = self.directory / "ca.pem"
        self.gateway_certificate = self.directory / "gateway.pem"
        self.user_key = self.directory / "id_ed25519"
        self.known_hosts = self.directory / "known_hosts"
        self.ssh_config = self.directory / "ssh_config"
        self.host_keys = self.directory / "host_keys"
        self.hosts = self.directory / "hosts"
        self.lock = state / f"{name}.lock"

    def host(self, name: str) -> HostFiles:
        """Paths of the host called *name*."""
        return HostFiles(self.hosts / name)

    def hosts_up(self) -> list[str]:
        """Names of the hosts that were brought up and not taken down; none without a lab."""
        recorded = read_json(self.lab)
        hosts = recorded.get("hosts", {}) if recorded else {}
        return list(hosts)


def read_json(path: Path) -> dict[str, Any] | None:
    """The object in *path*; None when it is absent or was cut short by a power loss."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    return value if isinstance(value, dict) else None


def write_private(path: Path, text: str, mode: int = 0o600) -> None:
    """Write *text* to *path* at once or not at all, never readable by others meanwhile."""
    draft = path.with_name(f".{path.name}.draft")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        os.fchmod(file.fileno(), mode)
    draft.rename(path)


@contextmanager
def locked(path: Path, on_wait: Callable[[str], None] | None = None) -> Iterator[int]:
    """Hold the lock file *path*; its holder's pid stands in it, and it is removed afterwards.

    A second command waits, because what it would find half-way is of no use to it; *on_wait* hears
    for whom. Yields the descriptor: a child that inherits it holds the lock too. Raises
    :class:`LabError` after :data:`LOCK_PATIENCE`.
    """
    deadline = time.monotonic() + LOCK_PATIENCE
    said = False
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        except FileNotFoundError:  # the last lab to go took the directory with it just now
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 32, 0).decode().strip() or "unknown"
            os.close(descriptor)
            if time.monotonic() > deadline:
                raise LabError(f"{path}: still held by process {holder}: ps -p {holder}") from None
            if not said and on_wait:
                on_wait(f"waiting for process {holder}, which holds {path}")
                said = True
            time.sleep(0.1)
            continue
        # The holder before us removes the file: what we locked may no longer be what has the name.
        if _is_named(descriptor, path):
            break
        os.close(descriptor)
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield descriptor
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


def _is_named(descriptor: int, path: Path) -> bool:
    try:
        return path.stat().st_ino == os.fstat(descriptor).st_ino
    except FileNotFoundError:
        return False
