"""The alert and recording rules: static files, in which two words are filled in."""

from __future__ import annotations

from pathlib import Path

__all__ = ["RULES", "rule_texts"]

RULES = Path(__file__).parent / "rules"

_GPU = (
    'GPU {{ with printf "farrier_gpu_info{host=%q,uuid=%q}" $labels.host $labels.uuid | query }}'
    '{{ . | first | label "index" }}, {{ . | first | label "name" }}, {{ end }}{{ $labels.uuid }}'
)
"""Which GPU an alert is about. Looked up and not joined in the alert's expression: of a lost GPU
the identity may be unknown, and the alert has to come all the same."""


def rule_texts(runbooks: str) -> dict[str, str]:
    """The files by name; *runbooks* is the address under which docs/runbooks can be read."""
    return {
        f"farrier-{path.name}": path.read_text(encoding="utf-8")
        .replace("@RUNBOOKS@", runbooks.rstrip("/"))
        .replace("@GPU@", _GPU)
        for path in sorted(RULES.glob("*.yml"))
    }
