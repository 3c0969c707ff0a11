"""``farrier status``: the whole fleet in one look."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING

import click

from farrier.cli.hosts import console, fleet, hosts_argument, inventory_option, json_option

if TYPE_CHECKING:
    from farrier.fleet import FleetTargets, Shell
    from farrier.overview.rows import HostRow

__all__ = ["status"]

EVERY = 2.0
"""Seconds between two looks of --watch."""


@click.command()
@hosts_argument(metavar="[HOST]…")
@click.option("--watch", is_flag=True, help="Look again every two seconds, until Ctrl-C.")
@json_option("One JSON object per host and line.")
@click.option(
    "--timeout",
    default=15.0,
    show_default=True,
    metavar="SECONDS",
    help="How long a host may take to answer.",
)
@inventory_option
def status(
    limit: tuple[str, ...], watch: bool, as_json: bool, timeout: float, inventory: str
) -> None:
    """How every HOST of the inventory fares (names, patterns or groups; default: all).

    Asks all hosts side by side and changes nothing. Exit codes: 0 every host answered, however it
    fares; 1 one did not; 2 wrong usage.
    """
    hosts = fleet(inventory, limit, as_json=as_json)
    if not watch:
        sys.exit(_once(hosts, timeout, as_json=as_json))
    try:
        _watch(hosts, timeout, as_json=as_json)
    except KeyboardInterrupt:
        sys.exit(0)


def _once(hosts: FleetTargets, timeout: float, *, as_json: bool) -> int:
    rows = _look(hosts, timeout, {})
    _print(rows, as_json=as_json)
    return 1 if any(row.error for row in rows) else 0


def _watch(hosts: FleetTargets, timeout: float, *, as_json: bool) -> None:
    from rich.console import Group  # noqa: PLC0415
    from rich.live import Live  # noqa: PLC0415

    from farrier.overview.table import overview  # noqa: PLC0415

    shells: dict[str, Shell] = {}
    screen = console()
    if as_json or not screen.is_terminal:
        while True:
            _print(_look(hosts, timeout, shells), as_json=as_json)
            time.sleep(EVERY)
    with Live(console=screen, screen=True, auto_refresh=False) as live:
        while True:
            rows = _look(hosts, timeout, shells)
            at = time.strftime("%H:%M:%S")
            live.update(
                Group(*overview(rows), f"{at}, every {EVERY:g} s; Ctrl-C ends"), refresh=True
            )
            time.sleep(EVERY)


def _look(hosts: FleetTargets, timeout: float, shells: dict[str, Shell]) -> tuple[HostRow, ...]:
    from farrier.fleet import ask_all  # noqa: PLC0415
    from farrier.overview.drift import with_drift  # noqa: PLC0415
    from farrier.overview.look import look  # noqa: PLC0415
    from farrier.overview.rows import host_row  # noqa: PLC0415

    answers = ask_all(hosts, look, deadline=timeout, shells=shells)
    rows = [host_row(one.target, one.value, one.error, one.seconds) for one in answers]
    return with_drift(sorted(rows, key=lambda row: row.host), hosts)


def _print(rows: tuple[HostRow, ...], *, as_json: bool) -> None:
    from farrier.overview.table import overview  # noqa: PLC0415

    if as_json:
        for row in rows:
            click.echo(json.dumps(row.to_json()))
        return
    screen = console()
    for line in overview(rows):
        screen.print(line)
