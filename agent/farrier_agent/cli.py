"""The command ``farrier-agent``.

``status`` is asked over HTTP, which anybody may; the verbs of :mod:`.control.commands` go over the
control socket. Exit codes: 0 done, 1 failed, 2 wrong usage, 3 refused by a safety check.
"""

from __future__ import annotations

import argparse
import http.client
import os
import platform
import sys
from collections.abc import Sequence
from pathlib import Path

from farrier_agent import __version__, journal, status, table
from farrier_agent.config import DEFAULT_PATH, AgentConfig, ConfigError, load, split_address
from farrier_agent.control.commands import add_commands

__all__ = ["main"]

TIMEOUT = 5.0


class FailedError(Exception):
    """What was asked for did not work; the message says what, why and what to do next."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="farrier-agent", description="Farrier's on-host agent.", allow_abbrev=False
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, text in (("run", "run the agent"), ("status", "what the running agent knows")):
        command = commands.add_parser(name, help=text, allow_abbrev=False)
        command.add_argument(
            "--config", type=Path, default=DEFAULT_PATH, metavar="PATH", help="[%(default)s]"
        )
        if name == "status":
            command.add_argument("--json", action="store_true", help="as the agent serves it")
    add_commands(commands)
    check = commands.add_parser("check-config", help="say whether a file can be used")
    check.add_argument("path", type=Path, metavar="PATH")
    commands.add_parser("version", help="print the versions of the agent and its Python")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    options = _parser().parse_args(arguments)
    if hasattr(options, "verb"):
        code: int = options.verb(options)
        return code
    try:
        if options.command == "run":
            _run(options.config)
        elif options.command == "status":
            _status(load(options.config), as_json=options.json)
        elif options.command == "check-config":
            config = load(options.path)
            print(f"{options.path}: good: host {config.host}, {len(config.replicas)} replica(s)")
        else:
            print(f"farrier-agent {__version__} (Python {platform.python_version()})")
    except (ConfigError, FailedError) as error:
        print(f"farrier-agent: {error}", file=sys.stderr)
        return 1
    return 0


def _run(path: Path) -> None:
    # the other commands start without it
    from farrier_agent import listeners, process  # noqa: PLC0415

    config = load(path)
    journal.set_up()
    try:
        process.run(path, config, os.environ)
    except listeners.ListenError as error:
        raise FailedError(str(error)) from error


def _status(config: AgentConfig, *, as_json: bool) -> None:
    answer = _ask(config)
    if as_json:
        print(answer.decode().strip())
        return
    try:
        print(table.render(status.loads(answer)))
    except status.StatusError as error:
        raise FailedError(str(error)) from error


def _ask(config: AgentConfig) -> bytes:
    address, port = split_address(config.listen)
    address = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address, address)  # noqa: S104
    connection = http.client.HTTPConnection(address, port, timeout=TIMEOUT)
    try:
        connection.request("GET", "/status")
        response = connection.getresponse()
        answer = response.read()
    except (OSError, http.client.HTTPException) as error:
        raise FailedError(
            f"the agent does not answer on {address}:{port}: {error}; "
            "next: systemctl status farrier-agent"
        ) from error
    finally:
        connection.close()
    if response.status != 200:
        raise FailedError(f"the agent answers {response.status} on {address}:{port}")
    return answer


if __name__ == "__main__":
    sys.exit(main())
