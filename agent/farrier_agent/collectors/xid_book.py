"""Counts XIDs and keeps the last ones. Values in, values out; no I/O.

One fault is told more than once: by the kernel's log and by NVML, in several lines (an XID 79 and
"has fallen off the bus"; the parts of an XID 13). Within :data:`APART` seconds the same XID of the
same GPU is one, unless it has become worse.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import msgspec

from farrier_agent.collectors.kernel_log import MAX_TEXT, is_fatal
from farrier_agent.collectors.pci import normalised
from farrier_agent.gpus import Gpus, Xid, XidEvent
from farrier_agent.wording import printable

__all__ = ["APART", "MAX_KINDS", "MAX_RECENT", "Book", "addresses"]

APART = 5.0
"""Seconds in which the same XID of the same GPU is told again, not another one."""
MAX_RECENT = 200
"""Events that are kept in all."""
MAX_ALIKE = 20
"""Events that are kept of one XID of one GPU."""
MAX_KINDS = 1000
"""Pairs of a GPU and an XID that are counted."""

_Kind = tuple[str, int]


@dataclass
class _Count:
    count: int = 0
    last_at: float = 0.0
    text: str = ""


def addresses(gpus: Gpus) -> dict[str, str]:
    """Which GPU is at which PCI address. Of two in one slot it is the one that answers."""
    found: dict[str, str] = {}
    for gpu in sorted(gpus.devices, key=lambda one: one.up):
        address = normalised(gpu.pci_bus_id) if gpu.pci_bus_id else None
        if address is not None:
            found[address] = gpu.uuid
    return found


class Book:
    """How often each GPU told each XID, since *counts*, and the *recent* events of this boot."""

    def __init__(self, counts: Iterable[Xid] = (), recent: Iterable[XidEvent] = ()) -> None:
        self._uuids: dict[str, str] = {}
        self._counts: dict[tuple[str, str, int], _Count] = {}
        self._recent: dict[_Kind, deque[XidEvent]] = {}
        self._size = 0
        self.dropped = 0
        """Events that were not counted, because there are too many kinds."""
        for one in counts:
            key = (one.uuid, one.pci_bus_id or "", one.xid)
            self._add_to(key, one.count, one.last_at, one.text)
        for event in recent:
            self._keep(event)

    def learn(self, uuids: Mapping[str, str]) -> bool:
        """GPUs by PCI address. Events that had none yet get theirs. True when that changed one."""
        new = {address: uuid for address, uuid in uuids.items() if self._uuids.get(address) != uuid}
        self._uuids |= new
        return bool(new) and self._assign()

    def _assign(self) -> bool:
        changed = False
        for key in [key for key in self._counts if not key[0] and key[1] in self._uuids]:
            one = self._counts.pop(key)
            named = (self._uuids[key[1]], key[1], key[2])
            self._add_to(named, one.count, one.last_at, one.text)
            changed = True
        for events in self._recent.values():
            for place, event in enumerate(events):
                if event.uuid is None and event.pci_bus_id in self._uuids:
                    uuid = self._uuids[event.pci_bus_id]
                    events[place] = msgspec.structs.replace(event, uuid=uuid)
                    changed = True
        return changed

    def add(self, event: XidEvent) -> bool:
        """Take *event*. False when it says nothing new."""
        if event.xid <= 0:
            return False
        event = self._identified(event)
        events = self._recent.get(_kind(event), ())
        near = [(place, one) for place, one in enumerate(events) if abs(one.at - event.at) <= APART]
        if near and not _worse(event, [one for _, one in near]):
            return self._better_told(event, *near[-1])
        key = (event.uuid or "", event.pci_bus_id or "", event.xid)
        if key in self._counts or len(self._counts) < MAX_KINDS:
            self._add_to(key, 1, event.at, event.text)
        else:
            self.dropped += 1
        self._keep(event)
        return True

    def _identified(self, event: XidEvent) -> XidEvent:
        address = normalised(event.pci_bus_id) if event.pci_bus_id else None
        return msgspec.structs.replace(
            event,
            pci_bus_id=address,
            uuid=event.uuid or (self._uuids.get(address) if address else None),
            text=printable(event.text[:MAX_TEXT]),
        )

    def _better_told(self, event: XidEvent, place: int, known: XidEvent) -> bool:
        """The line of what so far only NVML told says more."""
        if event.source != "kmsg" or known.source != "nvml":
            return False
        told = msgspec.structs.replace(event, at=known.at, uuid=known.uuid or event.uuid)
        self._recent[_kind(event)][place] = told
        key = (known.uuid or "", known.pci_bus_id or "", known.xid)
        if key in self._counts:
            self._counts[key].text = told.text
        return True

    def _add_to(self, key: tuple[str, str, int], count: int, at: float, text: str) -> None:
        one = self._counts.setdefault(key, _Count())
        one.count += count
        if at >= one.last_at:
            one.last_at, one.text = at, text

    def _keep(self, event: XidEvent) -> None:
        events = self._recent.setdefault(_kind(event), deque(maxlen=MAX_ALIKE))
        self._size += len(events) < MAX_ALIKE
        events.append(event)
        if self._size > MAX_RECENT:
            # of the kind that has most: a flood of one leaves the others alone
            kind = max(self._recent, key=lambda one: (len(self._recent[one]), -self._oldest(one)))
            self._recent[kind].popleft()
            self._size -= 1
            if not self._recent[kind]:
                del self._recent[kind]

    def _oldest(self, kind: _Kind) -> float:
        return self._recent[kind][0].at

    def recent(self) -> tuple[XidEvent, ...]:
        """The last events, in order."""
        events = [event for events in self._recent.values() for event in events]
        return tuple(sorted(events, key=lambda one: one.at))

    def kept(self) -> tuple[Xid, ...]:
        """The counts apart by PCI address, as :class:`Book` takes them again."""
        return tuple(
            Xid(
                uuid=uuid,
                xid=xid,
                count=one.count,
                last_at=one.last_at,
                pci_bus_id=address or None,
                text=one.text,
            )
            for (uuid, address, xid), one in self._counts.items()
        )

    def counts(self) -> tuple[Xid, ...]:
        """The counts, one for each pair of a GPU (empty: not known) and an XID."""
        return tuple(sorted(_merged(self.kept()), key=lambda one: (one.uuid, one.xid)))


def _merged(counts: Iterable[Xid]) -> Iterator[Xid]:
    found: dict[_Kind, Xid] = {}
    for one in sorted(counts, key=lambda one: one.last_at):
        before = found.get((one.uuid, one.xid))
        total = one.count + (before.count if before else 0)
        found[one.uuid, one.xid] = msgspec.structs.replace(one, count=total)
    yield from found.values()


def _kind(event: XidEvent) -> _Kind:
    return (event.pci_bus_id or event.uuid or "", event.xid)


def _worse(event: XidEvent, known: Iterable[XidEvent]) -> bool:
    """*event* says what the *known* ones do not: another action to take, or that it is fatal."""
    told = [one for one in known if one.source == "kmsg"]
    if not told:  # NVML says neither
        return False
    actions = {None, *(one.recovery_action for one in told)}
    fatal = is_fatal(event.text) and not any(is_fatal(one.text) for one in told)
    return fatal or event.recovery_action not in actions
