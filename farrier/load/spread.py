"""How values are spread: quantiles by nearest rank, so that each is one that was measured; pure."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["Spread"]


@dataclass(frozen=True)
class Spread:
    """Values in order; without any, every quantile is None."""

    values: tuple[float, ...]

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        """The spread of *values*."""
        return cls(tuple(sorted(values)))

    def quantile(self, share: float) -> float | None:
        """The smallest value that at least *share* of them do not exceed."""
        if not self.values:
            return None
        return self.values[max(0, math.ceil(share * len(self.values)) - 1)]

    def to_json(self) -> dict[str, float | int]:
        """Number, quantiles and the largest, in seconds."""
        named = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}
        found = {name: self.quantile(share) for name, share in named.items()}
        told = {name: round(value, 6) for name, value in found.items() if value is not None}
        return {"number": len(self.values), **told}
