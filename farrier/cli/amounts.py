"""Amounts as people write them on a command line: a share, a length of time."""

from __future__ import annotations

import re
from typing import Any

import click

__all__ = ["Duration", "Percent"]

_SECONDS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}
_LONGEST = 24 * 3600.0
_MOST = 50


class Percent(click.ParamType[int]):
    """A share, as of traffic for a canary: ``10%`` or ``10``, from 1 to 50, as an integer."""

    name = "percent"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The number of percent."""
        number = str(value).removesuffix("%")
        if not (number.isascii() and number.isdigit() and 1 <= int(number) <= _MOST):
            self.fail(f"{value}: a share from 1% to {_MOST}%", param, ctx)
        return int(number)


class Duration(click.ParamType[float]):
    """A length of time: ``15m``, ``90s``, ``1h`` or plain seconds, more than none, up to a day."""

    name = "duration"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Seconds."""
        match = re.fullmatch(r"([0-9]{1,6}(?:\.[0-9]{1,3})?)([smh]?)", str(value))
        seconds = float(match[1]) * _SECONDS[match[2]] if match else 0.0
        if not 0 < seconds <= _LONGEST:
            self.fail(f"{value}: a time like 15m, 90s, 1h or 900, at most a day", param, ctx)
        return seconds
