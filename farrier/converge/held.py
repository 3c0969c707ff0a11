"""Packages of one family at one version: installed as planned, held, and taken away again.

Whatever is about to happen is simulated first, with the arguments of the real thing, and judged by
:func:`objection`: a family that would pull another one along is refused before any change.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pyinfra import host
from pyinfra.api import FactBase

from farrier.converge.commands import Refuse, Script, in_words
from farrier.converge.packages import LOCK_TIMEOUT, explain_apt, waiting
from farrier.converge.questions import Question, answer
from farrier.converge.typed import operation
from farrier.nvidia.families import is_driver_package

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from farrier.converge.commands import Commands

__all__ = ["Family", "held_packages", "no_packages"]


@dataclass(frozen=True, slots=True)
class Family:
    """Packages that change together.

    *names* are asked for and have one version; *members* is a regular expression of all names that
    belong to them, dependencies included: those are held, and purged at a removal. *foreign* tells
    names that must not come along. *setting* is the inventory's datum with the version, *title*
    what they are called together.
    """

    names: tuple[str, ...]
    members: str
    setting: str
    title: str
    foreign: Callable[[str], bool] = is_driver_package

    def has(self, name: str) -> bool:
        """Whether the package *name* belongs to it."""
        return name in self.names or re.fullmatch(self.members, name) is not None


@dataclass(frozen=True, slots=True)
class FamilyState:
    """What a host has of a family: versions by name, what is held, what apt offers of names[0].

    *unfinished* are packages that dpkg has not configured. *offered* begins with the newest.
    """

    installed: Mapping[str, str] = field(default_factory=dict)
    held: frozenset[str] = frozenset()
    offered: tuple[str, ...] = ()
    unfinished: tuple[str, ...] = ()


class FamilyStates(FactBase[FamilyState | None]):
    """The :class:`FamilyState` of *family*; None when the host could not be asked."""

    def command(self, family: Family) -> str:
        """dpkg's whole list: members are told by a pattern that dpkg does not speak."""
        return (
            "dpkg-query -W -f 'package ${db:Status-Abbrev}|${Package}|${Version}\\n'\n"
            "apt-mark showhold | sed 's/^/held /'\n"
            f"apt-cache madison -- {shlex.quote(family.names[0])} 2>/dev/null"
            " | awk -F'|' '{ gsub(/ /, \"\", $2); print \"offered \" $2 }'"
        )

    @staticmethod
    def default() -> FamilyState | None:
        """Unknown."""
        return None

    def process(self, output: list[str]) -> FamilyState:
        """Parse what :meth:`command` printed; it lists all packages, of every family."""
        return parse_family(output)


def parse_family(output: Sequence[str]) -> FamilyState:
    """A :class:`FamilyState` from lines of a word and a value."""
    found = [line.partition(" ")[::2] for line in output]
    states = [value.split("|") for word, value in found if word == "package"]
    return FamilyState(
        # "ii ", "hi ": the second letter is the state, c and n are not installed
        installed={name: version for state, name, version in states if state[1] not in "cn"},
        held=frozenset(value.partition(":")[0] for word, value in found if word == "held"),
        offered=tuple(dict.fromkeys(value for word, value in found if word == "offered")),
        unfinished=tuple(name for state, name, _ in states if state[1] not in "cni"),
    )


def wanted_version(family: Family, asked: str | None, now: FamilyState) -> str:
    """The Debian version to have: *asked* may be the first parts of it (``1.18.0``, ``13.0``).

    The installed one where that fits, also where nothing is *asked*, else the newest that does.
    Raises :class:`LookupError` in words.
    """
    first = family.names[0]
    installed = now.installed.get(first)
    known = [*([installed] if installed else []), *now.offered]
    fits = [
        one for one in known if asked is None or re.match(rf"{re.escape(asked)}([-.~+]|$)", one)
    ]
    if fits:
        return fits[0]
    offers = ", ".join(now.offered) or "no version of it"
    raise LookupError(
        f"{first}: the inventory asks for {asked or 'any version'}, apt offers {offers}"
    )


@dataclass(frozen=True, slots=True)
class Step:
    """One line of a simulation: ``Inst``, ``Remv`` or ``Purg``, and versions, "" for none."""

    verb: str
    name: str
    before: str = ""
    after: str = ""


_STEP = re.compile(r"(Inst|Remv|Purg) ([^\s:]+)(?::\S+)?(?: \[([^\]]*)\])?(?: \((\S+))?")


def parse_simulation(output: Sequence[str]) -> tuple[Step, ...]:
    """The steps that ``apt-get -s`` printed; its Conf lines repeat them."""
    matches = (_STEP.match(line) for line in output)
    return tuple(Step(m[1], m[2], m[3] or "", m[4] or "") for m in matches if m)


def objection(family: Family, steps: Sequence[Step]) -> str:
    """Why the transaction must not be done, "" if it may."""
    for step in steps:
        ours = family.has(step.name)
        if step.verb != "Inst" and not ours:
            return f"{step.name} {step.before} would be removed"
        if step.verb == "Inst" and family.foreign(step.name) and not ours:
            return f"{step.name} {step.after} would come along, which another role looks after"
        if step.verb == "Inst" and step.before and not ours:
            return f"{step.name} would be changed from {step.before} to {step.after}"
    return ""


