"""The units of one host are put back to those from before; that interrupts nothing there."""

from __future__ import annotations

from farrier.rollout.one_host import OneHost

__all__ = ["put_back"]


def put_back(it: OneHost) -> str:
    """Put them back, and find out what is to be restarted; what came of it in words."""
    names = [one.name for one in it.record.replicas]
    it.watched(lambda: it.through_cuts(lambda: it.host.put_back(names)))
    now = it.look().seen
    with it.book.changing():
        it.record.renew(it.renewed(now))
    left = ", ".join(one.name for one in it.record.replicas)
    note = f"to be restarted: {left}" if left else "nothing is to be restarted"
    it.tell(note)
    return note
