"""Arguments that many verbs of the command line have."""

from __future__ import annotations

import argparse
from pathlib import Path

from farrier_agent.control.listening import DEFAULT_PATH

__all__ = ["add_common", "add_token"]


def add_common(one: argparse.ArgumentParser, *, inner: bool = False) -> None:
    """Which agent is asked, and how it is printed. *inner*: *one* is below one that has them."""
    # what an inner parser does not set stays as the outer one has it
    socket = argparse.SUPPRESS if inner else DEFAULT_PATH
    json = argparse.SUPPRESS if inner else False
    text = f"[{DEFAULT_PATH}]"
    one.add_argument("--socket", type=Path, default=socket, metavar="PATH", help=text)
    text = "every reply as a line of JSON"
    one.add_argument("--json", action="store_true", default=json, help=text)


def add_token(one: argparse.ArgumentParser, *, required: bool = True) -> None:
    """The number of a rollout's lease."""
    one.add_argument(
        "--token", type=int, required=required, metavar="N", help="of the rollout's lease"
    )
