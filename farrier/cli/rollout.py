"""``farrier rollout``: rolling changes that lose nothing."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any, TypeVar

import click
from rich.console import Console

from farrier.cli.amounts import Duration, Percent
from farrier.cli.rolling import WIDTH, as_line, begin, drive, errors, serving_fleet, show_ledger
from farrier.rollout.errors import RolloutError
from farrier.rollout.pages import rollouts_table
from farrier.rollout.preparing import every, find, go_on_with
from farrier.rollout.store import Store

__all__ = ["rollout"]

_F = TypeVar("_F", bound=Callable[..., Any])


@click.group()
def rollout() -> None:
    """Change a fleet host by host, without losing a request.

    Exit codes: 0 done, 1 failed or stopped, 2 wrong usage, 3 refused by a safety check.
    """


def _inventory(command: _F) -> _F:
    return click.option(
        "--inventory",
        default="inventory",
        show_default=True,
        help="As for pyinfra; the directory means inventory/$FARRIER_ENV.py.",
    )(command)


def _as_json(command: _F) -> _F:
    return click.option("--json", "as_json", is_flag=True, help="The ledger as JSON.")(command)


_OPTIONS = (
    click.option("--limit", multiple=True, help="Only these hosts: names, patterns, groups."),
    click.option("--model", "models", multiple=True, help="Only replicas of this model."),
    click.option("--pending", is_flag=True, help="Only what runs an older configuration."),
    click.option("--batch", default="1", show_default=True, metavar="N|P%", help="Hosts at once."),
    click.option(
        "--max-unavailable",
        type=click.IntRange(min=1),
        help="Never more replicas of one model not ready, for whatever reason.",
    ),
    click.option(
        "--max-in-flight",
        type=click.IntRange(min=1),
        default=256,
        show_default=True,
        help="What one replica is taken to carry while others are drained.",
    ),
    click.option("--first", multiple=True, metavar="HOST", help="The canary: before all others."),
    click.option("--allow-gap", is_flag=True, help="Also where a model is served by nobody else."),
    click.option(
        "--soak", type=click.FloatRange(min=0), default=0.0, metavar="S", help="Watch each so long."
    ),
    click.option("--deadline", type=click.FloatRange(min=0), metavar="S", help="Of each drain."),
    click.option(
        "--on-deadline",
        type=click.Choice(["extend", "abort", "force"]),
        help="Wait on, take the drain back and stop, or cut what still runs.",
    ),
    click.option(
        "--patience",
        type=click.FloatRange(min=0),
        default=900.0,
        show_default=True,
        metavar="S",
        help="How long to wait until the others have room.",
    ),
    click.option(
        "--lease",
        type=click.FloatRange(min=5, max=3600),
        default=60.0,
        show_default=True,
        metavar="S",
        help="After so long without a word from here hosts take their drains back.",
    ),
    click.option("--hook-before", type=click.Path(dir_okay=False), help="Run before each host."),
    click.option("--hook-after", type=click.Path(dir_okay=False), help="Run after each host."),
    click.option("--takeover", is_flag=True, help="Also where another rollout left it half done."),
    click.option("--dry", is_flag=True, help="Only show the plan."),
    click.option("-y", "--yes", is_flag=True, help="Do not ask."),
)


def _rolling(command: _F) -> _F:
    for option in reversed(_OPTIONS):
        command = option(command)
    return _inventory(_as_json(command))


_measure = click.option(
    "--measure",
    type=click.FloatRange(min=0, max=600),
    default=20.0,
    show_default=True,
    metavar="S",
    help="How long each replica is measured, before and after; 0: not.",
)
_tolerance = click.option(
    "--tolerance",
    type=Percent(),
    default="10%",
    show_default=True,
    metavar="P%",
    help="By how much a replica may be slower.",
)


@rollout.command()
@_rolling
def restart(**given: Any) -> None:
    """Restart engines."""
    begin("restart", given)


@rollout.command()
@_rolling
@click.option(
    "--canary",
    type=Percent(),
    metavar="P%",
    help="The first host gets so much of its models' traffic, and is compared with the rest.",
)
@click.option(
    "--hold", type=Duration(), metavar="TIME", help="For so long: 15m, 90s, 1h, or seconds."
)
def converge(**given: Any) -> None:
    """Converge hosts, and restart engines whose configuration changed.

    With --canary and --hold the first host is put back by itself where it is worse than the rest.
    """
    if (given["canary"] is None) != (given["hold"] is None):
        raise click.UsageError("--canary and --hold need each other: --canary 10% --hold 15m")
    given["hold"] = given["hold"] or 0.0
    begin("converge", given)


@rollout.command()
@_rolling
def rollback(**given: Any) -> None:
    """Put the engines' versions and arguments from before back."""
    begin("rollback", given)


