"""What the commands that speak with hosts have in common: options, the inventory, exit codes."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.shell_completion import CompletionItem

if TYPE_CHECKING:
    from rich.console import Console

    from farrier.fleet import FleetTargets
    from farrier.fleet.places import Place

__all__ = [
    "REFUSED",
    "USAGE",
    "chosen",
    "console",
    "fleet",
    "hosts_argument",
    "inventory_option",
    "json_option",
    "places_argument",
]

REFUSED = 3
USAGE = 2
"""Also what an agent that does not know a verb ends with."""
F = TypeVar("F", bound=Callable[..., Any])


def inventory_option(command: F) -> F:
    """``--inventory``, as for pyinfra."""
    return click.option(
        "--inventory",
        default="inventory",
        show_default=True,
        help="As for pyinfra; the directory means inventory/$FARRIER_ENV.py.",
    )(command)


def json_option(text: str) -> Callable[[F], F]:
    """``--json``, with *text* as its help."""
    return click.option("--json", "as_json", is_flag=True, help=text)


def hosts_argument(name: str = "limit", **settings: Any) -> Callable[[F], F]:
    """HOST…, completed from the last look at the inventory."""
    return click.argument(name, nargs=-1, shell_complete=_complete_hosts, **settings)


def places_argument() -> Callable[[F], F]:
    """HOST[/REPLICA]…, at least one."""
    return click.argument(
        "places",
        nargs=-1,
        required=True,
        metavar="HOST[/REPLICA]…",
        shell_complete=_complete_places,
    )


def _complete_hosts(
    ctx: click.Context, _param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    return _completed(ctx, incomplete, replicas=False)


def _complete_places(
    ctx: click.Context, _param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    return _completed(ctx, incomplete, replicas="/" in incomplete)


def _completed(ctx: click.Context, incomplete: str, *, replicas: bool) -> list[CompletionItem]:
    """Names that begin with what was typed; none before any command has read the inventory."""
    from farrier.fleet.names import remembered  # noqa: PLC0415

    names = remembered(str(ctx.params.get("inventory") or "inventory"), replicas=replicas)
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]


def fleet(inventory: str, limit: Iterable[str], *, as_json: bool) -> FleetTargets:
    """The inventory's hosts, or the end of the program with what is wrong with it."""
    from farrier.fleet import InventoryError, read_fleet_targets  # noqa: PLC0415
    from farrier.fleet.names import remember  # noqa: PLC0415

    try:
        found = read_fleet_targets(inventory, tuple(limit))
    except InventoryError as error:
        if as_json:
            click.echo(json.dumps({"error": str(error), "problems": error.problems}))
        click.echo(f"Error: {error}", err=True)
        sys.exit(error.code)
    remember(inventory, found)
    return found


def chosen(
    inventory: str, words: tuple[str, ...], *, as_json: bool, serving: bool = False
) -> tuple[FleetTargets, tuple[Place, ...]]:
    """The fleet and the places that *words* mean, or the end of the program.

    With *serving* only hosts that serve a model are meant.
    """
    from farrier.fleet.places import PlaceError, patterns, resolve  # noqa: PLC0415

    found = fleet(inventory, patterns(words), as_json=as_json)
    try:
        return found, resolve(words, found, serving=serving)
    except PlaceError as error:
        raise click.UsageError(str(error)) from error


def console(*, err: bool = False) -> Console:
    """Colours where somebody watches, plain lines of any length elsewhere."""
    from rich.console import Console  # noqa: PLC0415

    return Console(highlight=False, soft_wrap=True, stderr=err)
