"""Pages of docs/ that are made from the code: the command that writes one, rows of tables."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import click

__all__ = ["row", "writing"]


def row(cells: Iterable[str]) -> str:
    """A row of a table in Markdown."""
    told = (cell.replace("|", "\\|").replace("\n", "\\n") for cell in cells)
    return "| " + " | ".join(told) + " |"


def writing(path: Path, page: Callable[[], str], source: str) -> click.Command:
    """The command that writes *page* to *path*, or says that it is not as *source* say."""

    @click.command(help=f"Write docs/{path.name} from {source}.")
    @click.option("--check", is_flag=True, help="Write nothing; exit 1 unless the page is right.")
    def main(check: bool) -> None:
        there = path.read_text(encoding="utf-8") if path.exists() else ""
        text = page()
        if there == text:
            return
        if check:
            click.echo(f"{path.name}: not as {source} say\n  run: make docs", err=True)
            sys.exit(1)
        path.write_text(text, encoding="utf-8")

    return main
