"""What the commands of ``farrier rollout`` do: ask, show, drive, and end with the right code."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import click
from rich.console import Console

from farrier.fleet import InventoryError, ShellError, read_fleet_targets
from farrier.nvidia.planned import DriverPlan
from farrier.rollout import canary
from farrier.rollout.board_plan import board_lines, can_be_done, of_boards, tested_lines
from farrier.rollout.capacity import Room
from farrier.rollout.driver_begin import note_plans, with_plans
from farrier.rollout.driver_pages import driver_lines, end_lines, gates_tables
from farrier.rollout.errors import RefusedError, RolloutError, UsageError
from farrier.rollout.gateways import Gateways
from farrier.rollout.hooks import check_hook
from farrier.rollout.host import Host, Look
from farrier.rollout.ledger import Ledger, Options, encode
from farrier.rollout.looking import look_at, others, serving
from farrier.rollout.next_kernel import check_next_kernel
from farrier.rollout.pages import (
    back_lines,
    compared_table,
    ledger_lines,
    ledger_table,
    plan_lines,
)
from farrier.rollout.plan import BOARDS, Kind, Plan
from farrier.rollout.preparing import every, new_ledger, refuse_gaps
from farrier.rollout.rollback import failed_before, say_what_comes_back
from farrier.rollout.rolling import Rolling
from farrier.rollout.spanning import refuse_spanning
from farrier.rollout.store import Store
from farrier.rollout.telling import Telling

__all__ = ["WIDTH", "as_line", "begin", "drive", "errors", "serving_fleet", "show_ledger"]

WIDTH = 140
"""Of tables where nobody watches, in a pipe or a file: there they are not to be cut."""
CODES = {"done": 0, "failed": 1, "stopped": 1, "refused": 3, "aborted": 0}
"""The exit code of an outcome."""


@dataclass(frozen=True)
class Fleet:
    """The hosts that serve, by name, and the gateways; ``chosen`` are names that a limit picked."""

    hosts: dict[str, Host]
    gateways: Gateways
    chosen: tuple[str, ...] = ()


def begin(kind: Kind, given: dict[str, Any], command: tuple[str, ...] = ()) -> None:
    """Plan a new rollout from the options *given*, show it, ask, and drive it."""

    as_json = given.pop("as_json")
    dry, yes, takeover = given.pop("dry"), given.pop("yes"), given.pop("takeover")
    with errors(as_json=as_json):
        check_hook(given["hook_before"])
        check_hook(given["hook_after"])
        fleet = _limited(given["inventory"], given["limit"], kind)
        hosts = fleet.hosts
        given["limit"] = fleet.chosen
        word = given.pop("gpu", None)
        options: Options = Options(command=command, **given)
        looks, silent = look_at(hosts.values())
        for name, why in silent.items():
            click.echo(f"{name}: {why}", err=True)
        if kind in BOARDS:
            options = of_boards(kind, options, looks, word)
            can_be_done(kind, hosts[options.limit[0]])
        ledger, plan = _planned(kind, options, hosts, looks)
        if not as_json or not dry:
            _show_plan(plan, ledger, refuse_gaps(plan, looks, options), err=as_json)
        else:
            refuse_gaps(plan, looks, options)
        _refuse_canary(plan, options, fleet)
        if options.canary is not None and plan.hosts:
            words = f"{plan.hosts[0].host}, {options.canary} % for {options.hold:g} s"
            click.echo(f"canary   {words}, or twice as long", err=as_json)
        if dry:
            if as_json:
                click.echo(as_line(ledger))
            return
        if not ledger.hosts and kind == "rollback":
            raise RefusedError(
                "there is nothing to go back to on any host: no replica has a configuration from"
                " before with which it was warm",
                "put the version that you want into the inventory, then farrier rollout converge",
            )
        if not ledger.hosts:
            click.echo("nothing to do", err=True)
            ledger.outcome = "done"
            if as_json:
                click.echo(as_line(ledger))
            return
        if not yes and not _agreed():
            raise RefusedError("nobody agreed: nothing was changed", "the same with -y")
        taken = frozenset(hosts) if takeover else frozenset[str]()
        if kind == "rollback":
            taken |= failed_before(ledger, looks, every(Store(), hosts.values()))
        drive(ledger, fleet, as_json=as_json, takeover=taken)


def _planned(
    kind: Kind, options: Options, hosts: Mapping[str, Host], looks: Mapping[str, Look | None]
) -> tuple[Ledger, Plan]:
    """The plan, with what it means on each host. Raises RefusedError where that must not be."""
    plans: dict[str, DriverPlan] = {}
    if kind == "driver":
        click.echo("asking apt on the hosts what it would do; nothing is changed", err=True)
        looks, plans = with_plans(looks, options, Store())
    ledger, plan = new_ledger(kind, options, looks)
    if kind == "reboot":
        for one in ledger.hosts:
            look = looks[one.host]
            if look is not None and look.seen.accelerator != "cpu":
                check_next_kernel(hosts[one.host])
    if kind == "rollback":
        say_what_comes_back(ledger, hosts, looks)
    if kind == "driver":
        note_plans(ledger, plans, {name: look for name, look in looks.items() if look})
    return ledger, plan


def _agreed() -> bool:
    return sys.stdin.isatty() and click.confirm("Go on?", err=True)


def drive(
    ledger: Ledger,
    fleet: Fleet,
    *,
    as_json: bool,
    run_again: bool = False,
    takeover: Collection[str] = (),
    give_up: bool = False,
) -> None:
    """Drive *ledger* on *fleet* to its end, or give it up, and end this process."""

    stop = threading.Event()
    with Telling(Console(stderr=True, soft_wrap=True)) as tell, _interrupts(tell, stop):
        tell("", f"{ledger.id} as {ledger.holder}")
        it = Rolling(
            ledger,
            fleet.hosts,
            Store(),
            tell,
            stop,
            run_again=run_again,
            takeover=takeover,
            gateways=fleet.gateways if ledger.options.canary is not None else None,
        )
        ledger = it.abort() if give_up else it.run()
    show_ledger(ledger, as_json=as_json)
    for host in fleet.hosts.values():
        host.close()
    fleet.gateways.close()
    code = CODES.get(ledger.outcome, 1)
    if give_up and ledger.next:
        code = 1  # something is left to be looked at
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


def _limited(inventory: str, limit: tuple[str, ...], kind: Kind | None = None) -> Fleet:
    fleet = read_fleet_targets(inventory, limit)
    hosts = serving(fleet)
    if kind is not None:
        refuse_spanning(kind, (one for one in fleet if limit or one.name in hosts))
    if not hosts:
        raise UsageError("no host of the inventory serves a model")
    chosen = tuple(one.name for one in fleet if one.name in hosts)
    if limit and not chosen:
        raise UsageError(f"--limit {' '.join(limit)}: none of these hosts serves a model")
    return Fleet(hosts, Gateways(fleet.group("gateway")), chosen if limit else ())


def serving_fleet(inventory: str) -> Fleet:
    """Every host of *inventory* that serves models, and the gateways."""
    return _limited(inventory, ())


def _refuse_canary(plan: Plan, options: Options, fleet: Fleet) -> None:
    """Raise RefusedError where a canary is wanted and cannot be."""
    if options.canary is None or not plan.hosts:
        return
    first = plan.hosts[0]
    canary.refuse(
        fleet.gateways,
        first.host,
        [(one.name, one.model) for one in first.replicas],
        lambda model: others(fleet.hosts, model, first.host),
    )


def _show_plan(plan: Plan, ledger: Ledger, rooms: Iterable[Room], *, err: bool) -> None:

    console = Console(stderr=err, soft_wrap=True, highlight=False)
    for line in (
        *plan_lines(plan, rooms),
        *back_lines(ledger),
        *driver_lines(ledger),
        *board_lines(ledger),
    ):
        console.print(line)


def show_ledger(ledger: Ledger, *, as_json: bool) -> None:
    """Print *ledger* for people, or as JSON."""

    if as_json:
        click.echo(as_line(ledger))
        return
    width = None if sys.stdout.isatty() else WIDTH
    console = Console(soft_wrap=True, highlight=False, width=width)
    console.print(ledger_table(ledger))
    if (table := compared_table(ledger)) is not None:
        console.print(table)
    for one in gates_tables(ledger):
        console.print(one)
    for line in (*ledger_lines(ledger), *end_lines(ledger), *tested_lines(ledger)):
        console.print(line)


def as_line(ledger: Ledger) -> str:
    """*ledger* as a line of JSON, with what is computed of it."""

    return json.dumps(json.loads(encode(ledger)) | {"lost": ledger.lost, "cut": ledger.cut})


@contextmanager
def errors(*, as_json: bool) -> Iterator[None]:
    """Say what went wrong, and what to type next, and end with its code."""

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
