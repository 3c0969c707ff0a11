"""``farrier exec``: one command on many hosts, side by side."""

from __future__ import annotations

import json
import shlex
import sys
import threading
from typing import TYPE_CHECKING, Any

import click

from farrier.cli.hosts import console, fleet, hosts_argument, inventory_option, json_option

if TYPE_CHECKING:
    from farrier.fleet import Answered, Done, Shell

__all__ = ["execute"]


class _BeforeDashes(click.Command):
    """Keeps the words behind ``--`` apart: click would forget where it stood."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click's; the command's own words go to ``ctx.obj``."""
        if "--help" in args[: args.index("--") if "--" in args else None]:
            return super().parse_args(ctx, args)
        at = args.index("--") if "--" in args else len(args)
        ctx.obj = args[at + 1 :]
        if not ctx.obj:
            raise click.UsageError(
                "what is to be run? Write it behind two dashes: farrier exec gpu01 -- uptime", ctx
            )
        return super().parse_args(ctx, args[:at])


@click.command("exec", cls=_BeforeDashes, options_metavar="[OPTIONS]")
@hosts_argument(metavar="[HOST]… -- CMD…")
@click.option("--sudo", is_flag=True, help="As root, instead of the user who logs in.")
@click.option("--timeout", type=click.FloatRange(min=0.1), metavar="SECONDS", help="[none]")
@click.option(
    "--parallel", default=32, show_default=True, type=click.IntRange(1), help="Hosts at once."
)
@json_option("One JSON object per host and line: its code, stdout and stderr.")
@inventory_option
@click.pass_obj
def execute(
    command: list[str],
    *,
    limit: tuple[str, ...],
    sudo: bool,
    timeout: float | None,
    parallel: int,
    as_json: bool,
    inventory: str,
) -> None:
    """Run CMD on every HOST (names, patterns or groups; default: all), side by side.

    One word is taken as a shell command: farrier exec gpu -- 'df -h | tail -n 3'. Several are run
    as they are. Ctrl-C ends the waiting; what runs on a host runs on there. Exit codes: 0 it ended
    with 0 everywhere; 1 it did not, or a host could not be reached; 2 wrong usage.
    """
    from farrier.fleet import ask_all  # noqa: PLC0415

    words = command[0] if len(command) == 1 else shlex.join(command)
    hosts = fleet(inventory, limit, as_json=as_json)
    telling = _Telling(max((len(target.name) for target in hosts), default=0), as_json=as_json)

    def question(shell: Shell) -> Done:
        host = shell.target.name
        if as_json:
            return shell.run(words, sudo=sudo, timeout=timeout)
        return shell.run(
            words,
            sudo=sudo,
            timeout=timeout,
            on_line=lambda line: telling.line(host, line),
            on_error_line=lambda line: telling.line(host, line, err=True),
        )

    answers = ask_all(hosts, question, parallel=parallel, deadline=None)
    ended_well = [telling.end(one) for one in answers]
    sys.exit(0 if all(ended_well) else 1)


class _Telling:
    """Lines of all hosts, each with its host's name before it."""

    def __init__(self, width: int, *, as_json: bool) -> None:
        self._width = width
        self._as_json = as_json
        self._lock = threading.Lock()
        self._errors = console(err=True)

    def line(self, host: str, line: str, *, err: bool = False) -> None:
        """One line that *host* printed."""
        with self._lock:
            click.echo(f"{host:<{self._width}} | {line}", err=err)

    def end(self, one: Answered[Done]) -> bool:
        """How it ended on a host; whether that was well."""
        host, done = one.target.name, one.value
        if self._as_json:
            click.echo(json.dumps({"host": host, **_plain(one)}))
        elif done is None:
            with self._lock:
                self._errors.print(str(one.error), markup=False)
        elif done.code:
            self.line(host, f"ended with {done.code}", err=True)
        return done is not None and done.code == 0


def _plain(one: Answered[Done]) -> dict[str, Any]:
    if one.value is None:
        return {"error": one.error.to_json() if one.error else None}
    done = one.value
    return {"code": done.code, "stdout": done.stdout, "stderr": done.stderr}
