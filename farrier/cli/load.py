"""``farrier load``: clients of every kind on an OpenAI endpoint; what became of each request."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from farrier.load import Endpoint, Ledger, Plan

__all__ = ["load"]

EVERY = 10.0
"""Seconds between two lines of progress where nobody watches a terminal."""
SHOWN = 20
"""Lost requests that are named; the file has all of them."""

FILE = click.Path(dir_okay=False, path_type=Path)


class _Range(click.ParamType[tuple[float, float]]):
    """Two numbers such as 1-60, or one."""

    name = "A-B"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[float, float]:
        """The two numbers."""
        if isinstance(value, tuple):
            return value
        shortest, _, longest = str(value).partition("-")
        try:
            return float(shortest), float(longest or shortest)
        except ValueError:
            self.fail(f"{value} is not a range of seconds such as 1-60", param, ctx)


@click.command()
@click.argument("url")
@click.option("--model", "models", multiple=True, help="Served name; repeat it for several.")
@click.option("--key-file", type=FILE, help="File with one API key (0600).")
@click.option("--keys", "keys_file", type=FILE, help="File of many keys, as api_keys_file.")
@click.option("--ca", type=FILE, help="Certificates to trust, PEM, instead of the system's.")
@click.option("--seconds", default=60.0, show_default=True, help="For how long requests begin.")
@click.option("--requests", default=1_000_000, show_default=True, help="Never more than these.")
@click.option("--patience", type=float, help="Seconds for what runs at the end.")
@click.option("--streams", default=40, show_default=True, help="Clients with streams.")
@click.option("--stream-seconds", type=_Range(), default="1-60", show_default=True)
@click.option("--token-seconds", type=float, help="Seconds per token; without it, learned.")
@click.option("--most-tokens", default=4096, show_default=True, help="Of one answer.")
@click.option("--posts", default=40, show_default=True, help="Clients with short POSTs in a loop.")
@click.option("--pause", default=0.5, show_default=True, help="Seconds between two short POSTs.")
@click.option("--fresh", default=10.0, show_default=True, help="New connections a second.")
@click.option("--uploads", default=5, show_default=True, help="Clients with slow uploads.")
@click.option("--upload-bytes", default=65_536, show_default=True)
@click.option("--upload-seconds", default=4.0, show_default=True)
@click.option("--slow", default=0, show_default=True, help="Clients that read slowly.")
@click.option("--vanish", default=0, show_default=True, help="Clients that go away in the middle.")
@click.option("--prompt-bytes", default=0, show_default=True, help="Added to every prompt.")
@click.option("--no-keep-alive", is_flag=True, help="A connection for each request.")
@click.option("--http2", is_flag=True, help="HTTP/2; without TLS by prior knowledge.")
@click.option(
    "--may-stop",
    is_flag=True,
    help="The engine may answer with fewer tokens than max_tokens (it does not know ignore_eos).",
)
@click.option("--json", "json_output", is_flag=True, help="Print what came out as a JSON object.")
@click.option("--ledger", "ledger_file", type=FILE, help="Write every request there, as JSON.")
def load(
    url: str,
    *,
    models: tuple[str, ...],
    key_file: Path | None,
    keys_file: Path | None,
    ca: Path | None,
    patience: float | None,
    token_seconds: float | None,
    no_keep_alive: bool,
    may_stop: bool,
    json_output: bool,
    ledger_file: Path | None,
    **of_plan: Any,
) -> None:
    """Ask URL (such as http://198.18.0.5/v1) for completions, and count what became of each.

    Without --model it is the first one that the endpoint lists. Ctrl-C begins no new request and
    waits for those that run; a second one waits no longer. Lost are requests that were let in and
    not served: incomplete, aborted, dropped without an answer, or answered wrongly. No request is
    ever sent twice, except by HTTP/2's own rules, and that is counted.

    Exit codes: 0 nothing was lost; 1 something was lost, nobody listened, or nothing was served;
    2 wrong usage.
    """
    from farrier.load import Endpoint, EndpointError, Plan, PlanError  # noqa: PLC0415
    from farrier.load.keys import keys_of, one_key  # noqa: PLC0415

    if key_file and keys_file:
        raise click.UsageError("--key-file is for one key, --keys for many: give one of them")
    try:
        plan = Plan(
            models=models,
            patience=patience,
            seconds_per_token=token_seconds,
            keep_alive=not no_keep_alive,
            ignore_eos=not may_stop,
            **of_plan,
        )
        keys = one_key(key_file) if key_file else keys_of(keys_file) if keys_file else {}
        endpoint = Endpoint(url, keys, ca)
    except (EndpointError, PlanError) as error:
        raise click.UsageError(str(error)) from None
    try:
        ledger = asyncio.run(_run(plan, endpoint, ledger_file))
    except (EndpointError, PlanError) as error:
        raise click.ClickException(str(error)) from None
    if json_output:
        click.echo(json.dumps(ledger.to_json(requests=False)))
    else:
        _print(ledger)
    sys.exit(_status(ledger))


def _status(ledger: Ledger) -> int:
    outcomes = ledger.outcomes
    return 1 if ledger.lost or outcomes["unreached"] or not outcomes["complete"] else 0


async def _run(plan: Plan, endpoint: Endpoint, file: Path | None) -> Ledger:
    from farrier.load import Ledger, run  # noqa: PLC0415

    stop, ledger = asyncio.Event(), Ledger()
    loading = asyncio.create_task(
        run(plan, endpoint, on_progress=_progress(), stop=stop, ledger=ledger)
    )

    def interrupted() -> None:
        if stop.is_set():
            loading.cancel()
        else:
            click.echo(
                "\nno new requests; waiting for those that run (Ctrl-C: no longer)", err=True
            )
            stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, interrupted)
    with suppress(asyncio.CancelledError):
        await loading
    if sys.stderr.isatty():
        click.echo(err=True)
    if file is not None:
        file.write_text(json.dumps(ledger.to_json(), indent=1) + "\n")
    return ledger


def _progress() -> Callable[[Ledger], None]:
    watched, last = sys.stderr.isatty(), time.monotonic()

    def show(ledger: Ledger) -> None:
        nonlocal last
        ended = ", ".join(f"{number} {name}" for name, number in ledger.outcomes.items())
        line = f"{ledger.now:5.0f} s  {len(ledger.running)} running; {ended or 'none ended yet'}"
        if watched:
            click.echo(f"\r\x1b[K{line[:150]}", err=True, nl=False)
        elif time.monotonic() - last >= EVERY:
            last = time.monotonic()
            click.echo(line, err=True)

    return show


def _print(ledger: Ledger) -> None:
    from rich import box  # noqa: PLC0415
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    from farrier.load.words import kinds, losses, servers, summary  # noqa: PLC0415

    console = Console(highlight=False, soft_wrap=True)
    for rows in (kinds(ledger), servers(ledger)):
        if len(rows) < 2:
            continue
        table = Table(box=box.SIMPLE_HEAD)
        for number, title in enumerate(rows[0]):
            table.add_column(title, justify="right" if number else "left", no_wrap=True)
        for row in rows[1:]:
            table.add_row(*row)
        console.print(table)
    for line in losses(ledger, SHOWN):
        console.print(line, markup=False)
    for line in summary(ledger):
        console.print(line, markup=False, style="red" if _status(ledger) else "green")
