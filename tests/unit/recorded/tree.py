"""A tree of /proc, /sys, /etc, … that stands for a machine, and stand-ins for its programs.

Fact scripts run against it as they do on a host: by ``sh``, with nothing else on PATH than common
text tools and the programs that a test gives it.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

from farrier.facts.roots import Roots

__all__ = ["Tree"]

TOOLS = (
    "awk base64 cat chown cut date df find getent grep head ls mktemp od printf readlink rm sed sh"
    " sort stat tail timeout tr uname"
)
"""What every Debian has; dpkg and apt are stand-ins where a test wants them."""


class Tree:
    """An empty machine under *root*, until a test puts something there."""

    def __init__(self, root: Path, kernel: str = "6.8.0-45-generic") -> None:
        self.root = root
        names = ("proc", "sys", "dev", "etc", "modules", "boot", "run", "usr", "var")
        for name in (*names, "bin"):
            (root / name).mkdir(parents=True)
        self.roots = Roots(**{name: str(root / name) for name in names}, kernel=kernel)
        for tool in TOOLS.split():
            if found := shutil.which(tool):
                (root / "bin" / tool).symlink_to(found)

    def write(self, path: str, text: str | bytes = "") -> Path:
        """A file, below the root, with all its directories."""
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(text, bytes):
            file.write_bytes(text)
        else:
            file.write_text(text)
        return file

    def link(self, path: str, target: Path | str) -> None:
        """A symbolic link, below the root."""
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.symlink_to(target)

    def program(self, name: str, script: str) -> None:
        """A stand-in for a program, as a shell script."""
        self.write(f"bin/{name}", f"#!/bin/sh\n{script}\n").chmod(0o755)

    def prints(self, name: str, text: str, status: int = 0) -> None:
        """A stand-in that always says the same."""
        said = self.write(f"said/{name}", text)
        self.program(name, f"cat {said}; exit {status}")

    def pci(
        self,
        address: str,
        ids: tuple[int, int],
        class_code: int,
        driver: str = "",
        *,
        numa: int = 0,
        below: str = "",
    ) -> Path:
        """A PCI function in sysfs, under the bridges *below* (``0000:00:01.0/0000:01:00.0``)."""
        at = f"sys/devices/pci0000:00/{below}/{address}".replace("//", "/")
        self.write(f"{at}/vendor", f"0x{ids[0]:04x}\n")
        self.write(f"{at}/device", f"0x{ids[1]:04x}\n")
        self.write(f"{at}/class", f"0x{class_code:04x}00\n")
        self.write(f"{at}/numa_node", f"{numa}\n")
        if driver:
            (self.root / f"sys/bus/pci/drivers/{driver}").mkdir(parents=True, exist_ok=True)
            self.link(f"{at}/driver", self.root / f"sys/bus/pci/drivers/{driver}")
        self.link(f"sys/bus/pci/devices/{address}", self.root / at)
        return self.root / at

    def lines(self, fact: Any, **arguments: Any) -> list[str]:
        """What the fact's script prints. Fails on an exit status, and on any complaint."""
        done = subprocess.run(
            [shutil.which("sh") or "sh", "-c", fact().command(self.roots, **arguments)],
            env={"PATH": str(self.root / "bin")},
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        assert done.stderr == ""
        return done.stdout.splitlines()

    def ask(self, fact: Any, **arguments: Any) -> Any:
        """The fact, as pyinfra would get it."""
        return fact().process(self.lines(fact, **arguments))