@rollout.command()
@_rolling
@_measure
@_tolerance
def reboot(tolerance: int, **given: Any) -> None:
    """Reboot hosts, and compare each with how it was before it serves again.

    With --pending also those whose upgraded packages ask for it (/run/reboot-required). Refused
    where the next boot brings a kernel for which the driver is not built.
    """
    begin("reboot", given | {"tolerance": tolerance / 100})


@rollout.command()
@_rolling
@click.option("--to", "driver", metavar="VERSION", help="Another one than the inventory says.")
@_measure
@_tolerance
@click.option(
    "--no-way-back", is_flag=True, help="Also where the present driver could not be put back."
)
def driver(tolerance: int, **given: Any) -> None:
    """Change NVIDIA's driver.

    A host that fails a gate is put back to the driver from before, and the rollout stops.
    """
    begin("driver", given | {"tolerance": tolerance / 100})


@rollout.command(context_settings={"ignore_unknown_options": False})
@_rolling
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED, metavar="CMD…")
def run(command: tuple[str, ...], **given: Any) -> None:
    """Run CMD as root on each host while it is drained (behind --)."""
    begin("run", given, command)


@rollout.command()
@click.argument("rollout_id", metavar="[ID]", required=False)
@click.option("--run-again", is_flag=True, help="Run a command again where its end is not known.")
@click.option("--takeover", is_flag=True, help="Also where another rollout left it half done.")
@_inventory
@_as_json
def resume(
    rollout_id: str | None, run_again: bool, takeover: bool, inventory: str, as_json: bool
) -> None:
    """Go on with a rollout, also one that was begun on another machine [the newest unfinished]."""
    with errors(as_json=as_json):
        fleet = serving_fleet(inventory)
        ledger = find(Store(), fleet.hosts.values(), rollout_id)
        go_on_with(ledger)
        taken = fleet.hosts if takeover else ()
        drive(ledger, fleet, as_json=as_json, run_again=run_again, takeover=taken)


@rollout.command()
@click.argument("rollout_id", metavar="[ID]", required=False)
@_inventory
@_as_json
def abort(rollout_id: str | None, inventory: str, as_json: bool) -> None:
    """Give a rollout up: take back what is safe to take back [the newest unfinished]."""
    with errors(as_json=as_json):
        fleet = serving_fleet(inventory)
        hosts, store = fleet.hosts, Store()
        ledger = find(store, hosts.values(), rollout_id)
        if store.is_driven(ledger.id):
            click.echo(f"{ledger.id}: asking its process to stop after the present step", err=True)
            store.ask_to_abort(ledger.id)
            while store.is_driven(ledger.id):
                time.sleep(0.5)
            ledger = find(store, hosts.values(), ledger.id)
        if ledger.outcome == "done":
            show_ledger(ledger, as_json=as_json)
            return
        go_on_with(ledger)
        drive(ledger, fleet, as_json=as_json, give_up=True)


@rollout.command()
@click.argument("rollout_id", metavar="[ID]", required=False)
@click.option("--fleet", is_flag=True, help="Ask the hosts, too.")
@_inventory
@_as_json
def show(rollout_id: str | None, fleet: bool, inventory: str, as_json: bool) -> None:
    """Show a ledger [the newest]."""
    with errors(as_json=as_json):
        store = Store()
        newest = next(iter(store.all()), None)
        ledger = (store.load(rollout_id) if rollout_id else newest) if not fleet else None
        if ledger is None:
            if rollout_id is None and not fleet:
                raise RolloutError("no rollout in this directory", "farrier rollout show --fleet")
            ledger = find(store, serving_fleet(inventory).hosts.values(), rollout_id)
        show_ledger(ledger, as_json=as_json)


@rollout.command("list")
@click.option("--fleet", is_flag=True, help="Ask the hosts, too.")
@_inventory
@_as_json
def list_(fleet: bool, inventory: str, as_json: bool) -> None:
    """List rollouts."""
    with errors(as_json=as_json):
        ledgers = every(Store(), serving_fleet(inventory).hosts.values() if fleet else ())
        if as_json:
            for one in ledgers:
                click.echo(as_line(one))
        elif ledgers:
            width = None if sys.stdout.isatty() else WIDTH
            Console(soft_wrap=True, width=width).print(rollouts_table(ledgers))
        else:
            click.echo("no rollout in this directory; those that hosts know: --fleet")