class Simulation(FactBase[tuple[bool, list[str]]]):
    """Whether ``apt-get -s`` with *arguments* found a solution, and what it printed."""

    def command(self, arguments: str) -> str:
        """Reads only."""
        return f"LC_ALL=C apt-get -s -q {arguments} 2>&1 && echo solved; true"

    @staticmethod
    def default() -> tuple[bool, list[str]]:
        """No solution."""
        return False, []

    def process(self, output: list[str]) -> tuple[bool, list[str]]:
        """Its last line tells."""
        return output[-1:] == ["solved"], output


def _family(family: Family, version: str | None = None) -> Question:  # noqa: ARG001
    return Question(FamilyStates, {"family": family})


@operation(asks=_family)
def held_packages(family: Family, version: str | None = None) -> Commands:
    """Install *family* at *version*, up or down, and hold every member that is installed.

    + family: the packages
    + version: with or without its Debian revision; None: the newest at first, then what is there
    """
    now: FamilyState | None = answer()
    if now is None:
        yield Refuse("the host could not be asked for its packages; see the line above")
        return
    try:
        wanted_version(family, version, now)
    except LookupError:
        yield _update(family)  # a bare host has no lists yet, another one old ones
        now = host.get_fact(FamilyStates, family=family) or now
    try:
        wanted = wanted_version(family, version, now)
    except LookupError as error:
        yield Refuse(
            f"{error}\nLook at: apt-cache policy {family.names[0]} on the host; then correct"
            f" {family.setting} in the inventory"
        )
        return
    missing = [name for name in family.names if now.installed.get(name) != wanted]
    unfinished = [name for name in now.unfinished if family.has(name)]
    members = {name for name in now.installed if family.has(name)}
    if missing or unfinished:
        asked = " ".join(shlex.quote(f"{name}={wanted}") for name in family.names)
        arguments = (
            "install -y --no-install-recommends --allow-change-held-packages --allow-downgrades"
            f" {asked}"
        )
        solved, said = host.get_fact(Simulation, arguments=arguments)
        steps = parse_simulation(said)
        # A dpkg that was interrupted has to be repaired before apt plans anything.
        refused = "" if unfinished else objection(family, steps)
        if not unfinished and (not solved or refused):
            why = refused or "\n".join(
                line for line in said if re.match(r"E:| \S| {2,}(Dep|Bre|Conf)", line)
            )
            yield Refuse(
                f"{family.title} {wanted} not installed, nothing was changed:\n{why}\n"
                f"Look at: apt-get -s {arguments}"
            )
            return
        members |= {step.name for step in steps if step.verb == "Inst" and family.has(step.name)}
        members -= {step.name for step in steps if step.verb != "Inst"}
        # apt takes the hold off what it is told to change.
        yield _transaction(family, arguments, then=_hold(members))
    elif unheld := members - now.held:
        yield Script(_hold(unheld), explain=in_words(f"{family.title} not held"))
    else:
        host.noop(f"{family.title} {wanted}: installed and held")


def _hold(names: Iterable[str]) -> str:
    return "apt-mark hold " + " ".join(shlex.quote(name) for name in sorted(names))


@operation(asks=_family)
def no_packages(family: Family) -> Commands:
    """Purge every member of *family* that is installed; what it pulled in besides stays.

    + family: the packages
    """
    now: FamilyState | None = answer()
    if now is None:
        yield Refuse("the host could not be asked for its packages; see the line above")
        return
    members = sorted(name for name in now.installed if family.has(name))
    if not members:
        host.noop(f"nothing of {family.title} is installed")
        return
    arguments = "purge -y --allow-change-held-packages " + " ".join(map(shlex.quote, members))
    _, said = host.get_fact(Simulation, arguments=arguments)
    steps = parse_simulation(said)
    others = [step.name for step in steps if step.verb != "Inst" and not family.has(step.name)]
    if others:
        yield Refuse(
            f"{family.title} not removed: {', '.join(others)} would go with it\n"
            f"Remove that first: apt-get purge {' '.join(others)}; then run the deploy again"
        )
        return
    yield _transaction(family, arguments)


def _transaction(family: Family, arguments: str, then: str = "") -> Script:
    lock_timeout = int(host.data.get("apt_lock_timeout", LOCK_TIMEOUT))
    return Script(
        f"""
export DEBIAN_FRONTEND=noninteractive NEEDRESTART_MODE=l NEEDRESTART_SUSPEND=1
{waiting(lock_timeout)}
unlocked dpkg --configure -a --force-confold
apt-get -q -o DPkg::Lock::Timeout={lock_timeout} -o Dpkg::Options::=--force-confold {arguments}
{then}
""",
        explain=lambda output: explain_apt(output, family.names),
    )


def _update(family: Family) -> Script:
    lock_timeout = int(host.data.get("apt_lock_timeout", LOCK_TIMEOUT))
    return Script(
        f"{waiting(lock_timeout)}\nunlocked apt-get -q update",
        explain=lambda output: explain_apt(output, family.names),
    )
