"""Systemd units: enabled, running, and running with what is on the disk.

Whether a running service still has to be told about changed files is not remembered by the run
that changed them (it may be killed in between) but on the host: :func:`farrier.converge.paths.tree`
removes the service's mark before its first change, and the mark is set again only after the reload
or restart succeeded. Whether systemd has to re-read a unit file, systemd says itself, but for one
case: systemd 252 (Debian 12) does not notice a drop-in whose directory is new, so that the drop-ins
that it has read are held against :func:`drop_in`.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pyinfra import host
from pyinfra.api import FactBase

from farrier.converge.commands import Refuse, Script, in_words, last_lines
from farrier.converge.paths import mark
from farrier.converge.questions import Question, answer
from farrier.converge.typed import operation

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pyinfra.api.command import PyinfraCommand

    from farrier.converge.commands import Commands

__all__ = ["Unit", "UnitState", "UnitStates", "drop_in", "units"]

RUNNING = frozenset({"active", "reloading", "activating"})
"""States in which a unit is not started again: an engine that is loading is not down."""


def drop_in(unit: str) -> str:
    """Where our own addition to the distribution's *unit* stands; :func:`units` looks there."""
    return f"/etc/systemd/system/{unit}.d/farrier.conf"


@dataclass(frozen=True, slots=True)
class Unit:
    """A unit that has to be enabled and running.

    *apply* says what makes a running one take changed files: ``reload``, ``restart``, or ``never``
    (engines: a converge never interrupts service). *check* is a shell command that has to succeed
    before that. *stopped* asks for the opposite: stopped and disabled.

    *mark* names the mark of :func:`farrier.converge.paths.tree`, where it is not the unit's own: a
    service that has to be restarted for some of its files and reloaded for others stands here
    twice, each time with another mark.
    """

    name: str
    apply: str = "never"
    check: str | None = None
    stopped: bool = False
    mark: str | None = None


@dataclass(frozen=True, slots=True)
class UnitState:
    """What systemd says of a unit, whether its own mark is set, and which *marks* there are."""

    load: str
    active: str
    enabled: str
    stale: bool
    applied: bool
    marks: frozenset[str] = field(default=frozenset(), compare=False)


class UnitStates(FactBase[dict[str, UnitState] | None]):
    """The state of each of the units *names*; None when the host could not be asked."""

    def command(self, names: Sequence[str]) -> str:
        """One ``systemctl show`` for all."""
        quoted = " ".join(shlex.quote(name) for name in names)
        drop_ins = " ".join(shlex.quote(drop_in(name)) for name in names)
        properties = "Id,LoadState,ActiveState,UnitFileState,NeedDaemonReload,DropInPaths"
        return (
            f"systemctl show -p {properties} -- {quoted}; echo ==;"
            f" ls -d {mark('*')} {drop_ins} 2>/dev/null; true"
        )

    @staticmethod
    def default() -> dict[str, UnitState] | None:
        """Unknown."""
        return None

    def process(self, output: list[str]) -> dict[str, UnitState]:
        """Parse what :meth:`command` printed."""
        return parse_units(output)


def parse_units(output: Sequence[str]) -> dict[str, UnitState]:
    """Parse ``systemctl show``'s blocks, a line ``==``, and the marks and drop-ins that exist."""
    border = output.index("==")
    there = frozenset(output[border + 1 :])
    marks = frozenset(path for path in there if path.startswith(mark("")))
    states = {}
    for block in "\n".join(output[:border]).split("\n\n"):
        values = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        if values:
            states[values["Id"]] = UnitState(
                load=values["LoadState"],
                active=values["ActiveState"],
                enabled=values.get("UnitFileState", ""),
                stale=values.get("NeedDaemonReload") == "yes" or _unread(values, there),
                applied=mark(values["Id"]) in marks,
                marks=marks,
            )
    return states


def _unread(values: Mapping[str, str], there: frozenset[str]) -> bool:
    """Whether our drop-in of a loaded unit is on the disk, and systemd has not read it."""
    path = drop_in(values["Id"])
    read = values.get("DropInPaths", "").split()
    return values["LoadState"] == "loaded" and path in there and path not in read


