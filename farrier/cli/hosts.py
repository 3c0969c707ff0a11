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

__all__ = ["HOSTS", "REFUSED", "Places", "console", "fleet", "inventory_option", "json_option"]

REFUSED = 3
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


class Places(click.ParamType[str]):
    """HOST, or HOST/REPLICA; completed from the last look at the inventory."""

    name = "host"

    def __init__(self, *, replicas: bool = False) -> None:
        self._replicas = replicas

    def shell_complete(
        self, ctx: click.Context, _param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Names that begin with what was typed; none before any command has read the inventory."""
        from farrier.fleet.names import remembered  # noqa: PLC0415

        inventory = str(ctx.params.get("inventory") or "inventory")
        names = remembered(inventory, replicas=self._replicas and "/" in incomplete)
        return [CompletionItem(name) for name in names if name.startswith(incomplete)]


HOSTS = Places()


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


def console(*, err: bool = False) -> Console:
    """Colours where somebody watches, plain lines of any length elsewhere."""
    from rich.console import Console  # noqa: PLC0415

    return Console(highlight=False, soft_wrap=True, stderr=err)
