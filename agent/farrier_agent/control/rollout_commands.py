"""The verbs of ``farrier-agent`` that rollouts use: lease, act, audit, ledger.

A token that is not the present lease's is exit code 3, and nothing was done.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from farrier_agent.control.arguments import add_common, add_token
from farrier_agent.control.protocol import Failed
from farrier_agent.control.requests import MAX_LEDGER
from farrier_agent.control.running import run, say

if TYPE_CHECKING:
    Parsers = argparse._SubParsersAction[argparse.ArgumentParser]

__all__ = ["add_commands", "cli_act", "cli_audit", "cli_deed", "cli_lease", "cli_ledger"]

_PLACES = {
    "units": "/etc/systemd/system",
    "previous": "/var/lib/farrier/previous",
    "started": "/run/farrier/started",
    "records": "/var/lib/farrier/replicas",
}
"""Where a unit, the one before it and what is known of its run are."""
_HOST = {"note": "/var/lib/farrier/rollout", "proc": "/proc", "dev": "/dev"}
"""Where a host keeps what it let go of, and says who has its GPUs."""


def add_commands(commands: Parsers) -> None:
    """Add the verbs to *commands*; ``arguments.verb(arguments)`` runs the one that was chosen."""
    _lease(_actions(commands, "lease", "who may roll something out on this host"))
    _act(_actions(commands, "act", "what a rollout does to this host, marked before it is done"))
    one = commands.add_parser("audit", help="what was done here, and by whom", allow_abbrev=False)
    add_common(one)
    one.add_argument("--lines", type=int, default=100, metavar="N", help="[%(default)s]")
    one.add_argument("--note", default="", metavar="WORDS", help="add a line first (root)")
    one.add_argument("--holder", default="", metavar="WHO", help="of the note: as alice@laptop")
    one.add_argument("--rollout", default=None, metavar="ID", help="of the note")
    one.set_defaults(verb=cli_audit)
    _ledger(_actions(commands, "ledger", "copies of rollouts' ledgers"))


def _lease(actions: Parsers) -> None:
    one = _action(actions, "take", "take it; whoever has it for the same rollout is fenced off")
    one.add_argument("--rollout", required=True, metavar="ID")
    one.add_argument("--holder", required=True, metavar="WHO", help="as alice@laptop")
    one.add_argument("--seconds", type=float, default=60, metavar="S", help="[%(default)s]")
    one.add_argument(
        "--takeover", action="store_true", help="also from a rollout that left this host half done"
    )
    one.set_defaults(verb=cli_lease)
    one = _action(actions, "renew", "have it for longer")
    add_token(one)
    one.add_argument("--seconds", type=float, metavar="S", help="from now [as it was taken]")
    one.set_defaults(verb=cli_lease)
    one = _action(actions, "release", "give it back: what it holds closed is served again")
    add_token(one)
    one.set_defaults(verb=cli_lease)
    _action(actions, "show", "who has it").set_defaults(verb=cli_lease)


def _act(actions: Parsers) -> None:
    one = _action(actions, "restart", "restart drained replicas and warm them up, gates closed")
    add_token(one)
    one.add_argument("replicas", nargs="*", metavar="REPLICA")
    one.add_argument("--all", action="store_true", help="every replica of this host")
    one.add_argument(
        "--run",
        dest="runs",
        action="append",
        default=[],
        metavar="REPLICA=ID",
        help="the run of the unit that is to end: in another one it was restarted already",
    )
    one.set_defaults(verb=cli_act)
    one = _action(actions, "converge", "only the mark: this host is being converged")
    add_token(one)
    one.set_defaults(verb=cli_act)
    one = _action(actions, "reboot", "mark, then systemctl reboot (root)")
    add_token(one)
    one.set_defaults(verb=cli_deed)
    one = _action(actions, "run", "mark, then run a command (root)")
    add_token(one)
    one.add_argument("words", nargs="+", metavar="CMD", help="behind --")
    one.set_defaults(verb=cli_deed)
    one = _action(actions, "back", "put the units of replicas back to those from before (root)")
    add_token(one)
    one.add_argument("replicas", nargs="+", metavar="REPLICA")
    for name, place in _PLACES.items():
        one.add_argument(f"--{name}-dir", type=Path, default=Path(place), help=argparse.SUPPRESS)
    one.set_defaults(verb=cli_deed)
    one = _action(actions, "let-go", "stop what has the GPUs (root)")
    one.add_argument("--deed", required=True, choices=("driver", "gpu-reset", "gpu-diag"))
    one.add_argument("--gpu", dest="gpus", action="append", default=[], metavar="UUID")
    _of_host(one)
    one = _action(actions, "take-up", "start again what was stopped to let go (root)")
    _of_host(one)
    one = _action(actions, "gpu-reset", "reset GPUs that nobody has (root)")
    add_token(one)
    one.add_argument(
        "--gpu", dest="gpus", action="append", required=True, metavar="UUID", help="or more"
    )
    one.set_defaults(verb=cli_deed)
    one = _action(actions, "gpu-diag", "have DCGM diagnose GPUs that nobody has (root)")
    add_token(one)
    one.add_argument("--level", type=int, choices=range(1, 5), required=True)
    text = "the same number is told what came of it, another one diagnoses anew [0]"
    one.add_argument("--attempt", type=int, default=0, metavar="N", help=text)
    text = "[every one]"
    one.add_argument("--gpu", dest="gpus", action="append", default=[], metavar="UUID", help=text)
    _place(one, "note")
    one.set_defaults(verb=cli_deed)
    one = _action(actions, "done", "all is well: take the mark away")
    add_token(one, required=False)
    one.set_defaults(verb=cli_act)


def _of_host(one: argparse.ArgumentParser) -> None:
    add_token(one)
    one.add_argument("replicas", nargs="+", metavar="REPLICA")
    for name in _HOST:
        _place(one, name)
    one.add_argument("--sys-dir", type=Path, default=None, help=argparse.SUPPRESS)
    one.set_defaults(verb=cli_deed)


def _place(one: argparse.ArgumentParser, name: str) -> None:
    place = Path(_HOST[name])
    one.add_argument(f"--{name}-dir", type=Path, default=place, help=argparse.SUPPRESS)


def _ledger(actions: Parsers) -> None:
    one = _action(actions, "put", "keep the JSON on standard input")
    one.add_argument("id", metavar="ID")
    add_token(one)
    one.set_defaults(verb=cli_ledger)
    one = _action(actions, "get", "print one")
    one.add_argument("id", metavar="ID")
    one.set_defaults(verb=cli_ledger)
    _action(actions, "list", "which there are").set_defaults(verb=cli_ledger)


def _actions(commands: Parsers, name: str, help: str) -> Parsers:  # noqa: A002
    one = commands.add_parser(name, help=help, allow_abbrev=False)
    add_common(one)
    return one.add_subparsers(dest="action", required=True, metavar="ACTION")


def _action(actions: Parsers, name: str, help: str) -> argparse.ArgumentParser:  # noqa: A002
    one = actions.add_parser(name, help=help, allow_abbrev=False)
    add_common(one, inner=True)
    return one


def cli_lease(arguments: argparse.Namespace) -> int:
    """Take, renew, release or show the lease."""
    return run(
        arguments,
        _given(arguments, "lease", "action", "rollout", "holder", "seconds", "takeover", "token"),
    )


def cli_act(arguments: argparse.Namespace) -> int:
    """Have the agent act, or only mark that somebody does."""
    given = _given(arguments, "act", "action", "token", "replicas", "all")
    if runs := getattr(arguments, "runs", None):
        # one without "=" has no run, which the request refuses with the field's name
        given["runs"] = {name: run_id for name, _, run_id in (one.partition("=") for one in runs)}
    return run(arguments, given)


def cli_deed(arguments: argparse.Namespace) -> int:
    """Do as root what the agent must not: reboot, run a command, put units back, let go, reset."""
    if arguments.action in {"let-go", "take-up"}:
        from farrier_agent.rollout.letting_go import let_go, take_up  # noqa: PLC0415 - few need it

        return let_go(arguments) if arguments.action == "let-go" else take_up(arguments)
    if arguments.action == "gpu-reset":
        from farrier_agent.boards.resetting import gpu_reset  # noqa: PLC0415 - few need it

        return gpu_reset(arguments)
    if arguments.action == "gpu-diag":
        from farrier_agent.boards.diagnosing import gpu_diag  # noqa: PLC0415 - few need it

        return gpu_diag(arguments)
    from farrier_agent.rollout.deed import (  # noqa: PLC0415 - few need it
        put_units_back,
        reboot,
        run_command,
    )

    if arguments.action == "reboot":
        return reboot(arguments)
    if arguments.action == "back":
        return put_units_back(arguments)
    return run_command(arguments, arguments.words)


def cli_audit(arguments: argparse.Namespace) -> int:
    """Print what was done to this host, after a note of something more."""
    note = ("note", "holder", "rollout") if arguments.note else ()  # older agents know no notes
    return run(arguments, _given(arguments, "audit", "lines", *note))


def cli_ledger(arguments: argparse.Namespace) -> int:
    """Keep, print or list copies of ledgers."""
    content = b""
    if arguments.action == "put":
        content = sys.stdin.buffer.read(MAX_LEDGER + 1)
        if len(content) > MAX_LEDGER:
            error = f"a ledger of more than {MAX_LEDGER} bytes is not kept"
            return say(Failed(code=2, error=error), as_json=arguments.json)
    size = {"size": len(content)} if content else {}
    return run(arguments, _given(arguments, "ledger", "action", "id", "token") | size, content)


def _given(arguments: argparse.Namespace, verb: str, *names: str) -> dict[str, object]:
    given = {name: getattr(arguments, name) for name in names if hasattr(arguments, name)}
    return {"verb": verb, **given}
