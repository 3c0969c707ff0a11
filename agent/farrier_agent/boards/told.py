"""What is told of a reset and of a diagnosis: values that also cross the wire."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import msgspec

__all__ = ["AfterReset", "Tested", "Verdict", "tested_lines", "worst"]

Verdict = Literal["pass", "warn", "fail", "skip"]
_ORDER: tuple[Verdict, ...] = ("pass", "skip", "warn", "fail")


class AfterReset(msgspec.Struct, frozen=True, kw_only=True):
    """One GPU after its reset; ``amiss`` says what is not as a reset leaves it."""

    uuid: str
    index: int | None = None
    amiss: tuple[str, ...] = ()


class Tested(msgspec.Struct, frozen=True, kw_only=True):
    """One test of a diagnosis on one GPU: its UUID, None where it is of the whole host.

    ``words`` are DCGM's own.
    """

    test: str
    state: Verdict
    gpu: str | None = None
    words: tuple[str, ...] = ()


def worst(results: tuple[Tested, ...]) -> Verdict:
    """The worst of *results*; a diagnosis without any passed nothing: ``skip``."""
    return max((one.state for one in results), key=_ORDER.index, default="skip")


def tested_lines(results: tuple[Tested, ...]) -> Iterator[str]:
    """*results* for a person: what did not pass by itself, what passed in one line."""
    passed = dict.fromkeys(one.test for one in results if one.state == "pass")
    for one in results:
        if one.state != "pass":
            words = f": {'; '.join(one.words)}" if one.words else ""
            yield f"{one.state.upper()} {one.test} on {one.gpu or 'the host'}{words}"
    if passed:
        yield f"passed: {', '.join(passed)}"
