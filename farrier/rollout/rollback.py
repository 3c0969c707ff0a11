"""A rollback before it begins: what a replica goes back to, and after which failure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from farrier_agent.rollout.previous import config_hash, differences

from farrier.rollout.host import Host, Look
from farrier.rollout.ledger import Ledger

__all__ = ["failed_before", "say_what_comes_back", "words"]


def say_what_comes_back(
    ledger: Ledger, hosts: Mapping[str, Host], looks: Mapping[str, Look | None]
) -> None:
    """Write into *ledger* what each of its replicas goes back to."""
    for record in ledger.hosts:
        look = looks[record.host]
        texts = hosts[record.host].units([one.name for one in record.replicas])
        for one in record.replicas:
            now = look.seen.replica(one.name) if look else None
            if now is not None:
                text, before = texts[one.name]
                back, marked = now.back, now.put_back == now.unit
                one.goes_back = words(text, before, back=back, put_back=marked)


def words(unit: str, previous: str, *, back: str | None, put_back: bool) -> str:
    """What a replica goes *back* to, from the texts of its *unit* and of the *previous* one.

    *put_back*: its unit is one that was put back.
    """
    if back is not None and back == config_hash(unit):
        return "its unit was put back already, and is to be started"
    if not previous:
        return f"configuration {(back or '?')[:8]}"
    said = differences(unit, previous)
    return f"forward again, to what was put back from: {said}" if put_back else said


def failed_before(
    ledger: Ledger, looks: Mapping[str, Look | None], others: Iterable[Ledger]
) -> frozenset[str]:
    """The hosts of *ledger* that a rollout left half done which is known to have failed there.

    A rollback is the way out of that. One whose process may live, or was killed, is none: its end
    is not known.
    """
    ended = {
        (other.id, record.host)
        for other in others
        if other.outcome in {"failed", "refused", "aborted"}
        for record in other.hosts
        if record.state == "failed"
    }
    return frozenset(
        record.host
        for record in ledger.hosts
        if (look := looks[record.host])
        and look.seen.acting
        and (look.seen.rollout, record.host) in ended
    )
