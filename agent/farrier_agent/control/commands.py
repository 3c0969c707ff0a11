"""The verbs of ``farrier-agent`` that speak with the running agent.

Each ``cli_…`` takes parsed arguments and returns the exit code: 0 done, 1 failed, 2 wrong usage,
3 refused. Results go to standard output, progress and errors to standard error; with ``--json``
every reply is a line on standard output as it was spoken, the last word last.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from farrier_agent import status
from farrier_agent.config import AgentConfig
from farrier_agent.control import protocol, text
from farrier_agent.control.again import Agent, ask_until_done, restart_and_watch
from farrier_agent.control.errors import ControlError, LostError, UsageError
from farrier_agent.control.listening import DEFAULT_PATH
from farrier_agent.control.protocol import (
    Drain,
    Entry,
    Failed,
    Final,
    News,
    Ready,
    Report,
    Request,
    Restart,
)
from farrier_agent.wording import printable

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

__all__ = [
    "add_commands",
    "cli_ack",
    "cli_drain",
    "cli_evidence",
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


def _add(commands: Commands, name: str, help: str) -> argparse.ArgumentParser:  # noqa: A002
    one = commands.add_parser(name, help=help, allow_abbrev=False)
    one.add_argument(
        "--socket", type=Path, default=DEFAULT_PATH, metavar="PATH", help="[%(default)s]"
    )
    one.add_argument("--json", action="store_true", help="every reply as a line of JSON")
    return one


def _replicas(one: argparse.ArgumentParser) -> None:
    one.add_argument("replicas", nargs="*", metavar="REPLICA")
    one.add_argument("--all", action="store_true", help="every replica of this host")
    one.add_argument("--reason", default="", metavar="TEXT", help="for the journal")


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
    return _run(arguments, {"verb": "status"})


def cli_drain(arguments: argparse.Namespace) -> int:
    """Drain replicas."""
    return _run(arguments, {"verb": "drain", **_of(arguments), **_by(arguments)})


def cli_ready(arguments: argparse.Namespace) -> int:
    """Take drains back."""
    return _run(arguments, {"verb": "ready", **_of(arguments)})


def cli_restart(arguments: argparse.Namespace) -> int:
    """Restart replicas without cutting a request."""
    return _run(arguments, {"verb": "restart", **_of(arguments), **_by(arguments)})


def cli_evidence(arguments: argparse.Namespace) -> int:
    """Collect evidence about a replica."""
    fields = {"replica": arguments.replica, "reason": arguments.reason}
    return _run(arguments, {"verb": "evidence", **fields})


def cli_journal(arguments: argparse.Namespace) -> int:
    """Print what the agent logged."""
    fields = {
        "replica": arguments.replica,
        "lines": arguments.lines,
        "follow": arguments.follow,
    }
    return _run(arguments, {"verb": "journal", **fields})


def cli_ack(arguments: argparse.Namespace) -> int:
    """Clear what is latched."""
    fields = {"rule": arguments.rule, "gpu": arguments.gpu, "reason": arguments.reason}
    return _run(arguments, {"verb": "ack", **fields})


def cli_nvml(arguments: argparse.Namespace) -> int:
    """Let go of the driver, or take it up."""
    fields = {"action": arguments.action, "seconds": arguments.seconds}
    return _run(arguments, {"verb": "nvml", **fields})


def _of(arguments: argparse.Namespace) -> dict[str, object]:
    return {
        "replicas": arguments.replicas,
        "all": arguments.all,
        "wait": arguments.wait,
        "reason": arguments.reason,
    }


def _by(arguments: argparse.Namespace) -> dict[str, object]:
    return {"deadline": arguments.deadline, "on_deadline": arguments.on_deadline}


def _run(arguments: argparse.Namespace, fields: dict[str, object]) -> int:
    try:
        return _say(_last_word(arguments, fields), as_json=arguments.json)
    except BrokenPipeError:
        # whoever read our output has read enough (as `journal --follow | head`): nothing to say,
        # and nothing for the interpreter to flush at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _last_word(arguments: argparse.Namespace, fields: dict[str, object]) -> Final:
    agent = Agent(arguments.socket, _hearing(as_json=arguments.json), _note)
    try:
        return _asked(agent, _request(fields), arguments)
    except ControlError as error:
        return Failed(code=error.code, error=str(error), next=error.next)
    except KeyboardInterrupt:
        said = "interrupted; what was begun goes on"
        return Failed(code=1, error=said, next="farrier-agent status")


def _asked(agent: Agent, request: Request, arguments: argparse.Namespace) -> Final:
    if isinstance(request, Drain | Ready):
        return ask_until_done(agent, request)
    if isinstance(request, Restart):
        return restart_and_watch(agent, request)
    try:
        return agent.ask(request)
    except LostError as error:
        # an ack without its words would be one of everything
        what = (getattr(arguments, one, None) for one in ("replica", "action", "rule", "gpu"))
        again = " ".join(filter(None, ("farrier-agent", arguments.command, *what)))
        said = "the agent went away before its last word; ask again when it is back"
        raise LostError(said, again) from error


def _note(said: str) -> None:
    print(f"farrier-agent: {printable(said)}", file=sys.stderr, flush=True)


def _request(fields: dict[str, object]) -> Request:
    """The request with *fields*. Raises UsageError that names the one that is wrong."""
    wanted = {key: value for key, value in fields.items() if value is not None}
    try:
        request: Request = msgspec.convert(wanted, Request)
    except msgspec.ValidationError as error:
        raise UsageError(f"{fields['verb']}: {error}") from error
    return request


def _hearing(*, as_json: bool) -> Callable[[News], None]:
    """Prints news; for people each only when it says something new."""
    last: dict[str, tuple[object, ...]] = {}

    def hear(one: News) -> None:
        if as_json:
            _line(protocol.encode(one).decode())
            return
        if isinstance(one, Entry):
            _line(text.news(one) + "\n")
            return
        # not the time to the deadline: it is another one each second
        said = (one.state, one.in_flight, one.text)
        if last.get(one.replica) != said:
            last[one.replica] = said
            print(text.news(one), file=sys.stderr, flush=True)

    return hear


def _line(line: str) -> None:
    sys.stdout.write(line)
    sys.stdout.flush()


def _say(final: Final, *, as_json: bool) -> int:
    code = protocol.exit_code(final)
    if as_json:
        whole = status.dumps(final.status) if isinstance(final, Report) else None
        _line((whole + b"\n" if whole else protocol.encode(final)).decode())
    elif isinstance(final, Failed):
        print(f"farrier-agent: {text.last_word(final)}", file=sys.stderr)
    elif said := text.last_word(final):
        print(said)
    return code
