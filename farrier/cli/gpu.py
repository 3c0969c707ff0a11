"""``farrier gpu``: a GPU after a fault, from this machine."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from farrier.cli.amounts import Percent
from farrier.cli.hosts import F, console, fleet, inventory_option, json_option

if TYPE_CHECKING:
    from farrier.fleet import Target
    from farrier.rollout.plan import Kind

__all__ = ["gpu"]


@click.group()
def gpu() -> None:
    """A GPU after a fault: reset it, have it diagnosed, fetch what goes with its board.

    A reset and a diagnosis are rollouts over one host: its replicas are drained first, and open
    again once the host is what it was; `farrier rollout show`, `resume` and `abort` know them.

    Exit codes: 0 done, 1 failed, 2 wrong usage, 3 refused by a safety check.
    """


_ROLLING = (
    click.argument("place", metavar="HOST[/GPU]"),
    click.option("--allow-gap", is_flag=True, help="Also where a model is served by nobody else."),
    click.option("--deadline", type=click.FloatRange(min=0), metavar="S", help="Of the drain."),
    click.option(
        "--on-deadline",
        type=click.Choice(["extend", "abort", "force"]),
        help="Wait on, take the drain back and stop, or cut what still runs.",
    ),
    click.option("--hook-before", type=click.Path(dir_okay=False), help="Run before the drain."),
    click.option("--hook-after", type=click.Path(dir_okay=False), help="Run at the end."),
    click.option("--takeover", is_flag=True, help="Also where another rollout left it half done."),
    click.option("--dry", is_flag=True, help="Only show the plan."),
    click.option("-y", "--yes", is_flag=True, help="Do not ask."),
    json_option("The ledger as JSON."),
    inventory_option,
)


def _rolling(command: F) -> F:
    for option in reversed(_ROLLING):
        command = option(command)
    return command


@gpu.command()
@_rolling
@click.option(
    "--measure",
    type=click.FloatRange(min=0, max=600),
    default=20.0,
    show_default=True,
    metavar="S",
    help="How long each replica is measured, before and after; 0: not.",
)
@click.option(
    "--tolerance",
    type=Percent(),
    default="10%",
    show_default=True,
    metavar="P%",
    help="By how much a replica may be slower.",
)
def reset(place: str, tolerance: int, **given: Any) -> None:
    """Reset GPU (an index, a UUID or its beginning), or every GPU of HOST.

    Only the replicas that use it give way; where NVLinks tie it to others, all of the host do, and
    all are reset. Exit codes: 0 it is well and serves; 1 failed, it stays closed; 2 wrong usage;
    3 refused.
    """
    _begin("gpu-reset", place, given | {"tolerance": tolerance / 100})


@gpu.command()
@_rolling
@click.option(
    "--level",
    "diag",
    type=click.IntRange(1, 4),
    default=1,
    show_default=True,
    help="DCGM's: seconds, 2 minutes, 15 minutes, an hour and more.",
)
def diag(place: str, **given: Any) -> None:
    """Have DCGM diagnose GPU (an index, a UUID or its beginning), or every GPU of HOST.

    Exit codes: 0 nothing failed and it serves; 1 a test failed, it stays closed; 2 wrong usage;
    3 refused: the host has no DCGM, or its model has no other replica (--allow-gap).
    """
    _begin("gpu-diag", place, given | {"measure": 0.0})


def _begin(kind: Kind, place: str, given: dict[str, Any]) -> None:
    from farrier.cli.rolling import begin  # noqa: PLC0415 - `bundle` needs none of it

    host, wanted = _split(place)
    begin(kind, given | {"limit": (host,), "gpu": wanted})


@gpu.command()
@click.argument("place", metavar="HOST[/GPU]")
@click.option(
    "-o",
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(),
    metavar="DIR",
    help="Where the file is put [here].",
)
@click.option(
    "--bug-report",
    type=click.FloatRange(0, 3600),
    default=180.0,
    show_default=True,
    metavar="S",
    help="How long NVIDIA's own report may take; 0: without it.",
)
@json_option("One JSON object: path, size, what is missing, and the words for the return.")
@inventory_option
def bundle(place: str, output: Path, bug_report: float, as_json: bool, inventory: str) -> None:
    """Fetch what goes with the board of GPU (an index, a UUID or its beginning), or of all GPUs.

    Nothing is drained or stopped. Values that look secret are taken out, and the file is yours
    alone (0600). It names your host, its kernel and its serial numbers: look into it before you
    send it. Exit codes: 0 it is here; 1 failed; 2 wrong usage.
    """
    from farrier.fleet import Shell, ShellError  # noqa: PLC0415
    from farrier.gpu.fetching import FetchError, fetched, gathered  # noqa: PLC0415

    target, wanted = _place(inventory, place, as_json=as_json)
    errors = console(err=True)
    try:
        with Shell(target) as shell:
            errors.print(f"{target.name}: gathering; NVIDIA's own report takes a while")
            made = gathered(shell, wanted, bug_report)
            path = fetched(shell, made, output)
    except FetchError as error:
        _die(target.name, error.what, error.next, error.code, as_json=as_json)
    except ShellError as error:
        _die(target.name, f"{error.host}: {error.what}", error.next, 1, as_json=as_json)
    if as_json:
        told = {"path": str(path), "size_bytes": made.size_bytes, "sha256": made.sha256}
        more = {"missing": list(made.missing), "words": list(made.words), "there": made.path}
        click.echo(json.dumps({"host": target.name, **told, **more}))
        return
    for line in (*made.words, *(f"missing: {one}" for one in made.missing)):
        click.echo(line)
    click.echo(f"{path} ({made.size_bytes} bytes)")


def _place(inventory: str, words: str, *, as_json: bool) -> tuple[Target, str | None]:
    """The host and the GPU that are meant, or the end of the program."""
    host, wanted = _split(words)
    found = fleet(inventory, (host,), as_json=as_json)
    if len(found) != 1:
        names = ", ".join(target.name for target in found) or "none"
        raise click.UsageError(f"{host}: one host at a time, and this means {names}")
    return found.chosen[0], wanted


def _split(words: str) -> tuple[str, str | None]:
    from farrier.fleet.places import split  # noqa: PLC0415

    host, wanted = split(words)
    if wanted == "":
        raise click.UsageError(f"{words}: a GPU's index, UUID or its beginning after the slash")
    return host, wanted


def _die(host: str, what: str, step: str | None, code: int, *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({"host": host, "error": what, "next": step, "code": code}))
    click.echo(f"farrier gpu: {what}", err=True)
    if step:
        click.echo(f"  next: {step}", err=True)
    sys.exit(code)
