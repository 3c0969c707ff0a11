"""The verbs of ``farrier-agent`` that speak with the running agent.

Each ``cli_…`` takes parsed arguments and returns the exit code: 0 done, 1 failed, 2 wrong usage,
3 refused. Results go to standard output, progress and errors to standard error; with ``--json``
every reply is a line on standard output as it was spoken, the last word last.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from farrier_agent.config import AgentConfig
from farrier_agent.control import rollout_commands
from farrier_agent.control.arguments import add_common, add_token
from farrier_agent.control.running import run

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

__all__ = [
    "add_commands",
    "cli_ack",
    "cli_drain",
    "cli_evidence",
    "cli_fingerprint",
    "cli_journal",
    "cli_nvml",
    "cli_ready",
    "cli_restart",
    "cli_status",
]


def add_commands(commands: Commands) -> None:
    """Add every verb to *commands*; ``arguments.verb(arguments)`` runs the one that was chosen."""
    one = _add(commands, "drain", "let no new request in, let the running ones finish")
    _replicas(one)
    _deadline(one)
    _waiting(one, "return when it is drained, not as soon as it drains")
    one.set_defaults(verb=cli_drain)

    one = _add(commands, "ready", "take a drain back")
    _replicas(one)
    _waiting(one, "return when the gate is open")
    one.set_defaults(verb=cli_ready)

    one = _add(commands, "restart", "drain, restart the engine, warm up")
    _replicas(one)
    _deadline(one)
    _waiting(one, "return when it is ready again")
    one.set_defaults(verb=cli_restart)

    one = _add(commands, "evidence", "collect what explains how a replica fares")
    one.add_argument("replica", metavar="REPLICA")
    one.add_argument("--reason", default="", metavar="TEXT", help="for the journal")
    one.set_defaults(verb=cli_evidence)

    one = _add(commands, "fingerprint", "what this host is made of, and how fast it is")
    one.add_argument("action", choices=("record", "check", "show", "measure"))
    one.add_argument("replicas", nargs="*", metavar="REPLICA", help="[every one]")
    one.add_argument(
        "--seconds", type=float, default=20, metavar="S", help="to measure each [%(default)s]"
    )
    one.add_argument(
        "--tolerance",
        type=float,
        default=0.1,
        metavar="SHARE",
        help="by which a replica may be slower [%(default)s]",
    )
    one.set_defaults(verb=cli_fingerprint)

    one = _add(commands, "journal", "what the agent logged about its replicas")
    one.add_argument("replica", nargs="?", metavar="REPLICA")
    one.add_argument("--lines", type=int, default=100, metavar="N", help="[%(default)s]")
    one.add_argument("--follow", action="store_true", help="go on with what is logged")
    one.set_defaults(verb=cli_journal)

    one = _add(commands, "ack", "a fault of a GPU was seen to: let its verdict clear")
    one.add_argument("rule", nargs="?", metavar="RULE", help="as status names it [every one]")
    one.add_argument("gpu", nargs="?", metavar="GPU", help="uuid or index [every one]")
    one.add_argument("--reason", default="", metavar="TEXT", help="for the journal")
    one.set_defaults(verb=cli_ack)

    one = _add(commands, "nvml", "let go of the GPUs' driver, or take it up again")
    one.add_argument("action", choices=("release", "acquire"))
    one.add_argument(
        "--for",
        dest="seconds",
        type=float,
        metavar="SECONDS",
        help="take it up by itself after that [900]",
    )
    one.set_defaults(verb=cli_nvml)

    rollout_commands.add_commands(commands)


def _add(commands: Commands, name: str, help: str) -> argparse.ArgumentParser:  # noqa: A002
    one = commands.add_parser(name, help=help, allow_abbrev=False)
    add_common(one)
    return one


def _replicas(one: argparse.ArgumentParser) -> None:
    one.add_argument("replicas", nargs="*", metavar="REPLICA")
    one.add_argument("--all", action="store_true", help="every replica of this host")
    one.add_argument("--reason", default="", metavar="TEXT", help="for the journal")
    one.add_argument(
        "--holder", default="", metavar="WHO", help="who asks, as alice@laptop; for the audit"
    )
    add_token(one, required=False)


def _deadline(one: argparse.ArgumentParser) -> None:
    one.add_argument(
        "--deadline", type=float, metavar="SECONDS", help="how long it may take [as configured]"
    )
    one.add_argument(
        "--on-deadline",
        choices=("extend", "abort", "force"),
        help="wait on, take the drain back, or cut what still runs [as configured]",
    )


def _waiting(one: argparse.ArgumentParser, help: str) -> None:  # noqa: A002
    one.add_argument("--wait", action="store_true", help=help)


def cli_status(config: AgentConfig, *, as_json: bool) -> int:
    """Print what the agent knows, asked over its socket."""
    socket = Path(config.run_dir) / "control.sock"
    arguments = argparse.Namespace(command="status", socket=socket, json=as_json)
    return run(arguments, {"verb": "status"})


def cli_drain(arguments: argparse.Namespace) -> int:
    """Drain replicas."""
    return run(arguments, {"verb": "drain", **_of(arguments), **_by(arguments)})


def cli_ready(arguments: argparse.Namespace) -> int:
    """Take drains back."""
    return run(arguments, {"verb": "ready", **_of(arguments)})


def cli_restart(arguments: argparse.Namespace) -> int:
    """Restart replicas without cutting a request."""
    return run(arguments, {"verb": "restart", **_of(arguments), **_by(arguments)})


def cli_evidence(arguments: argparse.Namespace) -> int:
    """Collect evidence about a replica."""
    fields = {"replica": arguments.replica, "reason": arguments.reason}
    return run(arguments, {"verb": "evidence", **fields})


def cli_fingerprint(arguments: argparse.Namespace) -> int:
    """Record what the host is made of, or compare with it."""
    names = ("action", "replicas", "seconds", "tolerance")
    fields = {name: getattr(arguments, name) for name in names}
    return run(arguments, {"verb": "fingerprint", **fields})


def cli_journal(arguments: argparse.Namespace) -> int:
    """Print what the agent logged."""
    fields = {
        "replica": arguments.replica,
        "lines": arguments.lines,
        "follow": arguments.follow,
    }
    return run(arguments, {"verb": "journal", **fields})


def cli_ack(arguments: argparse.Namespace) -> int:
    """Clear what is latched."""
    fields = {"rule": arguments.rule, "gpu": arguments.gpu, "reason": arguments.reason}
    return run(arguments, {"verb": "ack", **fields})


def cli_nvml(arguments: argparse.Namespace) -> int:
    """Let go of the driver, or take it up."""
    fields = {"action": arguments.action, "seconds": arguments.seconds}
    return run(arguments, {"verb": "nvml", **fields})


def _of(arguments: argparse.Namespace) -> dict[str, object]:
    return {
        "replicas": arguments.replicas,
        "all": arguments.all,
        "wait": arguments.wait,
        "reason": arguments.reason,
        "holder": arguments.holder,
        "token": arguments.token,
    }


def _by(arguments: argparse.Namespace) -> dict[str, object]:
    return {"deadline": arguments.deadline, "on_deadline": arguments.on_deadline}
