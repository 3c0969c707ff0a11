"""The page ``/metrics`` in its forms, made before it is asked for.

A form that somebody asked for lately is made once per tick, and compressed once. The first question
for a form, and any for a selection of collectors, makes it there and then, of the same samples.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable

from farrier_agent.metrics.family import Format
from farrier_agent.metrics.page import Page

__all__ = ["MAX_SELECTIONS", "WANTED_SECONDS", "Exposition", "TooManySelectionsError", "gzip"]

WANTED_SECONDS = 300.0
"""A form is made in advance for so long after the last question for it."""
MAX_SELECTIONS = 16
"""Selections of collectors that are made in one tick: whoever asks for more keeps us busy."""

Selection = frozenset[str] | None


class TooManySelectionsError(Exception):
    """No more selections are made in this tick."""


def gzip(body: bytes) -> bytes:
    """*body* compressed at level 1: 0.2 ms for 100 kB, where level 9 takes 4.6 ms."""
    packer = zlib.compressobj(1, zlib.DEFLATED, 31)
    return packer.compress(body) + packer.flush()


class Exposition:
    """The page as *gather* finds it; *clock* counts seconds."""

    def __init__(
        self, gather: Callable[[], Page], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._gather = gather
        self._page: Page | None = None
        self._clock = clock
        self._made: dict[tuple[Format, Selection], bytes] = {}
        self._packed: dict[tuple[Format, Selection], bytes] = {}
        self._asked: dict[tuple[Format, bool], float] = {}

    def renew(self) -> None:
        """Make what is wanted anew, and forget the rest."""
        self._page = None
        self._made.clear()
        self._packed.clear()
        since = self._clock() - WANTED_SECONDS
        self._asked = {form: at for form, at in self._asked.items() if at >= since}
        for form, packed in self._asked:
            self._get(form, None, packed=packed)

    def get(self, form: Format, selection: Selection = None, *, packed: bool = False) -> bytes:
        """The page; *packed*: compressed with gzip. Raises TooManySelectionsError."""
        if selection is None:
            self._asked[form, packed] = self._clock()
        return self._get(form, selection, packed=packed)

    def _get(self, form: Format, selection: Selection, *, packed: bool) -> bytes:
        key = (form, selection)
        body = self._made.get(key)
        if body is None:
            selections = len(self._made) - sum(1 for _, one in self._made if one is None)
            if selection is not None and selections >= MAX_SELECTIONS:
                raise TooManySelectionsError
            self._page = self._page or self._gather()
            body = self._made[key] = self._page.text(form, selection)
        if not packed:
            return body
        if key not in self._packed:
            self._packed[key] = gzip(body)
        return self._packed[key]
