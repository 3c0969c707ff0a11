"""The command ``farrier-agent``.

``status`` is asked over HTTP, which anybody may; the verbs of :mod:`.control.commands` go over the
control socket. Exit codes: 0 done, 1 failed, 2 wrong usage, 3 refused by a safety check.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

import msgspec

from farrier_agent import __version__, journal, status, table
from farrier_agent.boards import commands as boards
from farrier_agent.config import (
    COLLECTORS,
    DEFAULT_PATH,
    AgentConfig,
    ConfigError,
    load,
    split_address,
)
from farrier_agent.control import commands

__all__ = ["main"]

TIMEOUT = 5.0


class FailedError(Exception):
    """What was asked for did not work; the message says what, why and what to do next."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="farrier-agent", description="Farrier's on-host agent.", allow_abbrev=False
    )
    verbs = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, text in (("run", "run the agent"), ("status", "what the running agent knows")):
        command = verbs.add_parser(name, help=text, allow_abbrev=False)
        command.add_argument(
            "--config", type=Path, default=DEFAULT_PATH, metavar="PATH", help="[%(default)s]"
        )
        if name == "status":
            command.add_argument("--json", action="store_true", help="as the agent serves it")
        else:
            _add_collectors(command)
    commands.add_commands(verbs)
    boards.add_commands(verbs)
    check = verbs.add_parser("check-config", help="say whether a file can be used")
    check.add_argument("path", type=Path, metavar="PATH")
    verbs.add_parser("version", help="print the versions of the agent and its Python")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    options = _parser().parse_args(arguments)
    if hasattr(options, "verb"):
        code: int = options.verb(options)
        return code
    try:
        if options.command == "run":
            _run(options.config, options.collectors or (), options.nvml_library)
        elif options.command == "status":
            _status(load(options.config), as_json=options.json)
        elif options.command == "check-config":
            config = load(options.path)
            if config.web_config:
                _check_web(Path(config.web_config))
            print(f"{options.path}: good: host {config.host}, {len(config.replicas)} replica(s)")
        else:
            print(f"farrier-agent {__version__} (Python {platform.python_version()})")
    except (ConfigError, FailedError) as error:
        print(f"farrier-agent: {error}", file=sys.stderr)
        return 1
    return 0


def _add_collectors(command: argparse.ArgumentParser) -> None:
    """As node_exporter has them; each counts more than ``collectors_off`` of the file."""
    for name in COLLECTORS:
        for flag, value in ((f"--collector.{name}", True), (f"--no-collector.{name}", False)):
            command.add_argument(
                flag,
                dest="collectors",
                action="append_const",
                const=(name, value),
                help=f"run the collector {name}" if value else argparse.SUPPRESS,
            )
    command.add_argument(
        "--nvml-library", metavar="PATH", help="libnvidia-ml.so.1 to load [the linker's choice]"
    )


def _read(path: Path, collectors: Mapping[str, bool], library: str | None) -> AgentConfig:
    config = load(path)
    off = [
        name for name in COLLECTORS if not collectors.get(name, name not in config.collectors_off)
    ]
    return msgspec.structs.replace(
        config, collectors_off=off, nvml_library=library or config.nvml_library
    )


def _run(path: Path, collectors: Iterable[tuple[str, bool]], library: str | None) -> None:
    # the other commands start without it
    from farrier_agent import listeners, process  # noqa: PLC0415

    read = partial(_read, path, dict(collectors), library)
    read()
    journal.set_up()
    try:
        process.run(path, read, os.environ)
    except listeners.ListenError as error:
        raise FailedError(str(error)) from error


def _check_web(path: Path) -> None:
    from farrier_agent.web import WebConfigError, check  # noqa: PLC0415 - few need it

    try:
        print(f"{path}: good: {check(path)}")
    except WebConfigError as error:
        raise FailedError(str(error)) from error


def _status(config: AgentConfig, *, as_json: bool) -> None:
    if config.web_config is not None:
        # its HTTP endpoint wants certificates or a password; its socket knows who asks
        sys.exit(commands.cli_status(config, as_json=as_json))
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
    # of a short program's time it takes a quarter, and only this verb needs it
    import http.client  # noqa: PLC0415

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
