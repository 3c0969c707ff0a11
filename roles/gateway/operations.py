"""Operations of this role alone: refuse what the inventory says wrongly, put a drop-in in force."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from pyinfra import host
from pyinfra.api import FactBase

from farrier.converge import Refuse
from farrier.converge.commands import Script, in_words
from farrier.converge.paths import PathStates
from farrier.converge.questions import Question, answer
from farrier.converge.typed import operation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from farrier.converge.commands import Commands

__all__ = ["DropInPaths", "fit", "in_force", "present"]


@operation
def fit(problems: Sequence[str]) -> Commands:
    """Refuse the host for *problems* of the inventory, before anything is changed on it."""
    if problems:
        told = "\n".join(f"- {problem}" for problem in problems)
        yield Refuse(
            f"nothing of the gateway was changed on this host:\n{told}\n"
            "Put it right in the inventory, then run the deploy again"
        )
    else:
        host.noop("the gateway's data can be used")


@operation(asks=lambda *paths: Question(PathStates, {"paths": paths}, several="paths"))
def present(*paths: str) -> Commands:
    """Make empty files, root's alone, where there are none; what is there stays as it is."""
    found = answer() or {}
    missing = [shlex.quote(path) for path in paths if path not in found]
    if not missing:
        host.noop(f"{', '.join(paths)}: there")
        return
    yield Script(
        f"umask 077\nfor path in {' '.join(missing)}; do : >>$path; done",
        explain=in_words(f"{', '.join(missing)} not made"),
    )


class DropInPaths(FactBase[list[str]]):
    """The drop-ins of *unit* that systemd has read."""

    def command(self, unit: str) -> str:
        """One process."""
        return f"systemctl show -P DropInPaths -- {shlex.quote(unit)}"

    @staticmethod
    def default() -> list[str]:
        """None."""
        return []

    def process(self, output: list[str]) -> list[str]:
        """One line, paths between spaces."""
        return " ".join(output).split()


@operation(asks=lambda unit, path: Question(DropInPaths, {"unit": unit}))  # noqa: ARG005
def in_force(unit: str, path: str) -> Commands:
    """Have systemd read the drop-in *path* of *unit*.

    systemd 252 says NeedDaemonReload=no while the directory of a drop-in is new.
    """
    if path in answer():
        host.noop(f"{unit} has {path}")
        return
    yield Script("systemctl daemon-reload", explain=in_words("systemctl daemon-reload"))
