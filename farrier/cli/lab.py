"""``farrier lab``: real hosts on this machine, up, down, looked at and logged in to."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict

import click
from rich.console import Console
from rich.table import Table

from farrier.lab import HostState, Lab, LabError
from farrier.lab.definitions import LABS

_name = click.option(
    "--name",
    envvar="FARRIER_LAB",
    default="demo",
    show_default=True,
    type=click.Choice(list(LABS)),
    help="Which lab; also by FARRIER_LAB.",
)


@contextmanager
def _errors() -> Iterator[None]:
    try:
        yield
    except LabError as error:
        click.echo(f"farrier lab: {error}", err=True)
        sys.exit(1)


@click.group()
def lab() -> None:
    """Real hosts on this machine: systemd, sshd, apt and an address each."""


@lab.command()
@_name
@click.option("--hosts", metavar="HOST,…", help="Only these hosts of the lab.")
def up(name: str, hosts: str | None) -> None:
    """Bring a lab up; what is up already is verified and left alone."""
    with _errors():
        it = Lab.open(name, report=click.echo)
        it.up(hosts.split(",") if hosts else None)


@lab.command()
@_name
@click.option(
    "--keep", is_flag=True, help="Shut down in order; keep disks and keys for the next up."
)
def down(name: str, keep: bool) -> None:
    """Take a lab down and leave nothing of it behind but the cached base trees."""
    with _errors():
        Lab.open(name, report=click.echo).down(keep=keep)


@lab.command()
@_name
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def status(name: str, as_json: bool) -> None:
    """Show every host; exit 1 unless all that were brought up run well."""
    with _errors():
        it = Lab.open(name)
        states = it.status()
        expected = {host.name for host in it.hosts}
    if as_json:
        facts = [asdict(state) | {"address": str(state.address)} for state in states]
        click.echo(json.dumps({"lab": name, "network": str(it.network), "hosts": facts}, indent=2))
    else:
        Console().print(_table(name, states))
    if not expected or any(s.name in expected and s.system != "running" for s in states):
        sys.exit(1)


@lab.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@_name
@click.argument("host")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def ssh(name: str, host: str, command: tuple[str, ...]) -> None:
    """Log in to HOST as its sudo user, or run COMMAND there."""
    with _errors():
        it = Lab.open(name)
        it.definition.select([host])
        if not os.access(it.ssh_config, os.R_OK):
            raise LabError(
                f"{it.ssh_config}: not there or not readable\n"
                f"  run, as root: farrier lab up --name {name}"
            )
    os.execvp("ssh", ["ssh", "-F", str(it.ssh_config), host, *command])  # noqa: S606


def _table(name: str, states: list[HostState]) -> Table:
    table = Table(title=f"lab {name}", title_justify="left")
    for column in ("host", "address", "suite", "groups", "machine", "ssh", "system", "up"):
        table.add_column(column, no_wrap=column not in {"groups", "system"})
    for state in states:
        system = " ".join((state.system or "-", *state.failed_units))
        up_for = f"{state.uptime:.0f} s" if state.uptime is not None else "-"
        table.add_row(
            state.name,
            str(state.address),
            state.suite,
            ", ".join(state.groups),
            "runs" if state.booted else "off",
            "ok" if state.ssh else "-",
            system,
            up_for,
        )
    return table
