"""``farrier logs``: the journal of engines, agents or any unit, of many hosts in one stream."""

from __future__ import annotations

import json
import shlex
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import click

from farrier.cli.hosts import chosen, console, inventory_option, json_option, places_argument

if TYPE_CHECKING:
    from farrier.fleet import Done, Shell
    from farrier.fleet.places import Place
    from farrier.overview.entries import Entry

__all__ = ["logs"]

GATEWAY = "haproxy.service"


@click.command()
@places_argument()
@click.option("-f", "--follow", is_flag=True, help="Go on with what is logged, until Ctrl-C.")
@click.option(
    "-n", "--lines", default=100, show_default=True, type=click.IntRange(0), help="Of each unit."
)
@click.option("--agent", is_flag=True, help="The agent's journal instead of the engine's.")
@click.option("--unit", metavar="UNIT", help="That of any other unit, such as nginx.")
@json_option("One JSON object per line: host, unit, at, priority and message.")
@inventory_option
def logs(
    *,
    places: tuple[str, ...],
    follow: bool,
    lines: int,
    agent: bool,
    unit: str | None,
    as_json: bool,
    inventory: str,
) -> None:
    """What the engines of HOST, or of one REPLICA, logged; of a host without engines its HAProxy.

    Lines of several units come side by side, each with its host's name. Exit codes: 0 done; 1 a
    host could not be asked; 2 wrong usage.
    """
    if agent and unit:
        raise click.UsageError("--agent and --unit exclude one another")
    from farrier.fleet import ask_all  # noqa: PLC0415

    _, meant = chosen(inventory, places, as_json=as_json)
    of = {place.target.name: _units(place, "farrier-agent" if agent else unit) for place in meant}
    telling = _Telling(several=len(meant) > 1, at_once=follow, as_json=as_json)

    def question(shell: Shell) -> Done:
        host = shell.target.name
        command = shlex.join(_journalctl(of[host], lines, follow=follow))
        return shell.run(
            command,
            on_line=lambda line: telling.line(host, line),
            leash=follow,
        )

    failed = False
    errors = console(err=True)
    targets = [place.target for place in meant]
    try:
        for one in ask_all(targets, question, parallel=256, deadline=None if follow else 60.0):
            if one.value is None or one.value.code:
                failed = True
                said = one.error or f"{one.target.name}: {one.value and one.value.stderr.strip()}"
                errors.print(str(said), markup=False)
    except KeyboardInterrupt:
        sys.exit(0)
    telling.rest()
    sys.exit(1 if failed else 0)


def _units(place: Place, named: str | None) -> Sequence[str]:
    if named:
        return [named]
    return [one.unit for one in place.replicas] or [GATEWAY]


def _journalctl(units: Sequence[str], lines: int, *, follow: bool) -> Iterator[str]:
    yield from ("journalctl", "--no-pager", "--quiet", "--output=json", f"--lines={lines}")
    yield "--output-fields=MESSAGE,PRIORITY,_SYSTEMD_UNIT,UNIT,SYSLOG_IDENTIFIER"
    if follow:
        yield "--follow"
    for unit in units:
        yield f"--unit={unit}"


class _Telling:
    """Entries of all hosts as lines: *at_once*, or in the order of their times at the end."""

    def __init__(self, *, several: bool, at_once: bool, as_json: bool) -> None:
        self._several = several
        self._at_once = at_once
        self._as_json = as_json
        self._lock = threading.Lock()
        self._kept: list[Entry] = []

    def line(self, host: str, line: str) -> None:
        """One entry, as journalctl prints it."""
        from farrier.overview.entries import entry  # noqa: PLC0415

        one = entry(host, line)
        if one is None:
            return
        with self._lock:
            if self._at_once:
                self._print(one)
            else:
                self._kept.append(one)

    def rest(self) -> None:
        """Those that were kept."""
        for one in sorted(self._kept, key=lambda one: one.at):
            self._print(one)

    def _print(self, one: Entry) -> None:
        click.echo(json.dumps(one.to_json()) if self._as_json else one.shown(self._several))
