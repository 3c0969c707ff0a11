"""The stand-in repositories as a test sees them: started as a program, asked, ended."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

__all__ = ["StandIn", "started"]


@dataclass(frozen=True)
class StandIn:
    """A running one. *fingerprints* are those of its keys, by kind (:data:`.signing.KINDS`)."""

    url: str
    proxy: str
    behind_proxy: str
    fingerprints: Mapping[str, str]
    debs: Path
    process: subprocess.Popen[str]

    def asked(self) -> list[str]:
        """The URLs that the proxy was asked for since the last time."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return cast("list[str]", json.loads(self.process.stdout.readline()))

    def repository(self, kind: str = "good") -> dict[str, Any]:
        """The inventory's data that make a host use NVIDIA's layout signed by this kind of key."""
        return {
            "nvidia_repo_url": f"{self.url}/{kind}/{{distro}}/{{arch}}",
            "nvidia_repo_fingerprint": self.fingerprints[kind],
        }


@contextmanager
def started(address: str, seconds: int = 1800) -> Iterator[StandIn]:
    """Start one that listens on *address*, which is the operator's end of a lab's bridge.

    It ends by itself after *seconds*.
    """
    words = ["--address", address, "--seconds", str(seconds)]
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.fakes.nvidia_repo", *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, "the stand-in repositories did not start; see above"
        said = json.loads(line)
        yield StandIn(**{**said, "debs": Path(said["debs"])}, process=process)
    finally:
        process.communicate("", timeout=30)
