"""``farrier fingerprint``: what hosts are made of and how fast they are, then and now."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from farrier.cli.hosts import USAGE, console, fleet, hosts_argument, inventory_option, json_option

if TYPE_CHECKING:
    from farrier_agent.control.protocol import Fingerprinted

    from farrier.fleet import Shell

__all__ = ["fingerprint"]

_F = TypeVar("_F", bound=Callable[..., Any])


@click.group()
def fingerprint() -> None:
    """What hosts are made of (GPUs, driver, links, limits) and how fast their replicas generate.

    Exit codes: 0 as it should be; 1 something differs, or a host did not answer; 2 wrong usage.
    """


def _seconds(command: _F) -> _F:
    return click.option(
        "--seconds",
        type=click.FloatRange(0, 600),
        default=20.0,
        show_default=True,
        metavar="S",
        help="Generate for so long on each replica; 0: measure nothing.",
    )(command)


def _tolerance(command: _F) -> _F:
    return click.option(
        "--tolerance",
        type=click.FloatRange(0, 1),
        default=0.1,
        show_default=True,
        metavar="SHARE",
        help="By which a replica may be slower.",
    )(command)


@fingerprint.command()
@hosts_argument(metavar="[HOST]…")
@_seconds
@json_option("One JSON object per host.")
@inventory_option
def record(limit: tuple[str, ...], seconds: float, as_json: bool, inventory: str) -> None:
    """Keep the fingerprint of every HOST, on the host."""
    _each(inventory, limit, ("record", "--seconds", f"{seconds:g}"), seconds, as_json=as_json)


@fingerprint.command()
@hosts_argument(metavar="[HOST]…")
@_seconds
@_tolerance
@json_option("One JSON object per host.")
@inventory_option
def check(
    limit: tuple[str, ...], seconds: float, tolerance: float, as_json: bool, inventory: str
) -> None:
    """Compare every HOST with what was recorded of it."""
    words = ("check", "--seconds", f"{seconds:g}", "--tolerance", f"{tolerance:g}")
    _each(inventory, limit, words, seconds, as_json=as_json)


@fingerprint.command()
@hosts_argument(metavar="[HOST]…")
@_tolerance
@json_option("One JSON object: what differs, and how fast each replica is beside its twins.")
@inventory_option
def compare(limit: tuple[str, ...], tolerance: float, as_json: bool, inventory: str) -> None:
    """Compare hosts of one kind with each other, by what was recorded of them."""
    from dataclasses import asdict  # noqa: PLC0415

    import msgspec  # noqa: PLC0415

    from farrier.fingerprint.twins import odd_ones, paces  # noqa: PLC0415

    told, failed = _ask(inventory, limit, ("show",), 0.0, as_json=as_json)
    prints = {host: one.recorded for host, one in told.items() if one.recorded}
    odd, paced = list(odd_ones(prints)), list(paces(prints))
    slow = [one for one in paced if one.slow(tolerance)]
    if as_json:
        click.echo(
            json.dumps(
                {
                    "hosts": sorted(prints),
                    "odd": [asdict(one) for one in odd],
                    "replicas": [
                        {
                            "host": one.host,
                            "share": one.share,
                            "twins": one.twins,
                            "slow": one.slow(tolerance),
                            "speed": msgspec.to_builtins(one.speed),
                        }
                        for one in paced
                    ],
                }
            )
        )
    else:
        for each in (*odd, *paced):
            click.echo(str(each))
        if not odd and not slow:
            click.echo(f"{len(prints)} hosts compared: nothing stands out")
    sys.exit(1 if failed or odd or slow else 0)


def _each(
    inventory: str, limit: tuple[str, ...], words: tuple[str, ...], seconds: float, *, as_json: bool
) -> None:
    told, failed = _ask(inventory, limit, words, seconds, as_json=as_json)
    wrong = any(one.action == "check" and (one.differences or one.missing) for one in told.values())
    sys.exit(1 if failed or wrong else 0)


def _ask(
    inventory: str,
    limit: tuple[str, ...],
    words: tuple[str, ...],
    seconds: float,
    *,
    as_json: bool,
) -> tuple[dict[str, Fingerprinted], bool]:
    """What each host that serves says, as it comes but for ``show``; whether one said none."""
    import msgspec  # noqa: PLC0415
    from farrier_agent.fingerprint.worded import fingerprint_lines  # noqa: PLC0415

    from farrier.fleet import ask_all  # noqa: PLC0415

    targets = [one for one in fleet(inventory, limit, as_json=as_json) if one.replicas]
    deadline = 30 + max((len(one.replicas) for one in targets), default=0) * (seconds + 5)
    told: dict[str, Fingerprinted] = {}
    failed = False
    errors = console(err=True)
    for one in ask_all(targets, lambda shell: _told(shell, words, deadline), deadline=deadline):
        name = one.target.name
        if one.value is None:
            failed = True
            errors.print(str(one.error), markup=False)
            if as_json and one.error:
                click.echo(json.dumps({"host": name, "error": one.error.to_json()}))
            continue
        told[name] = one.value
        if words[0] == "show":
            continue
        if as_json:
            click.echo(json.dumps({"host": name, **msgspec.to_builtins(one.value)}))
        else:
            for line in fingerprint_lines(one.value):
                click.echo(f"{name}  {line}")
    return told, failed


def _told(shell: Shell, words: tuple[str, ...], timeout: float) -> Fingerprinted:
    """Raises :class:`farrier.fleet.ShellError`."""
    from farrier_agent.control.protocol import Failed, Fingerprinted  # noqa: PLC0415

    from farrier.fleet import NoAgentError  # noqa: PLC0415

    reply = shell.agent("fingerprint", *words, timeout=timeout)
    if isinstance(reply.final, Fingerprinted):
        return reply.final
    host = shell.target.name
    if reply.code == USAGE:
        step = f"pyinfra --limit {host} inventory deploys/llm.py"
        raise NoAgentError(host, "its agent is older than this farrier", step)
    final = reply.final
    why = final.error if isinstance(final, Failed) else "it answers with something else"
    typed = final.next if isinstance(final, Failed) else None
    step = f"farrier exec {host} -- {typed}" if typed else f"farrier status {host}"
    raise NoAgentError(host, why, step)
