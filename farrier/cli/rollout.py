"""``farrier rollout``: rolling changes that lose nothing."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from farrier.rollout.host import Host
    from farrier.rollout.ledger import Ledger, Options
    from farrier.rollout.plan import Kind

__all__ = ["rollout"]

_F = TypeVar("_F", bound=Callable[..., Any])
_CODES = {"done": 0, "failed": 1, "stopped": 1, "refused": 3, "aborted": 0}


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


@rollout.command()
@_rolling
def restart(**given: Any) -> None:
    """Restart engines."""
    _new("restart", given)


@rollout.command()
@_rolling
def converge(**given: Any) -> None:
    """Converge hosts, and restart engines whose configuration changed."""
    _new("converge", given)


@rollout.command()
@_rolling
def reboot(**given: Any) -> None:
    """Reboot hosts."""
    _new("reboot", given)


@rollout.command(context_settings={"ignore_unknown_options": False})
@_rolling
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED, metavar="CMD…")
def run(command: tuple[str, ...], **given: Any) -> None:
    """Run CMD as root on each host while it is drained (behind --)."""
    _new("run", given, command)


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
    with _errors(as_json=as_json):
        from farrier.rollout.preparing import find, go_on_with  # noqa: PLC0415
        from farrier.rollout.store import Store  # noqa: PLC0415

        hosts = _hosts(inventory)
        ledger = find(Store(), hosts.values(), rollout_id)
        go_on_with(ledger)
        _roll(ledger, hosts, as_json=as_json, run_again=run_again, takeover=takeover)


@rollout.command()
@click.argument("rollout_id", metavar="[ID]", required=False)
@_inventory
@_as_json
def abort(rollout_id: str | None, inventory: str, as_json: bool) -> None:
    """Give a rollout up: take back what is safe to take back [the newest unfinished]."""
    with _errors(as_json=as_json):
        from farrier.rollout.preparing import find, go_on_with  # noqa: PLC0415
        from farrier.rollout.store import Store  # noqa: PLC0415

        hosts = _hosts(inventory)
        store = Store()
        ledger = find(store, hosts.values(), rollout_id)
        if store.is_driven(ledger.id):
            click.echo(f"{ledger.id}: asking its process to stop after the present step", err=True)
            store.ask_to_abort(ledger.id)
            while store.is_driven(ledger.id):
                time.sleep(0.5)
            ledger = find(store, hosts.values(), ledger.id)
        if ledger.outcome == "done":
            _print(ledger, as_json=as_json)
            return
        go_on_with(ledger)
        _roll(ledger, hosts, as_json=as_json, give_up=True)


@rollout.command()
@click.argument("rollout_id", metavar="[ID]", required=False)
@click.option("--fleet", is_flag=True, help="Ask the hosts, too.")
@_inventory
@_as_json
def show(rollout_id: str | None, fleet: bool, inventory: str, as_json: bool) -> None:
    """Show a ledger [the newest]."""
    with _errors(as_json=as_json):
        from farrier.rollout.errors import RolloutError  # noqa: PLC0415
        from farrier.rollout.preparing import find  # noqa: PLC0415
        from farrier.rollout.store import Store  # noqa: PLC0415

        store = Store()
        newest = next(iter(store.all()), None)
        ledger = (store.load(rollout_id) if rollout_id else newest) if not fleet else None
        if ledger is None:
            if rollout_id is None and not fleet:
                raise RolloutError("no rollout in this directory", "farrier rollout show --fleet")
            ledger = find(store, _hosts(inventory).values(), rollout_id)
        _print(ledger, as_json=as_json)


@rollout.command("list")
@click.option("--fleet", is_flag=True, help="Ask the hosts, too.")
@_inventory
@_as_json
def list_(fleet: bool, inventory: str, as_json: bool) -> None:
    """List rollouts."""
    with _errors(as_json=as_json):
        from rich.console import Console  # noqa: PLC0415

        from farrier.rollout.pages import rollouts_table  # noqa: PLC0415
        from farrier.rollout.preparing import every  # noqa: PLC0415
        from farrier.rollout.store import Store  # noqa: PLC0415

        ledgers = every(Store(), _hosts(inventory).values() if fleet else ())
        if as_json:
            for one in ledgers:
                click.echo(_json(one))
        elif ledgers:
            Console(soft_wrap=True).print(rollouts_table(ledgers))
        else:
            click.echo("no rollout in this directory; those that hosts know: --fleet")


def _new(kind: Kind, given: dict[str, Any], command: tuple[str, ...] = ()) -> None:
    from farrier.rollout.errors import RefusedError  # noqa: PLC0415
    from farrier.rollout.hooks import check_hook  # noqa: PLC0415
    from farrier.rollout.ledger import Options  # noqa: PLC0415
    from farrier.rollout.looking import look_at  # noqa: PLC0415
    from farrier.rollout.preparing import new_ledger, refuse_gaps  # noqa: PLC0415

    as_json = given.pop("as_json")
    dry, yes, takeover = given.pop("dry"), given.pop("yes"), given.pop("takeover")
    with _errors(as_json=as_json):
        check_hook(given["hook_before"])
        check_hook(given["hook_after"])
        wanted, hosts = _limited(given["inventory"], given["limit"])
        given["limit"] = wanted
        options: Options = Options(command=command, **given)
        looks, silent = look_at(hosts.values())
        for name, why in silent.items():
            click.echo(f"{name}: {why}", err=True)
        ledger, plan = new_ledger(kind, options, looks)
        if not as_json or not dry:
            _show_plan(plan, refuse_gaps(plan, looks, options), err=as_json)
        else:
            refuse_gaps(plan, looks, options)
        if dry:
            if as_json:
                click.echo(_json(ledger))
            return
        if not ledger.hosts:
            click.echo("nothing to do", err=True)
            return
        if not yes and not _agreed():
            raise RefusedError("nobody agreed: nothing was changed", "the same with -y")
        _roll(ledger, hosts, as_json=as_json, takeover=takeover)


def _agreed() -> bool:
    return sys.stdin.isatty() and click.confirm("Go on?", err=True)


def _roll(
    ledger: Ledger,
    hosts: dict[str, Host],
    *,
    as_json: bool,
    run_again: bool = False,
    takeover: bool = False,
    give_up: bool = False,
) -> None:
    from rich.console import Console  # noqa: PLC0415

    from farrier.rollout.rolling import Rolling  # noqa: PLC0415
    from farrier.rollout.store import Store  # noqa: PLC0415
    from farrier.rollout.telling import Telling  # noqa: PLC0415

    stop = threading.Event()
    with Telling(Console(stderr=True, soft_wrap=True)) as tell, _interrupts(tell, stop):
        tell("", f"{ledger.id} as {ledger.holder}")
        it = Rolling(ledger, hosts, Store(), tell, stop, run_again=run_again, takeover=takeover)
        ledger = it.abort() if give_up else it.run()
    _print(ledger, as_json=as_json)
    for host in hosts.values():
        host.close()
    code = _CODES.get(ledger.outcome, 1)
    if give_up and any("stays closed" in (ledger.reason or "") for _ in (0,)):
        code = 1
    sys.stdout.flush()
    sys.exit(code)


@contextmanager
def _interrupts(tell: Callable[[str, str], None], stop: threading.Event) -> Iterator[None]:
    """Ctrl-C once stops after the present steps, twice leaves at once."""

    def interrupted(_signal: int, _frame: object) -> None:
        if stop.is_set():
            click.echo(
                "left at once: hosts take back what is safe when the leases run out", err=True
            )
            os._exit(1)
        tell("", "stopping after the present steps; once more to leave at once")
        stop.set()

    before = {one: signal.signal(one, interrupted) for one in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


def _limited(inventory: str, limit: tuple[str, ...]) -> tuple[tuple[str, ...], dict[str, Host]]:
    """The names that *limit* picks among the hosts that serve, and all that serve."""
    from farrier.fleet import read_fleet_targets  # noqa: PLC0415
    from farrier.rollout.errors import UsageError  # noqa: PLC0415
    from farrier.rollout.looking import serving  # noqa: PLC0415

    fleet = read_fleet_targets(inventory, limit)
    hosts = serving(fleet)
    if not hosts:
        raise UsageError("no host of the inventory serves a model")
    chosen = tuple(one.name for one in fleet if one.name in hosts)
    if limit and not chosen:
        raise UsageError(f"--limit {' '.join(limit)}: none of these hosts serves a model")
    return (chosen if limit else ()), hosts


def _hosts(inventory: str) -> dict[str, Host]:
    return _limited(inventory, ())[1]


def _show_plan(plan: Any, rooms: Any, *, err: bool) -> None:
    from rich.console import Console  # noqa: PLC0415

    from farrier.rollout.pages import plan_lines  # noqa: PLC0415

    console = Console(stderr=err, soft_wrap=True, highlight=False)
    for line in plan_lines(plan, rooms):
        console.print(line)


def _print(ledger: Ledger, *, as_json: bool) -> None:
    from rich.console import Console  # noqa: PLC0415

    from farrier.rollout.pages import ledger_lines, ledger_table  # noqa: PLC0415

    if as_json:
        click.echo(_json(ledger))
        return
    console = Console(soft_wrap=True, highlight=False)
    console.print(ledger_table(ledger))
    for line in ledger_lines(ledger):
        console.print(line)


def _json(ledger: Ledger) -> str:
    """One line, with what is computed."""
    from farrier.rollout.ledger import encode  # noqa: PLC0415

    return json.dumps(json.loads(encode(ledger)) | {"lost": ledger.lost, "cut": ledger.cut})


@contextmanager
def _errors(*, as_json: bool) -> Iterator[None]:
    from farrier.fleet import InventoryError, ShellError  # noqa: PLC0415
    from farrier.rollout.errors import RolloutError  # noqa: PLC0415

    try:
        yield
    except RolloutError as error:
        _die(error.what, error.next, error.code, as_json=as_json)
    except ShellError as error:
        _die(f"{error.host}: {error.what}", error.next, 1, as_json=as_json)
    except InventoryError as error:
        _die(str(error), None, error.code, as_json=as_json)


def _die(what: str, next_command: str | None, code: int, *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({"error": what, "next": next_command, "code": code}))
    click.echo(f"farrier rollout: {what}", err=True)
    if next_command:
        click.echo(f"  next: {next_command}", err=True)
    sys.exit(code)
