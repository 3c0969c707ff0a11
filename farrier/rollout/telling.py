"""Shows a rollout while it runs: a line for each host on a terminal, else a line for each news."""

from __future__ import annotations

import threading
import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.table import Table

__all__ = ["Telling"]


class Telling:
    """Hears what is done on which host (``""``: on none), from several threads."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._lock = threading.Lock()
        self._lines: dict[str, tuple[float, str]] = {}
        self._live: Live | None = None

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live = Live(
                get_renderable=self._table, console=self._console, refresh_per_second=4
            )
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live:
            self._live.stop()

    def __call__(self, host: str, what: str) -> None:
        """*what* is done on *host* now."""
        what = "".join(one if one.isprintable() else " " for one in what)
        with self._lock:
            if self._lines.get(host, (0.0, ""))[1] == what:
                return
            self._lines[host] = (time.monotonic(), what)
        if self._live is None:
            clock = time.strftime("%H:%M:%S")
            name = f"{host}: " if host else ""
            self._console.print(f"{clock} {name}{what}", highlight=False, markup=False)

    def _table(self) -> Table:
        table = Table.grid(padding=(0, 2))
        now = time.monotonic()
        with self._lock:
            for host, (since, what) in self._lines.items():
                table.add_row(host, what.split("\n", 1)[0][:160], f"{now - since:.0f} s")
        return table
