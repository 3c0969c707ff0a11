"""Tokens become text as they come: whole characters only, and nothing from a stop word on. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence

__all__ = ["Text"]

_BROKEN = "\ufffd"
"""What a decoder makes of bytes that are not a whole character yet."""


class Text:
    """The text of one answer, piece by piece.

    *decode* makes text of tokens. Decoders put or drop a space at the beginning, so a token's text
    is found with those before it. From the first of *stops* on the text is cut.
    """

    def __init__(self, decode: Callable[[list[int]], str], stops: Sequence[str] = ()) -> None:
        self._decode = decode
        self._stops = stops
        self._tokens: list[int] = []
        self._known = 0  # tokens whose text was given out; decoded again for what comes after them
        self._whole = 0
        self._held = ""
        self.stopped = False

    def add(self, token: int) -> str:
        """The text that *token* makes certain; often "", as when half a character is missing."""
        self._tokens.append(token)
        new = self._new()
        if not new or new.endswith(_BROKEN):
            return ""
        self._known, self._whole = self._whole, len(self._tokens)
        return self._give(new)

    def rest(self) -> str:
        """What was held back, now that no token follows."""
        if self.stopped:
            return ""
        given = self._give(self._new())
        held, self._held = ("" if self.stopped else self._held), ""
        return given + held

    def _new(self) -> str:
        before = self._decode(self._tokens[self._known : self._whole])
        return self._decode(self._tokens[self._known :])[len(before) :]

    def _give(self, new: str) -> str:
        text = self._held + new
        found = [at for stop in self._stops if (at := text.find(stop)) >= 0]
        if found:
            self.stopped = True
            self._held = ""
            return text[: min(found)]
        keep = max((_begun(text, stop) for stop in self._stops), default=0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]


def _begun(text: str, stop: str) -> int:
    """How many characters at the end of *text* are a beginning of *stop*."""
    for length in range(min(len(text), len(stop) - 1), 0, -1):
        if text.endswith(stop[:length]):
            return length
    return 0
