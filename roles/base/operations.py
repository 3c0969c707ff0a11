"""Users and run-time directories, as systemd-sysusers and systemd-tmpfiles make them."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from pyinfra import host
from pyinfra.api import FactBase

from farrier.converge.commands import Script, in_words
from farrier.converge.questions import Question, answer
from farrier.converge.typed import operation

if TYPE_CHECKING:
    from farrier.converge.commands import Commands

__all__ = ["no_empty_directory", "runtime"]


class Missing(FactBase[bool]):
    """Whether the user or the directory is missing."""

    def command(self, user: str, directory: str) -> str:
        """Prints a word if something is missing."""
        user, directory = shlex.quote(user), shlex.quote(directory)
        return f"{{ getent passwd {user} >/dev/null && [ -d {directory} ]; }} || echo missing"

    @staticmethod
    def default() -> bool:
        """Nothing is missing."""
        return False

    def process(self, output: list[str]) -> bool:
        """Whether the word was printed."""
        return output == ["missing"]


@operation(asks=lambda user, directory: Question(Missing, {"user": user, "directory": directory}))
def runtime(user: str, directory: str) -> Commands:
    """Apply sysusers.d and tmpfiles.d unless *user* and *directory* are there.

    + user: an account that sysusers.d declares
    + directory: the last directory that tmpfiles.d declares
    """
    if answer():
        yield Script(
            "systemd-sysusers\nsystemd-tmpfiles --create /etc/tmpfiles.d/farrier.conf",
            explain=in_words(f"{user} and {directory} not made"),
        )
    else:
        host.noop(f"{user} and {directory} are there")


class Empty(FactBase[bool]):
    """Whether *directory* is there and empty."""

    def command(self, directory: str) -> str:
        """Prints a word if it is."""
        return f"find {shlex.quote(directory)} -maxdepth 0 -type d -empty 2>/dev/null; true"

    @staticmethod
    def default() -> bool:
        """It is not."""
        return False

    def process(self, output: list[str]) -> bool:
        """Whether ``find`` found it so."""
        return bool(output)


@operation(asks=lambda directory: Question(Empty, {"directory": directory}))
def no_empty_directory(directory: str) -> Commands:
    """Remove *directory* if nothing is left in it, then those above it that held nothing else.

    + directory: an absolute path
    """
    if answer():
        yield Script(
            f"rmdir -p --ignore-fail-on-non-empty -- {shlex.quote(directory)}",
            explain=in_words(f"{directory} not removed"),
        )
    else:
        host.noop(f"{directory} is not there, or not empty")
