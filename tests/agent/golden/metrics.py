"""metrics.txt: name, type, unit and labels of every metric. ``python -m`` this writes it anew."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

from farrier_agent.metrics.page import Page, gather

from tests.agent.exposition import openmetrics_families
from tests.agent.full_status import full_extra, full_status, proc_tree

__all__ = ["GOLDEN", "described"]

GOLDEN = Path(__file__).parent / "metrics.txt"


def described(page: Page) -> str:
    """A line for each metric of the agent's own, from what a scraper of OpenMetrics sees."""
    return "".join(f"{line}\n" for line in sorted(_described(page)))


def _described(page: Page) -> Iterator[str]:
    for family in openmetrics_families(page.text("openmetrics").decode()):
        if ":" in family.name:
            continue  # an engine's
        name = f"{family.name}_total" if family.type == "counter" else family.name
        labels = {
            tuple(sorted(set(sample.labels) - {"le"}, key=list(sample.labels).index))
            for sample in family.samples
        }
        assert len(labels) == 1, f"{name}: labels differ between samples: {labels}"
        yield f"{name} {family.type} {family.unit or '-'} {','.join(labels.pop()) or '-'}"


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory:
        extra = full_extra(proc_tree(Path(directory) / "proc"))
        GOLDEN.write_text(described(gather(full_status(), extra)), encoding="utf-8")
