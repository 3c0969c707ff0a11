"""The hosts' names as the inventory had them when it was last read: for a shell's completion.

Reading an inventory takes a second, and runs what it holds; pressing a key should do neither.
"""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from pathlib import Path

from farrier.fleet.target import FleetTargets

__all__ = ["remember", "remembered"]


def remember(inventory: str, fleet: FleetTargets) -> None:
    """Keep the names of *fleet*; that it could not is no reason to fail."""
    hosts = [target.name for target in fleet.every]
    replicas = [f"{target.name}/{one.replica}" for target in fleet.every for one in target.replicas]
    file = _file(inventory)
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        new = file.with_suffix(f".{os.getpid()}")
        new.write_text(json.dumps({"hosts": hosts, "replicas": replicas}), encoding="utf-8")
        new.replace(file)


def remembered(inventory: str, *, replicas: bool = False) -> list[str]:
    """The hosts' names, or those of their replicas (``HOST/REPLICA``); empty when not known."""
    try:
        kept = json.loads(_file(inventory).read_text(encoding="utf-8"))
        return [str(name) for name in kept["replicas" if replicas else "hosts"]]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _file(inventory: str) -> Path:
    """One for each inventory and environment, under XDG_CACHE_HOME."""
    which = (str(Path(inventory).absolute()), os.environ.get("FARRIER_ENV", ""))
    name = hashlib.sha256("\0".join(which).encode()).hexdigest()[:16]
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(cache).expanduser() / "farrier" / f"hosts-{name}.json"
