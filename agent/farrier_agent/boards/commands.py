"""The verb ``farrier-agent gpu``: as root, about a GPU's board."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from farrier_agent.config import DEFAULT_PATH, ConfigError, load
from farrier_agent.control.arguments import add_common
from farrier_agent.control.errors import ControlError, RefusedError
from farrier_agent.control.protocol import Failed, Final
from farrier_agent.control.running import say

if TYPE_CHECKING:
    Parsers = argparse._SubParsersAction[argparse.ArgumentParser]

__all__ = ["DIRECTORY", "add_commands", "cli_bundle"]

DIRECTORY = Path("/var/lib/farrier/bundles")
"""Where bundles lie on the host: root's, 0700."""
BUG_REPORT_SECONDS = 180.0


def add_commands(commands: Parsers) -> None:
    """Add the verb to *commands*."""
    one = commands.add_parser("gpu", help="a GPU's board: what goes with it", allow_abbrev=False)
    add_common(one)
    actions = one.add_subparsers(dest="action", required=True, metavar="ACTION")
    text = "gather what goes with a board that is returned (root)"
    one = actions.add_parser("bundle", help=text, allow_abbrev=False)
    add_common(one, inner=True)
    one.add_argument("gpu", nargs="?", metavar="GPU", help="index, uuid or its beginning [all]")
    one.add_argument("--config", type=Path, default=DEFAULT_PATH, help="[%(default)s]")
    one.add_argument("--directory", type=Path, default=DIRECTORY, help="[%(default)s]")
    one.add_argument(
        "--bug-report-seconds",
        type=float,
        default=BUG_REPORT_SECONDS,
        metavar="S",
        help="how long NVIDIA's own report may take; 0: without it [%(default)s]",
    )
    one.set_defaults(verb=cli_bundle)


def cli_bundle(arguments: argparse.Namespace) -> int:
    """Gather, and say where it lies. Returns the exit code."""
    return say(_bundled(arguments), as_json=arguments.json)


def _bundled(arguments: argparse.Namespace) -> Final:
    try:
        if os.geteuid() != 0:
            raise RefusedError("only root may read what belongs into it", "the same with sudo")
        # its own needs: the other verbs start without them
        import asyncio  # noqa: PLC0415

        from farrier_agent.boards.bundling import Wanted, collect  # noqa: PLC0415

        wanted = Wanted(
            arguments.gpu, arguments.directory, arguments.socket, arguments.bug_report_seconds
        )
        return asyncio.run(collect(load(arguments.config), wanted))
    except ControlError as error:
        return Failed(code=error.code, error=str(error), next=error.next)
    except ConfigError as error:
        return Failed(code=1, error=str(error), next="farrier-agent check-config")
