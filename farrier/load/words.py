"""The ledger in tables and sentences for people; pure."""

from __future__ import annotations

from farrier.load.judging import OUTCOMES
from farrier.load.ledger import Ledger

__all__ = ["kinds", "losses", "servers", "summary"]


def kinds(ledger: Ledger) -> list[list[str]]:
    """Requests by kind and outcome, and how long the complete ones took; the head is first."""
    totals = ledger.outcomes
    ends = [end for end in OUTCOMES if totals[end]]
    head = ["kind", *ends, "p50 s", "p99 s", "first token p50 s", "p99 s"]
    rows = []
    for kind in sorted({kind for kind, _ in ledger.counts}):
        took, first = ledger.latency(kind), ledger.to_first_token(kind)
        times = [took.quantile(0.5), took.quantile(0.99), first.quantile(0.5), first.quantile(0.99)]
        counted = [str(ledger.counts[kind, end] or "") for end in ends]
        rows.append([kind, *counted, *("" if one is None else f"{one:.3f}" for one in times)])
    rows.append(["all", *(str(totals[end]) for end in ends), "", "", "", ""])
    return [head, *rows]


def servers(ledger: Ledger) -> list[list[str]]:
    """What each server did that an answer names; the head is first."""
    rows = [
        [
            name,
            str(sum(server.outcomes.values())),
            ", ".join(f"{number} {end}" for end, number in server.outcomes.items()),
            f"{server.first:.1f}",
            f"{server.last:.1f}",
        ]
        for name, server in sorted(ledger.servers.items())
    ]
    return [["server", "requests", "of them", "first began at s", "last"], *rows]


def losses(ledger: Ledger, most: int) -> list[str]:
    """At most so many of the requests that nobody served, a line each."""
    found = [*ledger.losses(), *ledger.of("unreached")]
    lines = [str(one) for one in found[:most]]
    return [*lines, f"… and {len(found) - most} more"] if len(found) > most else lines


def summary(ledger: Ledger) -> list[str]:
    """What it comes to."""
    totals, seconds = ledger.outcomes, ledger.seconds or ledger.now
    lines = []
    if ledger.dropped_on_kept:
        lines.append(
            f"{ledger.dropped_on_kept} of the dropped were on a connection that had served before:"
            " the server closed it while the request was under way. A client cannot know whether a"
            " POST was executed, and must not repeat it (RFC 9112, 9.3.1); openai-python does."
        )
    if ledger.held_back:
        lines.append(f"{ledger.held_back} fresh requests were not sent: too many were running")
    if repeats := sum(one.repeats for one in ledger.requests):
        lines.append(f"{repeats} times the server said it had not touched a request: sent again")
    if not totals["complete"]:
        lines.append("nothing was served: this says nothing about losses")
    if totals["unreached"]:
        lines.append(f"{totals['unreached']} requests found no connection")
    lines.append(f"{len(ledger.requests)} requests in {seconds:.0f} s, lost {ledger.lost}")
    return lines
