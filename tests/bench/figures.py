"""Medians, ratios and the tables of docs/benchmarks.md; pure."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from tests.bench.runs import Run

__all__ = ["ratios", "row", "table"]


def row(name: str, runs: Sequence[Run], against: Sequence[Run]) -> list[str]:
    """One line of the table of runs: medians with the span, and how many times *against* it is."""
    walls, cpu, hosts = ([getattr(run, of) for run in runs] for of in ("wall", "cpu", "hosts"))
    times = median(walls) / median(run.wall for run in against)
    return [
        name,
        str(len(runs)),
        f"**{median(walls):.2f}** ({min(walls):.2f} to {max(walls):.2f})",
        f"{median(cpu):.2f}",
        f"{median(hosts):.2f}",
        "1" if runs is against else f"**{times:.1f}**",
    ]


def ratios(farrier: Sequence[Run], rival: Sequence[Run]) -> str:
    """The ratio of each pair of neighbouring runs."""
    pairs = [b.wall / a.wall for a, b in zip(farrier, rival, strict=False)]
    return ", ".join(f"{pair:.1f}" for pair in pairs)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; every column but the first is right-aligned."""
    lines = [head, ["---", *("---:" for _ in head[1:])], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
