"""Operations beside the replicas themselves: their users, and what the inventory has forgotten."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from pyinfra import host
from pyinfra.api import FactBase

from farrier.converge.commands import Script, in_words
from farrier.converge.questions import Question, answer
from farrier.converge.report import note
from farrier.converge.typed import operation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from farrier.converge.commands import Commands

__all__ = ["accounts", "orphans"]


class Accounts(FactBase[set[str]]):
    """Names of the system's users."""

    def command(self, users: Sequence[str]) -> str:
        """One process for all of *users*."""
        return f"getent passwd {' '.join(map(shlex.quote, users))}; true"

    @staticmethod
    def default() -> set[str]:
        """None of them."""
        return set()

    def process(self, output: list[str]) -> set[str]:
        """The names."""
        return {line.partition(":")[0] for line in output}


@operation(asks=lambda users: Question(Accounts, {"users": users}, several="users"))
def accounts(users: Sequence[str]) -> Commands:
    """Create the system users *users*, whose home is of no use to anybody.

    + users: names
    """
    there = answer()
    missing = [user for user in users if user not in there]
    if not missing:
        host.noop(f"users are there: {', '.join(users)}")
    for user in missing:
        yield Script(
            f"useradd --system --user-group --home-dir /nonexistent --no-create-home"
            f" --shell /usr/sbin/nologin {shlex.quote(user)}",
            explain=in_words(f"user {user} not created"),
        )


class EngineUnits(FactBase[list[str]]):
    """Names of the engine units on the host."""

    def command(self) -> str:
        """No process but the shell."""
        return (
            "for unit in /etc/systemd/system/engine-*.service; do\n"
            '    [ ! -e "$unit" ] || echo "${unit##*/}"\n'
            "done"
        )

    @staticmethod
    def default() -> list[str]:
        """None."""
        return []

    def process(self, output: list[str]) -> list[str]:
        """The names."""
        return output


@operation(asks=lambda known: Question(EngineUnits, {}))  # noqa: ARG005
def orphans(known: Sequence[str]) -> Commands:
    """Note the engine units that the inventory no longer has; they keep serving.

    + known: names of the units that it has
    """
    for unit in answer():
        if unit not in known:
            note(
                "left",
                host.name,
                f"{unit} is not in the inventory any more and was left alone. To end it: sudo"
                f" systemctl disable --now {unit} && sudo rm /etc/systemd/system/{unit}",
            )
    host.noop("nothing is removed by a converge")
    yield from ()
