"""``farrier drain`` and ``farrier ready``: replicas out of service, and back, by hand."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from farrier.cli.hosts import (
    REFUSED,
    chosen,
    console,
    inventory_option,
    json_option,
    places_argument,
)

if TYPE_CHECKING:
    from farrier_agent.control.protocol import News

    from farrier.fleet import AgentReply, Answered, FleetTargets, Shell
    from farrier.fleet.places import Place

__all__ = ["drain", "ready"]

_REASON = "For the host's journal and status: write the ticket's number."


@click.command()
@places_argument()
@click.option("--reason", default="", metavar="TEXT", help=_REASON)
@click.option(
    "--deadline",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="How long it may take [as configured on the host].",
)
@click.option(
    "--on-deadline",
    type=click.Choice(["extend", "abort", "force"]),
    help="Then wait on, serve again, or cut what still runs [as configured on the host].",
)
@click.option("--wait/--no-wait", default=True, help="Return when it is drained [the default].")
@click.option("--allow-gap", is_flag=True, help="Drain the last ready replica of a model as well.")
@json_option("One JSON object per line: progress as it comes, each host's last word.")
@inventory_option
def drain(
    *,
    places: tuple[str, ...],
    reason: str,
    deadline: float | None,
    on_deadline: str | None,
    wait: bool,
    allow_gap: bool,
    as_json: bool,
    inventory: str,
) -> None:
    """Let no new request into HOST's replicas, or one REPLICA, and the running ones finish.

    It stays closed until `farrier ready`. Exit codes: 0 drained; 1 failed on a host; 2 wrong usage;
    3 refused: it would be the last ready replica of a model (--allow-gap), or the host says no.
    """
    found, meant = chosen(inventory, places, as_json=as_json, serving=True)
    if not allow_gap:
        _refuse_gaps(found, meant, as_json=as_json)
    words = ["drain", "--reason", reason]
    if deadline is not None:
        words += ["--deadline", f"{deadline:g}"]
    if on_deadline is not None:
        words += ["--on-deadline", on_deadline]
    sys.exit(_everywhere(meant, words, wait=wait, as_json=as_json))


@click.command()
@places_argument()
@click.option("--reason", default="", metavar="TEXT", help=_REASON)
@click.option("--wait/--no-wait", default=True, help="Return when its gate is open [the default].")
@json_option("One JSON object per line: progress as it comes, each host's last word.")
@inventory_option
def ready(places: tuple[str, ...], reason: str, wait: bool, as_json: bool, inventory: str) -> None:
    """Take back the drain of HOST's replicas, or of one REPLICA; warms up what is not warm.

    Exit codes: 0 it serves; 1 failed on a host; 2 wrong usage; 3 the host refuses.
    """
    _, meant = chosen(inventory, places, as_json=as_json, serving=True)
    sys.exit(_everywhere(meant, ["ready", "--reason", reason], wait=wait, as_json=as_json))


def _refuse_gaps(found: FleetTargets, meant: Sequence[Place], *, as_json: bool) -> None:
    from farrier.fleet import ask_all  # noqa: PLC0415
    from farrier.overview.gap import gaps  # noqa: PLC0415
    from farrier.overview.look import look  # noqa: PLC0415
    from farrier.overview.rows import host_row  # noqa: PLC0415

    models = {one.model for place in meant for one in place.replicas}
    others = {target.name: target for model in models for target, _ in found.of_model(model)}
    others |= {place.target.name: place.target for place in meant}
    answers = ask_all(others.values(), look, deadline=15.0)
    rows = [host_row(one.target, one.value, one.error) for one in answers]
    left = gaps(meant, sorted(rows, key=lambda row: row.host))
    if not left:
        return
    told = "; ".join(map(str, left))
    if as_json:
        click.echo(json.dumps({"kind": "failed", "code": REFUSED, "error": told}))
    click.echo(
        f"refused: {told}\n  Nothing was drained. Bring up another replica first, or accept that "
        "requests get 503 meanwhile: the same with --allow-gap",
        err=True,
    )
    sys.exit(REFUSED)


def _everywhere(meant: Sequence[Place], words: Sequence[str], *, wait: bool, as_json: bool) -> int:
    from farrier.fleet import ask_all  # noqa: PLC0415

    places = {place.target.name: place for place in meant}
    telling = _Telling(as_json=as_json)

    def question(shell: Shell) -> AgentReply:
        place = places[shell.target.name]
        which = ["--all"] if place.whole else [one.replica for one in place.replicas]
        options = ["--wait"] if wait else []
        host = shell.target.name
        return shell.agent(*words, *options, *which, on_news=lambda news: telling.news(host, news))

    targets = [place.target for place in meant]
    # as long as it takes: the deadline is the drain's, on the host
    codes = [telling.end(one) for one in ask_all(targets, question, deadline=None)]
    return 1 if 1 in codes else max(codes)


class _Telling:
    """What the hosts say, as lines; news to standard error, last words to standard output."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._out, self._err = console(), console(err=True)
        self._last: dict[tuple[str, str], Any] = {}

    def news(self, host: str, news: News) -> None:
        """One step of a replica; for people only when it says something new."""
        import msgspec  # noqa: PLC0415
        from farrier_agent.control import text  # noqa: PLC0415
        from farrier_agent.control.protocol import Progress  # noqa: PLC0415

        if self._as_json:
            click.echo(json.dumps({"host": host, **msgspec.to_builtins(news)}))
        elif isinstance(news, Progress):
            said = (news.state, news.in_flight, news.text)
            if self._last.get((host, news.replica)) != said:
                self._last[host, news.replica] = said
                self._err.print(f"{host}/{text.news(news)}", markup=False)

    def end(self, one: Answered[AgentReply]) -> int:
        """The last word of a host; its exit code."""
        if one.value is None:
            return self._failed(one)
        import msgspec  # noqa: PLC0415
        from farrier_agent.control import text  # noqa: PLC0415
        from farrier_agent.control.protocol import Done, exit_code  # noqa: PLC0415

        host, final = one.target.name, one.value.final
        if self._as_json:
            click.echo(json.dumps({"host": host, **msgspec.to_builtins(final)}))
        elif isinstance(final, Done):
            for line in text.last_word(final).splitlines():
                self._out.print(f"{host}/{line}", markup=False)
        else:
            self._err.print(f"{host}: {text.last_word(final)}", markup=False)
        return max(exit_code(final), min(one.value.code, 1))

    def _failed(self, one: Answered[AgentReply]) -> int:
        if self._as_json and one.error is not None:
            said = {"host": one.target.name, "kind": "failed", "code": 1}
            click.echo(json.dumps(said | {"error": one.error.what, "next": one.error.next}))
        else:
            self._err.print(str(one.error), markup=False)
        return 1
