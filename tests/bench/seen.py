"""The tables of the agent's section: what was seen of each program, in words and figures. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

from tests.bench.figures import table
from tests.bench.footprint import Memory
from tests.bench.scraping import Scrape
from tests.bench.spread import quantile, span

__all__ = ["AGENT", "EXPORTER", "NVML", "PYTHON", "Seen", "compared", "growth"]

AGENT = "**the agent, both processes**"
PYTHON = "of it: the agent"
NVML = "of it: its NVML worker"
EXPORTER = "prometheus-node-exporter"

WORDS: Mapping[str, str] = {
    "bench-agent-imports": "the agent's dependencies, imported and doing nothing",
    "bench-worker-imports": "the worker's, the same",
    "bench-bare": "a Python interpreter that does nothing",
}


@dataclass
class Seen:
    """One program: its memory at each look, CPU seconds of each minute, its scrapes."""

    memory: list[Memory] = field(default_factory=list)
    minutes: list[float] = field(default_factory=list)
    scrapes: list[Scrape] = field(default_factory=list)

    @property
    def core(self) -> float:
        """The share of one core that it took."""
        return sum(self.minutes) / (60 * len(self.minutes))

    @property
    def share(self) -> float:
        """Its PSS in MiB, the median."""
        return median(one.share for one in self.memory)


def compared(seen: Mapping[str, Seen], alone: Mapping[str, Seen], minutes: int) -> str:
    """Everything side by side, and what it comes to."""
    head = ["", "USS, MiB", "PSS, MiB", "RSS, MiB", "share of a core", "without clients"]
    rows = []
    for name, one in seen.items():
        runs = name not in WORDS
        rows.append(
            [
                WORDS.get(name, name),
                span([look.unique for look in one.memory], 1),
                span([look.share for look in one.memory], 1, bold=name == AGENT),
                span([look.resident for look in one.memory], 1),
                _percent(one, bold=name == AGENT) if runs else "",
                _percent(alone[name]) if runs else "",
            ]
        )
    mine, rival = seen[AGENT], seen[EXPORTER]
    idle = sum(seen[name].share for name in WORDS if name != "bench-bare")
    first, last = mine.memory[0], mine.memory[-1]
    return "\n\n".join(
        [
            table(head, rows),
            f"Medians of {len(mine.memory)} looks, or shares of {minutes} minutes; in brackets the"
            " smallest and the largest look or minute. The agent takes"
            f" {mine.core / rival.core:.1f} times the node exporter's CPU time and"
            f" {mine.share / rival.share:.2f} times its PSS, of which {idle:.1f} MiB are"
            " dependencies that are only imported. From the first look to the last its USS went"
            f" from {first.unique:.2f} to {last.unique:.2f} MiB.",
            _of_scrapes({name: seen[name] for name in (AGENT, EXPORTER)}),
        ]
    )


def _of_scrapes(seen: Mapping[str, Seen]) -> str:
    head = ["a scrape", "scrapes", "p50, ms", "p99, ms", "slowest, ms"]
    rows = []
    for name, one in seen.items():
        page = one.scrapes[-1]
        figures = [f"{value:.2f}" for value in _times(one.scrapes)]
        if name == AGENT:
            figures[:2] = [f"**{value}**" for value in figures[:2]]
        samples = f"{page.samples:,}" + (f" ({page.engines:,})" if page.engines else "")
        rows.append([name, str(len(one.scrapes)), *figures, samples, _size(page)])
    return table([*head, "samples (the engines')", "page (gzip), KiB"], rows)


def growth(grown: Mapping[int, Mapping[str, Seen]]) -> str:
    """A row for each number of GPUs."""
    head = [
        "GPUs",
        "PSS, MiB",
        "of it the worker's",
        "share of a core",
        "of it the worker's",
        "scrape p50, ms",
        "p99, ms",
        "samples",
        "page (gzip), KiB",
    ]
    rows = []
    for count, seen in grown.items():
        mine, worker = seen[AGENT], seen[NVML]
        page = mine.scrapes[-1]
        rows.append(
            [
                str(count),
                f"{mine.share:.1f}",
                f"{worker.share:.1f}",
                f"{mine.core:.2%}",
                f"{worker.core:.2%}",
                *(f"{value:.2f}" for value in _times(mine.scrapes)[:2]),
                f"{page.samples:,}",
                _size(page),
            ]
        )
    minutes = max(len(seen[AGENT].minutes) for seen in grown.values())
    return "\n\n".join(
        [
            f"How it grows with the GPUs, {minutes} minutes of each, the agent started anew and all"
            " replicas on the first GPU:",
            table(head, rows),
        ]
    )


def _percent(one: Seen, *, bold: bool = False) -> str:
    middle = f"**{one.core:.2%}**" if bold else f"{one.core:.2%}"
    return f"{middle} ({min(one.minutes) / 60:.2%} to {max(one.minutes) / 60:.2%})"


def _times(scrapes: Sequence[Scrape]) -> tuple[float, float, float]:
    millis = [one.seconds * 1e3 for one in scrapes]
    return quantile(millis, 0.5), quantile(millis, 0.99), max(millis)


def _size(page: Scrape) -> str:
    return f"{page.unpacked / 1024:.0f} ({page.sent / 1024:.0f})"
