"""What is wrong with an inventory, and where it was written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["NOWHERE", "Finding", "Place", "Problem", "SpecError", "report"]

Finding = tuple[str, str]
"""A field, relative to what was checked, and a message."""

HOSTS_NAMED = 4
"""So many hosts are named on one line; a problem in group data may concern hundreds."""


@dataclass(frozen=True, order=True)
class Place:
    """A spot in one of the operator's files; *line* counts from 1, and 0 means unknown."""

    file: str = ""
    line: int = 0

    def __str__(self) -> str:
        if not self.file:
            return "(inventory)"
        return f"{self.file}:{self.line}" if self.line else self.file


NOWHERE = Place()


@dataclass(frozen=True)
class Problem:
    """One thing that has to be put right before a host may be touched.

    ``field`` is a path as ``models[0].port``. ``message`` is for the operator and never holds a
    secret.
    """

    file: str
    line: int
    host: str
    field: str
    message: str

    @property
    def place(self) -> Place:
        """Where the field was written."""
        return Place(self.file, self.line)

    def to_json(self) -> dict[str, Any]:
        """This problem as plain JSON values."""
        return {
            "file": self.file,
            "line": self.line,
            "host": self.host,
            "field": self.field,
            "message": self.message,
        }


class SpecError(ValueError):
    """The inventory cannot be used; ``problems`` holds every reason, the text is :func:`report`."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__(report(problems))
        self.problems = problems


def report(problems: tuple[Problem, ...] | list[Problem]) -> str:
    """All *problems* as lines of plain text: place, hosts, field, message.

    What is written once in group data is reported once, with the hosts that it concerns.
    """
    merged: dict[tuple[Place, str, str], list[str]] = {}
    for problem in problems:
        hosts = merged.setdefault((problem.place, problem.field, problem.message), [])
        if problem.host and problem.host not in hosts:
            hosts.append(problem.host)
    rows = [
        (str(place), _named(hosts), f"{field}: {message}" if field else message)
        for (place, field, message), hosts in merged.items()
    ]
    places = max((len(place) for place, _, _ in rows), default=0)
    names = max((len(hosts) for _, hosts, _ in rows), default=0)
    count = f"{len(rows)} problem{'s' if len(rows) != 1 else ''}"
    lines = [f"{count} in the inventory, nothing was touched:"]
    lines += [f"  {place:<{places}}  {hosts:<{names}}  {text}" for place, hosts, text in rows]
    return "\n".join(lines)


def _named(hosts: list[str]) -> str:
    shown = ",".join(hosts[:HOSTS_NAMED])
    return f"{shown},+{len(hosts) - HOSTS_NAMED}" if len(hosts) > HOSTS_NAMED else shown
