"""Where pyinfra has a host's data from: which file, and which line of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from pyinfra.api import Inventory

from farrier.spec.places import assignment_place, group_entry_place, host_entry_place
from farrier.spec.problems import Place

__all__ = ["Origin"]


class Origin:
    """Looks data up in pyinfra's order: command line, host, its groups (last one wins), all.

    *file* is the inventory file; *extra* are the directories given with ``--group-data``.
    """

    def __init__(self, inventory: Inventory, file: str, extra: Sequence[str] = ()) -> None:
        self.inventory = inventory
        self.file = file
        # the later directory overrides the earlier one, key by key
        beside = Path(file).parent / "group_data"
        self.directories = (*reversed(extra), str(beside), "group_data")

    def place(self, host: str, field: str) -> Place:
        """Where *field* of *host* was written; for data that is nowhere, the host's own line."""
        inventory = self.inventory
        if field in inventory.override_data:
            return Place(f"--data {field}")
        if field not in inventory.host_data.get(host, {}):
            for group, data in self._groups(host):
                if field in data:
                    return self._in_group(group, field)
        if not Path(self.file).is_file():
            return Place(self.file)
        return host_entry_place(self.file, host, field) or Place(self.file)

    def _groups(self, host: str) -> Iterator[tuple[str, dict[str, object]]]:
        for group in reversed(self.inventory.get_host(host).groups):
            yield group, self.inventory.group_data.get(group, {})
        yield "all", self.inventory.data

    def _in_group(self, group: str, field: str) -> Place:
        for directory in self.directories:
            # --group-data takes single files too
            path = Path(directory) if directory.endswith(".py") else Path(directory, f"{group}.py")
            if path.stem == group and (place := assignment_place(str(path), field)):
                return place
        return group_entry_place(self.file, group, field) or Place(self.file)
