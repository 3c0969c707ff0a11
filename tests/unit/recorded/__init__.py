"""What fact scripts printed on real systems, one folder for each, and what was composed by hand.

Lines that begin with ``# `` say where a file is from; the rest is the script's output, word for
word but for the kernel's release and command line, which are the lab machine's own. To record anew:
``python -m tests.unit.recorded.record FOLDER "WHERE" -- ssh HOST sudo sh -s``.
"""

from __future__ import annotations

from pathlib import Path

__all__ = ["FACTS", "HERE", "lines_of", "recordings"]

HERE = Path(__file__).parent

FACTS = {
    "apt": "Apt",
    "containers": "Containers",
    "cuda": "Cuda",
    "driver": "Driver",
    "fabric": "Fabric",
    "kernel": "Kernels",
    "machine": "Machine",
    "pci": "Pci",
    "updates": "Updates",
}
"""Module of farrier.facts -> its fact."""


def recordings(fact: str = "*") -> list[Path]:
    """All files, or those of one fact."""
    return sorted(HERE.glob(f"*/{fact}.txt"))


def lines_of(path: Path) -> list[str]:
    """The output that a file holds."""
    return [line for line in path.read_text().splitlines() if not line.startswith("# ")]
