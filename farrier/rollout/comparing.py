"""Is a canary as well as the other replicas of its model, as the gateways saw both? Pure.

Compared are answers of the same minutes. A canary is *worse* where the difference matters and
chance hardly explains it:

- it matters as in :mod:`.judging`: 2 % more of the answers are errors, or the median or the 95th
  percentile of the times to the first token is 1.5 times and 0.1 s above the others';
- chance: if the canary were like the others, how often would so many of the bad answers be its
  own? That is Fisher's exact test, one-sided. For times a bad answer is one above the time that
  would be too slow. Less than once in 100 holds at the end of a hold; before its end, where each
  look is one more occasion to be wrong, once in 10,000.

A difference that matters but may be chance is not called worse; too few answers on either side are
*not proven*.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import exp, lgamma
from typing import Literal

import msgspec

from farrier.rollout.tolerance import ENOUGH, ERRORS, MORE_ERRORS, SLOWER, SLOWER_SECONDS

__all__ = ["Answers", "Comparison", "Side", "Verdict", "by_chance", "compare"]

CHANCE = 0.01
"""At the end of a hold: less likely than that is no chance."""
CHANCE_EARLY = 0.0001
"""The same at each look before."""
NAMES = {0.5: "median", 0.95: "95 %"}

Verdict = Literal["worse", "as well", "not proven"]


class Answers(msgspec.Struct, kw_only=True):
    """What gateways saw of some replicas: answers by status, and those that broke off after their
    head. ``first_token`` counts the answers of 2xx by the milliseconds until the first bytes of
    their bodies came: a stream's first event.
    """

    statuses: dict[str, int] = {}
    broken: int = 0
    first_token: dict[int, int] = {}

    def add(self, other: Answers) -> None:
        """Count those of *other*, too."""
        for code, count in other.statuses.items():
            self.statuses[code] = self.statuses.get(code, 0) + count
        for milliseconds, count in other.first_token.items():
            self.first_token[milliseconds] = self.first_token.get(milliseconds, 0) + count
        self.broken += other.broken

    @property
    def count(self) -> int:
        """Answers: those of 2xx, and errors of an engine. 503 is a gate's, 4xx the client's."""
        return sum(n for code, n in self.statuses.items() if code.startswith("2") or code in ERRORS)

    @property
    def errors(self) -> int:
        """Errors of an engine among them: 500, 502, 504, and what broke off."""
        return sum(n for code, n in self.statuses.items() if code in ERRORS) + self.broken

    @property
    def timed(self) -> int:
        """Answers of which it is known when they began."""
        return sum(self.first_token.values())

    def quantile(self, share: float) -> float | None:
        """The seconds within which *share* of the answers began; None without answers."""
        wanted, below = share * self.timed, 0
        for milliseconds, count in sorted(self.first_token.items()):
            below += count
            if below >= wanted:
                return milliseconds / 1000
        return None

    def slower_than(self, seconds: float) -> int:
        """Answers that began later than after *seconds*."""
        return sum(n for each, n in self.first_token.items() if each / 1000 > seconds)


class Side(msgspec.Struct, frozen=True, kw_only=True):
    """One side of a comparison; times to the first token in seconds, None without answers."""

    answers: int
    errors: int
    median: float | None
    percentile_95: float | None


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """The canary ``replica`` (``HOST:REPLICA``) against the rest of its ``model``.

    ``seconds`` that it was held for. ``verdict`` is None before the end of a hold while nothing is
    wrong; ``why`` says it in a sentence.
    """

    model: str
    replica: str
    seconds: float
    canary: Side
    rest: Side
    verdict: Verdict | None
    why: str


def compare(
    model: str, replica: str, canary: Answers, rest: Answers, *, seconds: float, final: bool
) -> Comparison:
    """The comparison after *seconds*; *final*: at the end of the hold."""
    limit = CHANCE if final else CHANCE_EARLY
    verdict: Verdict | None = None
    if bad := _more_errors(canary, rest, limit) or _slower(canary, rest, limit):
        verdict, why = "worse", f"{replica} is worse than the rest of {model}: {bad}"
    elif (few := _too_few(canary, rest)) is not None:
        verdict = "not proven" if final else None
        why = f"{replica}: not proven: {few}"
    else:
        verdict = "as well" if final else None
        why = f"{replica} is as well as the rest of {model}"
    return Comparison(
        model=model,
        replica=replica,
        seconds=seconds,
        canary=_side(canary),
        rest=_side(rest),
        verdict=verdict,
        why=why,
    )


def by_chance(bad: int, count: int, others_bad: int, others_count: int) -> float:
    """How likely at least *bad* of the bad answers are among *count* by lot, the others elsewhere.

    The upper tail of the hypergeometric distribution (Fisher's exact test, one-sided), 0 to 1.
    """
    everything, all_bad = count + others_count, bad + others_bad
    whole = _ways(everything, all_bad)
    tail = sum(
        exp(_ways(count, each) + _ways(others_count, all_bad - each) - whole)
        for each in range(max(bad, all_bad - others_count), min(count, all_bad) + 1)
    )
    return min(1.0, tail)


def _ways(of: int, some: int) -> float:
    """The logarithm of the number of ways to choose *some* of *of*."""
    return lgamma(of + 1) - lgamma(some + 1) - lgamma(of - some + 1)


def _more_errors(canary: Answers, rest: Answers, limit: float) -> str | None:
    if not canary.count or not rest.count:
        return None
    errors, others = min(canary.errors, canary.count), min(rest.errors, rest.count)
    if errors / canary.count <= others / rest.count + MORE_ERRORS:
        return None
    if by_chance(errors, canary.count, others, rest.count) >= limit:
        return None
    return (
        f"{errors} of its {canary.count} answers were errors, {others} of {rest.count} of the rest"
    )


def _slower(canary: Answers, rest: Answers, limit: float) -> str | None:
    if min(canary.timed, rest.timed) < ENOUGH:
        return None
    for share, name in NAMES.items():
        new, old = canary.quantile(share), rest.quantile(share)
        if new is None or old is None:
            continue
        bound = max(old * SLOWER, old + SLOWER_SECONDS)
        if new <= bound:
            continue
        slow, others = canary.slower_than(bound), rest.slower_than(bound)
        if by_chance(slow, canary.timed, others, rest.timed) < limit:
            times = f"is {new:.3f} s, of the rest {old:.3f} s"
            return f"the {name} of the times to the first token {times}"
    return None


def _too_few(canary: Answers, rest: Answers) -> str | None:
    few: Mapping[str, Answers] = {"it": canary, "the rest": rest}
    said = [f"{who} gave {one.timed}" for who, one in few.items() if one.timed < ENOUGH]
    return f"{ENOUGH} answers are needed, and {' and '.join(said)}" if said else None


def _side(one: Answers) -> Side:
    return Side(
        answers=one.count,
        errors=one.errors,
        median=one.quantile(0.5),
        percentile_95=one.quantile(0.95),
    )
