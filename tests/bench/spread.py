"""Medians, quantiles and spans of measured values, as text; pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median

__all__ = ["quantile", "span"]


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least *share* of *values* do not exceed (nearest rank).

    Raises ValueError for no values.
    """
    if not values:
        raise ValueError("nothing was measured")
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def span(values: Sequence[float], digits: int = 2, *, bold: bool = False) -> str:
    """The median of *values*, in brackets the smallest and the largest."""
    middle = f"{median(values):,.{digits}f}"
    middle = f"**{middle}**" if bold else middle
    if len(values) == 1:
        return middle
    return f"{middle} ({min(values):,.{digits}f} to {max(values):,.{digits}f})"
