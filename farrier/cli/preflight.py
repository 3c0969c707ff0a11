"""``farrier preflight``: a verdict per host, its reasons, and for each the line that repairs it."""

from __future__ import annotations

import json
import logging
import sys
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rich.text import Text

    from farrier.preflight.hosts import Site
    from farrier.preflight.verdict import Reason, State, Verdict

__all__ = ["preflight"]

REFUSED, NOT_LOOKED_AT = 3, 1
STYLES: dict[State, str] = {
    "ready": "green",
    "attention": "yellow",
    "refused": "red",
    "unreachable": "red",
}


@click.command()
@click.argument("limit", metavar="[HOST]…", nargs=-1)
@click.option("--json", "json_output", is_flag=True, help="One JSON object per host and line.")
@click.option(
    "--inventory",
    default="inventory",
    show_default=True,
    help="As for pyinfra; the directory means inventory/$FARRIER_ENV.py.",
)
@click.option("--same-sudo-password", is_flag=True, help="Ask once for the sudo password of all.")
@click.pass_context
def preflight(
    context: click.Context,
    limit: tuple[str, ...],
    json_output: bool,
    inventory: str,
    same_sudo_password: bool,
) -> None:
    """Look at every HOST of the inventory (names, patterns or groups; default: all).

    Changes nothing. Exit codes: 0 every host is ready, or works and needs attention; 3 a deploy
    would refuse a host; 1 a host could not be looked at; 2 wrong usage.
    """
    context.params["wants_fleet"] = True
    # Late and in this order: pyinfra's command line lets gevent replace sockets and threads.
    from pyinfra.api.exceptions import PyinfraError  # noqa: PLC0415

    from farrier.preflight.hosts import open_site  # noqa: PLC0415

    logger = logging.getLogger("pyinfra")
    logger.propagate = False
    mistakes = logging.StreamHandler()  # pyinfra shows those of an inventory by its logger
    logger.addHandler(mistakes)
    try:
        site = open_site(inventory, limit, same_sudo_password=same_sudo_password)
    except PyinfraError as error:
        raise click.ClickException(str(error)) from error
    logger.removeHandler(mistakes)
    logger.addHandler(logging.NullHandler())  # what it says of hosts is in their verdicts
    verdicts = sorted(_watched(site), key=lambda verdict: verdict.host)
    if json_output:
        for verdict in verdicts:
            click.echo(json.dumps(verdict.to_json()))
    else:
        _print(verdicts)
    sys.exit(_status(verdicts))


def _status(verdicts: Iterable[Verdict]) -> int:
    states = {verdict.state for verdict in verdicts}
    if "unreachable" in states:
        return NOT_LOOKED_AT
    return REFUSED if "refused" in states else 0


def _watched(site: Site) -> list[Verdict]:
    """The verdicts; while they are made, a terminal shows for whom is still waited."""
    from rich.console import Console  # noqa: PLC0415

    from farrier.converge.report import forget  # noqa: PLC0415

    waiting = [str(host.name) for host in site.hosts]
    with Console(stderr=True).status(_waiting(waiting)) as status:

        def answered(verdict: Verdict) -> Verdict:
            waiting.remove(verdict.host)
            status.update(_waiting(waiting))
            return verdict

        verdicts = [answered(verdict) for verdict in site.verdicts()]
    forget()  # what SSH and sudo said is in the verdicts
    return verdicts


def _waiting(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"looking at {', '.join(names[:3])}{more}" if names else "done"


def _print(verdicts: list[Verdict]) -> None:
    from rich.console import Console  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    console = Console(highlight=False, soft_wrap=True)
    for verdict in verdicts:
        console.print(
            Text.assemble((verdict.host, "bold"), "  ", (verdict.state, STYLES[verdict.state]))
        )
        for reason in verdict.reasons:
            console.print(_reason(reason))
    counted = Counter(verdict.state for verdict in verdicts)
    states = ", ".join(f"{counted[state]} {state}" for state in STYLES if counted[state])
    console.print(f"\n{len(verdicts)} host{'s' * (len(verdicts) != 1)}: {states}")


def _reason(reason: Reason) -> Text:
    from rich.text import Text  # noqa: PLC0415

    from farrier.preflight.verdict import IN_WORDS  # noqa: PLC0415

    style = "red" if reason.severity == "refuse" else "yellow"
    message = reason.message.replace("\n", "\n      ")
    return Text.assemble(
        "  ",
        (reason.code, style),
        f": {message}\n      {IN_WORDS[reason.where]}:\n      ",
        (reason.repair, "bold"),
    )
