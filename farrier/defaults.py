"""A role's documented defaults: the value and what it means, side by side.

A role's page under ``docs/roles`` is generated from them (``make docs``), so that no default is
undocumented and no documentation is of a default that is gone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["Default", "Defaults"]


@dataclass(frozen=True, slots=True)
class Default:
    """One datum of the inventory that a role reads; *meaning* is one or two plain sentences."""

    name: str
    value: Any
    meaning: str


@dataclass(frozen=True, slots=True)
class Defaults:
    """All data that the role *role* reads, with what it does in a sentence or two."""

    role: str
    purpose: str
    entries: tuple[Default, ...]

    def read(self, data: Any) -> dict[str, Any]:
        """What the inventory says in *data* (pyinfra's ``host.data``), else the default."""
        return {entry.name: data.get(entry.name, entry.value) for entry in self.entries}

    def data(self) -> dict[str, Any]:
        """The default values by name."""
        return {entry.name: entry.value for entry in self.entries}
