"""Users and run-time directories, as systemd-sysusers and systemd-tmpfiles make them."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pyinfra import host
from pyinfra.api import FactBase

from farrier.converge.commands import Script, in_words
from farrier.converge.questions import Question, answer
from farrier.converge.typed import operation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from farrier.converge.commands import Commands

__all__ = ["Place", "no_empty_directory", "runtime"]


@dataclass(frozen=True, slots=True)
class Place:
    """A directory that tmpfiles.d makes; *mode* is octal digits. Its text is a line there."""

    path: str
    mode: int
    user: str
    group: str

    def __str__(self) -> str:
        return f"d {self.path} {self.mode:04} {self.user} {self.group} -"

    @property
    def stat(self) -> str:
        """What ``find -printf '%p %m %u %g'`` says of it."""
        return f"{self.path} {self.mode} {self.user} {self.group}"


class Amiss(FactBase[list[str]]):
    """What is not as it should be, in words."""

    def command(self, user: str, group: str, places: Sequence[Place], owned: Place) -> str:
        """A line for each directory as it is, the membership, and a file that is not *owned*'s."""
        paths = " ".join(shlex.quote(place.path) for place in places)
        found = (
            f"find {shlex.quote(owned.path)} -mindepth 1 -maxdepth 1 -type f ! -user"
            f" {shlex.quote(owned.user)} ! -perm -044 -printf '%p unreadable\\n' -quit 2>/dev/null"
        )
        return (
            f"find {paths} -maxdepth 0 -type d -printf '%p %m %u %g\\n' 2>/dev/null;"
            f" echo \"member $(id -nG {shlex.quote(user)} 2>/dev/null | tr ' ' '\\n'"
            f' | grep -Fx {shlex.quote(group)})"; {found}; true'
        )

    @staticmethod
    def default() -> list[str]:
        """The host could not be asked."""
        return []

    def process(self, output: list[str]) -> list[str]:
        """The lines."""
        return output


@operation(
    asks=lambda user, group, places, owned: Question(
        Amiss, {"user": user, "group": group, "places": places, "owned": owned}
    )
)
def runtime(user: str, group: str, places: Sequence[Place], owned: Place) -> Commands:
    """Apply sysusers.d and tmpfiles.d unless all that they declare is there, as they declare it.

    + user: an account that sysusers.d declares
    + group: a group that sysusers.d makes it a member of
    + places: the directories that tmpfiles.d declares
    + owned: the one of them in which earlier versions left files that only root can read
    """
    wanted = {place.stat for place in places} | {f"member {group}"}
    if set(answer()) == wanted:
        host.noop(f"{user} and its directories are there")
        return
    # -h: whoever owns the directory may have put a link to something else there meanwhile
    yield Script(
        "systemd-sysusers\nsystemd-tmpfiles --create /etc/tmpfiles.d/farrier.conf\n"
        f"find {shlex.quote(owned.path)} -mindepth 1 -maxdepth 1 -type f ! -perm -044"
        f" -exec chown -h {owned.user}:{owned.group} -- {{}} +",
        explain=in_words(f"{user} and its directories not made"),
    )


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