def _names(*wanted: Unit) -> Question:
    return Question(UnitStates, {"names": [unit.name for unit in wanted]}, several="names")


@operation(asks=_names)
def units(*wanted: Unit) -> Commands:
    """Make every unit so; a unit that fails to start shows its last journal lines.

    + wanted: the units, in the order in which they are started
    """
    found: dict[str, UnitState] | None = answer()
    if found is None:
        yield Refuse("the host could not be asked for its units; see the line above")
        return
    states = {unit.name: found.get(unit.name) or _NOT_LOADED for unit in wanted}
    commands = in_order(wanted, states)
    if any(now.stale for now in states.values()):
        commands.insert(
            0, Script("systemctl daemon-reload", explain=in_words("systemctl daemon-reload"))
        )
    if not commands:
        host.noop(f"units are as they should be: {', '.join(unit.name for unit in wanted)}")
    yield from commands


def in_order(wanted: Sequence[Unit], states: Mapping[str, UnitState]) -> list[PyinfraCommand]:
    """What makes each of *wanted* so, whose units are in *states* now."""
    commands: list[PyinfraCommand] = []
    begun: set[str] = set()
    for unit in wanted:
        now = states[unit.name]
        commands += _changes(unit, now, begun=unit.name in begun)
        if not unit.stopped and (
            now.active not in RUNNING or (unit.apply == "restart" and not _applied(unit, now))
        ):
            begun.add(unit.name)
    return commands


_NOT_LOADED = UnitState("not-found", "inactive", "", stale=False, applied=False)


def _applied(unit: Unit, now: UnitState) -> bool:
    return now.applied if unit.mark is None else mark(unit.mark) in now.marks


def _changes(unit: Unit, now: UnitState, *, begun: bool = False) -> Commands:
    """What makes *unit* so; *begun*: this run has started or restarted it a moment ago.

    What has just begun reads what is on the disk, and is not to be reloaded: a SIGHUP before the
    program handles it ends it (seen with Alertmanager 0.25, half a second after its start).
    """
    name = shlex.quote(unit.name)
    if unit.stopped:
        if now.load != "not-found" and (now.active in RUNNING or now.enabled == "enabled"):
            yield Script(
                f"systemctl disable --now {name}", explain=in_words(f"{unit.name} not stopped")
            )
        return
    if now.enabled not in {"enabled", "static", "alias", "indirect", "generated"}:
        yield _command(unit, f"systemctl enable {name}")
    its_mark = mark(unit.mark or unit.name)
    set_mark = f"mkdir -p {shlex.quote(mark('.'))}\ntouch {shlex.quote(its_mark)}"
    if begun:
        if not _applied(unit, now):
            yield Script(set_mark, explain=in_words(f"{its_mark} not set"))
    elif now.active not in RUNNING:
        # What is started now reads what is on the disk now.
        yield _command(
            unit, f"systemctl reset-failed {name} 2>/dev/null || true\nsystemctl start {name}"
        )
        if unit.apply != "never":
            yield Script(set_mark, explain=in_words(f"{its_mark} not set"))
    elif unit.apply != "never" and not _applied(unit, now):
        yield _command(unit, f"systemctl {unit.apply} {name}\n{set_mark}")


def _command(unit: Unit, action: str) -> PyinfraCommand:
    name = shlex.quote(unit.name)
    check = f"{unit.check} >&2\n" if unit.check else ""
    journal = f"journalctl -q -u {name} --since=@$since --no-pager -o cat | tail -n 20 >&2"
    return Script(
        f"{check}since=$(date +%s)\ntrap '[ $? = 0 ] || {journal}' EXIT\n{action}",
        explain=lambda output: (
            f"{unit.name} could not be brought into service:\n{last_lines(output)}\n"
            f"Look at: systemctl status {unit.name}; journalctl -u {unit.name} -e; then run the"
            " deploy again"
        ),
    )
