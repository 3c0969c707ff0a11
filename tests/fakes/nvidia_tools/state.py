"""The fake NVML's state file, as the stand-ins read and change it. Run as a script's neighbour."""

from __future__ import annotations

import os
import re
from pathlib import Path

# the defaults of tests/fakes/nvml/values.c that are shown here
DEFAULTS = {
    "name": "NVIDIA H200",
    "serial": "1650000000000",
    "vbios": "96.00.BC.00.01",
    "ecc.mode": "1",
    "ecc.pending": "1",
    "part": "692-2G520-0280-001",
}


class State:
    """The lines of the file; :meth:`save` replaces it whole."""

    def __init__(self) -> None:
        self.path = Path(os.environ.get("FAKE_NVML_STATE") or "/etc/fake-nvml.state")
        self.lines = self.path.read_text().splitlines()

    def get(self, key: str, otherwise: str = "") -> str:
        """The last line of *key* wins."""
        found = otherwise
        for line in self.lines:
            name, _, value = line.partition(" ")
            if name == key:
                found = value.strip()
        return found

    def of(self, gpu: int, attribute: str) -> str:
        """The attribute of a GPU: its own line, that of all, the default."""
        default = self.get(f"all.{attribute}", DEFAULTS.get(attribute, ""))
        return self.get(f"{gpu}.{attribute}", default)

    def gpus(self) -> list[int]:
        """The numbers of those that NVML enumerates."""
        count = int(self.get("count", "1"))
        return [one for one in range(count) if self.get(f"{one}.gone") != "1"]

    def uuid(self, gpu: int) -> str:
        """As the fake NVML makes it."""
        return self.of(gpu, "uuid") or f"GPU-fa4e0000-0000-4000-8000-{gpu:012x}"

    def bus(self, gpu: int) -> str:
        """As nvidia-smi writes it."""
        return (self.of(gpu, "pci") or f"00000000:{0x18 + 8 * gpu:02x}:00.0").upper()

    def meant(self, words: str) -> list[int]:
        """The GPUs of ``-i``: indices or UUIDs, with commas between."""
        found = []
        for word in words.split(","):
            found += [
                gpu
                for index, gpu in enumerate(self.gpus())
                if word in {str(index), self.uuid(gpu), self.bus(gpu)}
            ]
        return found

    def drop(self, pattern: str) -> None:
        """Forget the lines whose key is *pattern*, a regular expression."""
        self.lines = [
            line for line in self.lines if not re.fullmatch(pattern, line.partition(" ")[0])
        ]

    def put(self, key: str, value: str) -> None:
        """A line more, which wins."""
        self.lines.append(f"{key} {value}")

    def save(self) -> None:
        """Replace the file."""
        fresh = self.path.with_name(self.path.name + ".smi")
        fresh.write_text("\n".join(self.lines) + "\n")
        fresh.replace(self.path)
