"""A directory in which nothing else may lie: what an earlier run wrote and this one does not."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from pyinfra import host
from pyinfra.api import FactBase

from farrier.converge.commands import Script, in_words
from farrier.converge.paths import mark
from farrier.converge.questions import Question, answer
from farrier.converge.typed import operation

if TYPE_CHECKING:
    from collections.abc import Collection

    from farrier.converge.commands import Commands

__all__ = ["Listing", "no_others"]


class Listing(FactBase[list[str]]):
    """The names in *directory*; none where there is no such directory."""

    def command(self, directory: str) -> str:
        """One process."""
        return f"ls -A -- {shlex.quote(directory)} 2>/dev/null; true"

    @staticmethod
    def default() -> list[str]:
        """None."""
        return []

    def process(self, output: list[str]) -> list[str]:
        """A line for each."""
        return output


def _listing(directory: str, *_: object, **__: object) -> Question:
    return Question(Listing, {"directory": directory})


@operation(asks=_listing)
def no_others(
    directory: str, keep: Collection[str], *, prefix: str = "", applied: str | None = None
) -> Commands:
    """Remove the files of *directory* whose names begin with *prefix* and are not in *keep*.

    + directory: where
    + keep: names that stay
    + prefix: names that are ours
    + applied: as for :func:`farrier.converge.paths.tree`
    """
    others = [name for name in answer() if name.startswith(prefix) and name not in keep]
    if not others:
        host.noop(f"nothing else of ours is in {directory}")
        return
    if applied:
        yield Script(
            f"rm -f {shlex.quote(mark(applied))}", explain=in_words(f"{mark(applied)} not removed")
        )
    paths = " ".join(shlex.quote(f"{directory}/{name}") for name in others)
    yield Script(f"rm -f -- {paths}", explain=in_words(f"{paths} not removed"))
