"""``farrier audit``: what was done to the hosts, by whom, in one order."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Any

import click

from farrier.cli.hosts import USAGE, console, fleet, hosts_argument, inventory_option, json_option

if TYPE_CHECKING:
    from farrier_agent.control.protocol import AuditLine

    from farrier.fleet import Shell

__all__ = ["audit"]


@click.command()
@hosts_argument(metavar="[HOST]…")
@click.option(
    "-n",
    "--lines",
    default=50,
    show_default=True,
    type=click.IntRange(1, 10000),
    help="So many of each host.",
)
@json_option("One JSON object per line of the audit.")
@inventory_option
def audit(limit: tuple[str, ...], lines: int, as_json: bool, inventory: str) -> None:
    """What was asked of every HOST's agent and done: when, who, what, from where; newest last.

    Times are this machine's clock. Exit codes: 0 done; 1 a host did not answer; 2 wrong usage.
    """
    from farrier.fleet import ask_all  # noqa: PLC0415

    found: list[tuple[str, AuditLine]] = []
    failed = False
    errors = console(err=True)

    def question(shell: Shell) -> tuple[AuditLine, ...]:
        return _lines(shell, lines)

    for one in ask_all(fleet(inventory, limit, as_json=as_json), question):
        if one.value is None:
            failed = True
            errors.print(str(one.error), markup=False)
            if as_json and one.error:
                click.echo(json.dumps({"host": one.target.name, "error": one.error.to_json()}))
        else:
            found += [(one.target.name, line) for line in one.value]
    found.sort(key=lambda each: each[1].at)
    for host, line in found:
        click.echo(json.dumps(_plain(host, line)) if as_json else _shown(host, line))
    sys.exit(1 if failed else 0)


def _lines(shell: Shell, count: int) -> tuple[AuditLine, ...]:
    """Raises :class:`farrier.fleet.ShellError`."""
    from farrier_agent.control.protocol import Audited, Failed  # noqa: PLC0415

    from farrier.fleet import NoAgentError  # noqa: PLC0415

    reply = shell.agent("audit", "--lines", str(count))
    final = reply.final
    if isinstance(final, Audited):
        return final.lines
    why = final.error if isinstance(final, Failed) else "it answers with something else"
    if reply.code == USAGE:
        why = "it is older than this farrier"
    step = f"pyinfra --limit {shell.target.name} inventory deploys/llm.py"
    raise NoAgentError(shell.target.name, f"its agent has no audit to tell: {why}", step)


def _plain(host: str, line: AuditLine) -> dict[str, Any]:
    import msgspec  # noqa: PLC0415

    return {"host": host, **msgspec.to_builtins(line)}


def _shown(host: str, line: AuditLine) -> str:
    from farrier_agent.wording import printable  # noqa: PLC0415

    at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(line.at))
    what = " ".join((line.verb, *line.replicas))
    who = line.by + (f" for {line.holder}" if line.holder else "")
    rollout = f" [{line.rollout}]" if line.rollout else ""
    why = f" ({line.reason})" if line.reason else ""
    return printable(f"{at}  {host}  {who}: {what}: {line.outcome}{why}{rollout}")
