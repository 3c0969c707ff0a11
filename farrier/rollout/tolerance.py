"""What is worse, and from how many answers on that can be said. Of soaks and canaries alike."""

from __future__ import annotations

__all__ = ["ENOUGH", "ERRORS", "MORE_ERRORS", "SLOWER", "SLOWER_SECONDS"]

ENOUGH = 20
"""Answers, on both sides of a comparison, without which times are not compared."""
ERRORS = frozenset({"500", "502", "504"})
"""What is an error of an engine; 503 is a closed gate, 4xx the client's."""
MORE_ERRORS = 0.02
"""The share of answers that may be errors above those of the other side."""
SLOWER = 1.5
"""So many times the median and the 95th percentile of the other side are too slow,"""
SLOWER_SECONDS = 0.1
"""and by so many seconds at least."""
