"""Runs one verb of the command line: asks the agent, prints what it tells, and the last word."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Mapping

import msgspec

from farrier_agent import status
from farrier_agent.control import protocol, text
from farrier_agent.control.again import (
    Agent,
    act_restart,
    ask_again,
    ask_until_done,
    restart_and_watch,
)
from farrier_agent.control.errors import ControlError, LostError, UsageError
from farrier_agent.control.protocol import (
    Act,
    Audit,
    Drain,
    Entry,
    Failed,
    Final,
    Lease,
    Ledger,
    News,
    Ready,
    Report,
    Request,
    Restart,
)
from farrier_agent.wording import printable

__all__ = ["agent_of", "request_of", "run", "say"]


def run(arguments: argparse.Namespace, fields: Mapping[str, object], content: bytes = b"") -> int:
    """Ask for the request with *fields*, print what comes of it, return the exit code.

    *content* is what follows the request.
    """
    try:
        return say(_last_word(arguments, fields, content), as_json=arguments.json)
    except BrokenPipeError:
        # whoever read our output has read enough (as `journal --follow | head`): nothing to say,
        # and nothing for the interpreter to flush at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _last_word(
    arguments: argparse.Namespace, fields: Mapping[str, object], content: bytes
) -> Final:
    agent = agent_of(arguments)
    try:
        return _asked(agent, request_of(fields), arguments, content)
    except ControlError as error:
        return Failed(code=error.code, error=str(error), next=error.next)
    except KeyboardInterrupt:
        said = "interrupted; what was begun goes on"
        return Failed(code=1, error=said, next="farrier-agent status")


def agent_of(arguments: argparse.Namespace) -> Agent:
    """The agent that *arguments* name, whose news are printed."""
    return Agent(arguments.socket, _hearing(as_json=arguments.json), _note)


def _asked(agent: Agent, request: Request, arguments: argparse.Namespace, content: bytes) -> Final:
    if isinstance(request, Drain | Ready):
        return ask_until_done(agent, request)
    if isinstance(request, Restart):
        return restart_and_watch(agent, request)
    if isinstance(request, Act) and request.action == "restart":
        return act_restart(agent, request)
    if isinstance(request, Lease | Ledger | Audit | Act):
        return ask_again(agent, request, content)
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


def request_of(fields: Mapping[str, object]) -> Request:
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


def say(final: Final, *, as_json: bool) -> int:
    """Print *final*; its exit code."""
    code = protocol.exit_code(final)
    if as_json:
        whole = status.dumps(final.status) if isinstance(final, Report) else None
        _line((whole + b"\n" if whole else protocol.encode(final)).decode())
    elif isinstance(final, Failed):
        print(f"farrier-agent: {text.last_word(final)}", file=sys.stderr)
    elif said := text.last_word(final):
        print(said)
    return code
