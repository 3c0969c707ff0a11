"""The demo's output: for people on a terminal, in a log without control codes, or silent."""

from __future__ import annotations

import os
import sys
import unicodedata

from rich.console import Console
from rich.table import Table

__all__ = ["Screen", "printable"]


def printable(text: str) -> str:
    """*text* of a model on one line: nothing in it can move the cursor or colour the terminal."""
    return "".join(
        " " if char.isspace() else "" if unicodedata.category(char).startswith("C") else char
        for char in text
    )


class Screen:
    """Lines, tables and words as they come. With *to_stderr* standard output is left to JSON."""

    def __init__(self, to_stderr: bool = False) -> None:
        stream = sys.stderr if to_stderr else sys.stdout
        # Where nobody watches, lines keep their length: they are read by grep and by people later.
        plain = not stream.isatty() or os.environ.get("TERM") == "dumb"
        self._console = Console(
            file=stream,
            highlight=False,
            markup=False,
            force_terminal=not plain,
            no_color=plain or None,
            width=160 if plain else None,
        )

    @property
    def descriptor(self) -> int:
        """Where a child process may write."""
        return self._console.file.fileno()

    @property
    def plain(self) -> bool:
        """Nobody watches: no progress that is drawn over itself."""
        return not self._console.is_terminal

    def title(self, text: str) -> None:
        """The start of a phase."""
        self._console.print(f"\n── {text}", style="bold cyan", soft_wrap=True)

    def line(self, text: str, style: str = "") -> None:
        """One line of *text*, never cut or wrapped."""
        self._console.print(text, style=style, soft_wrap=True)
        self._console.file.flush()

    def word(self, text: str, style: str = "") -> None:
        """*text* at once, without a line's end."""
        self._console.print(text, style=style, end="", soft_wrap=True)
        self._console.file.flush()

    def table(self, columns: list[str], rows: list[list[str]], right: tuple[str, ...] = ()) -> None:
        """*rows* under *columns*; those named in *right* are numbers."""
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
        for column in columns:
            table.add_column(
                column, justify="right" if column in right else "left", overflow="fold"
            )
        for row in rows:
            table.add_row(*row)
        self._console.print(table)
