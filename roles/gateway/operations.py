"""Operations of this role alone: refuse what the inventory says wrongly, make empty files."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from pyinfra import host

from farrier.converge import Refuse
from farrier.converge.commands import Script, in_words
from farrier.converge.paths import PathStates
from farrier.converge.questions import Question, answer
from farrier.converge.typed import operation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from farrier.converge.commands import Commands

__all__ = ["fit", "present"]


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
