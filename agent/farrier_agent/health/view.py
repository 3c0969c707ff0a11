"""What rules look at: one moment against what is remembered, put in order once for all of them."""

from __future__ import annotations

from collections.abc import Collection

from farrier_agent.gpus import Gpu, XidEvent
from farrier_agent.health.memory import Known, Mark, Memory, Trail, answer_key
from farrier_agent.health.observed import Observed
from farrier_agent.health.xids import (
    ANNOUNCEMENT,
    BURST,
    CLEAN_UP,
    CRASHES_KEPT,
    KEPT,
    Incident,
    XidClass,
    absorb,
    classify,
)
from farrier_agent.status import Replica

__all__ = ["BUSY", "View"]

BUSY = 0.05
"""Utilisation from which a GPU counts as busy."""
_WORKING = frozenset((0, 2))
"""Performance states of a GPU at work; in others it saves power, links included."""
_SLOWED = 0.1
"""Share of the time since the last reading from which clocks count as held down."""
_FATAL = frozenset(("reset", "reboot", "power"))
_NO_EVENTS: tuple[XidEvent, ...] = ()


class View:
    """*now* against *before*.

    ``known``, ``renewed``, ``incidents``, ``crashes``, ``links`` and ``trails`` are what *before*
    has of them with what this moment adds; ``anew`` are the GPUs that turn out to have been reset
    since. ``gpus`` are those of a reading that was not looked at before; ``unread``: NVML was not
    read, and they are at most those that the PCI bus says are gone.
    """

    def __init__(self, now: Observed, before: Memory) -> None:
        self.now = now
        self.before = before
        self.anew: set[str] = set()
        self.unread = now.gpus is None or now.gpus.count is None
        reading = now.gpus.devices if now.gpus is not None and now.accelerator == "cuda" else ()
        self.read = now.read if now.read is not None else now.monotonic
        seen_before = now.read is not None and now.read == before.read
        self.gpus: tuple[Gpu, ...] = () if seen_before else reading
        self.by_uuid = {gpu.uuid: gpu for gpu in reading}
        self.known = before.known
        if reading:
            known = {gpu.uuid: Known(gpu.index, gpu.pci_bus_id) for gpu in reading}
            self.known = {**before.known, **known}
        self.renewed = before.renewed
        self.trails = before.trails
        self.links = before.links
        if self.gpus:
            self._follow_counters()
            self._follow_links()
        self._events = self._sorted_events()
        self._classes: dict[str | None, tuple[XidClass, ...]] = {}
        self.incidents, self.crashes = before.incidents, before.crashes
        self._follow_incidents()
        self.users = self._users()

    @property
    def rebooted(self) -> bool:
        """The host was booted since the last moment. Not known is no."""
        boots = {self.now.boot_id, self.before.boot_id}
        return len(boots) == 2 and "" not in boots

    def held(self, rule: str, gpu: str | None) -> Mark | None:
        """The fault of *rule* on *gpu*, if it holds."""
        mark = self.before.marks.get((rule, gpu, None))
        return mark if mark is not None and mark.holds else None

    def confirmed(self, mark: Mark) -> bool:
        """A reset or reboot was seen since *mark* was last found."""
        return mark.confirmed or self.rebooted or mark.gpu in self.anew

    def acknowledged(self, rule: str, gpu: str) -> bool:
        """Somebody said of *rule* that this is how *gpu* is meant to be."""
        return answer_key(rule, gpu) in self.before.answered

    def sound(self, gpu: str | None) -> bool:
        """It answers, and its driver wants nothing done; also true of what is no GPU's."""
        if gpu is None:
            return True
        reading = self.by_uuid.get(gpu)
        return reading is not None and reading.up and reading.recovery_action in {None, "none"}

    def label(self, gpu: str) -> str:
        """The GPU for a person: ``GPU 3``."""
        known = self.known.get(gpu)
        return f"GPU {known.index}" if known else gpu

    def busy(self, gpu: Gpu) -> bool:
        """It works right now: only then do its links have to be at their best."""
        ratio, state = gpu.utilization_ratio, gpu.performance_state
        return ratio is not None and ratio >= BUSY and (state is None or state in _WORKING)

    def slowed(self, gpu: Gpu, reasons: Collection[str]) -> bool | None:
        """Clocks were held down for one of *reasons* since the last reading; None: not known."""
        answer: bool | None = None
        trail = self.before.trails.get(gpu.uuid)
        for event in gpu.clock_events:
            if event.reason not in reasons:
                continue
            was = trail.clocks.get(event.reason) if trail else None
            passed = self.read - trail.monotonic if trail else 0.0
            if was is not None and event.seconds_total is not None and passed > 0:
                slowed: bool | None = event.seconds_total - was >= _SLOWED * passed
            else:
                slowed = event.active
            if slowed is not None:
                answer = slowed or bool(answer)
        return answer

    def events(self, rule: str, gpu: str | None) -> tuple[XidEvent, ...] | None:
        """The XIDs of *gpu* that count for *rule*, the oldest first; None: none can be seen.

        *gpu* None: those of which it is not known whose they are.
        """
        if self._events is None:
            return None
        events = self._events.get(gpu, _NO_EVENTS)
        if not events:
            return events
        since = self.since(rule, gpu)
        return tuple(event for event in events if event.at > since)

    def since(self, rule: str, gpu: str | None) -> float:
        """The moment up to which XIDs of *gpu* do not count for *rule*: it was seen to."""
        answered = self.before.answered.get(answer_key(rule, gpu), 0.0)
        return max(answered, self.renewed.get(gpu or "", 0.0))

    def all_events(self, gpu: str | None) -> tuple[XidEvent, ...]:
        """The XIDs of *gpu* in this boot, the oldest first."""
        return (self._events or {}).get(gpu, _NO_EVENTS)

    def flagged(self, gpu: str | None) -> bool:
        """The driver tells the recovery action of *gpu* as a reading."""
        reading = self.by_uuid.get(gpu) if gpu else None
        return reading is not None and reading.recovery_action is not None

    @property
    def fabric_needed(self) -> bool:
        """GPUs of this host have to be registered with the NVSwitch fabric."""
        if self.now.fabric != "auto":
            return self.now.fabric == "required"
        return any(_in_fabric(gpu) for gpu in self.by_uuid.values())

    def uuid_of(self, index: int) -> str | None:
        """The GPU of that index, None where none is known."""
        return self._by_index.get(index)

    def _users(self) -> dict[str, tuple[Replica, ...]]:
        # a GPU of a fresh reading goes before one that is only remembered, with the same index
        indices = {known.index: uuid for uuid, known in self.known.items()}
        indices |= {gpu.index: gpu.uuid for gpu in self.by_uuid.values()}
        self._by_index = indices
        users: dict[str, tuple[Replica, ...]] = {}
        for replica in self.now.replicas:
            for index in replica.gpus:
                uuid = indices.get(index)
                if uuid is not None:
                    users[uuid] = (*users.get(uuid, ()), replica)
        return users

    def _follow_counters(self) -> None:
        trails = dict(self.before.trails)
        for gpu in self.gpus:
            if not gpu.up:
                continue
            trail = self._trail(gpu)
            was = trails.get(gpu.uuid)
            if was is not None and _restarted(was, trail):
                self._renew(gpu.uuid, self.now.at)
            trails[gpu.uuid] = trail
        self.trails = trails

    def _trail(self, gpu: Gpu) -> Trail:
        recoveries = crc = None
        for link in gpu.nvlinks:
            if link.recovery_errors_total is not None:
                recoveries = (recoveries or 0) + link.recovery_errors_total
            if link.crc_errors_total is not None:
                crc = (crc or 0) + link.crc_errors_total
        clocks = {
            event.reason: event.seconds_total
            for event in gpu.clock_events
            if event.seconds_total is not None
        }
        return Trail(self.read, gpu.energy_joules_total, clocks, recoveries, crc)

    def _renew(self, gpu: str, at: float) -> None:
        self.anew.add(gpu)
        self.renewed = {**self.renewed, gpu: at}

    def _follow_links(self) -> None:
        for gpu in self.gpus:
            if not gpu.nvlinks:
                continue
            was = self.before.links.get(gpu.uuid, ())
            up = tuple(link.link for link in gpu.nvlinks if link.up)
            if not set(up) <= set(was):
                self.links = {**self.links, gpu.uuid: tuple(sorted({*was, *up}))}

    def _sorted_events(self) -> dict[str | None, tuple[XidEvent, ...]] | None:
        if self.now.xids is None or self.now.accelerator != "cuda":
            return None
        if not self.now.xids:
            return {}
        places = {_place(one.pci_bus_id): uuid for uuid, one in self.known.items()}
        events: dict[str | None, list[XidEvent]] = {}
        for event in self.now.xids:
            uuid = event.uuid if event.uuid in self.known else None
            uuid = uuid or (places.get(_place(event.pci_bus_id)) if event.pci_bus_id else None)
            events.setdefault(uuid, []).append(event)
        for uuid, own in events.items():
            own.sort(key=_at)
            for event in own:
                calmed = event.xid == ANNOUNCEMENT and event.recovery_action == "none"
                if calmed and uuid and event.at > self.renewed.get(uuid, 0.0):
                    self._renew(uuid, event.at)
        return {uuid: tuple(own) for uuid, own in events.items()}

    def _follow_incidents(self) -> None:
        for uuid, events in (self._events or {}).items():
            if uuid is None:
                continue
            kinds = self.classified(uuid)
            fatal = [one for one, kind in zip(events, kinds, strict=True) if kind in _FATAL]
            # 45 cleans up after another error, if there is one
            ends = [one for one, kind in zip(events, kinds, strict=True) if kind == "app"]
            crashes = [
                one
                for one in ends
                if one.xid != CLEAN_UP or not any(abs(one.at - two.at) <= BURST for two in fatal)
            ]
            self.incidents = self._with(self.incidents, uuid, fatal, KEPT)
            self.crashes = self._with(self.crashes, uuid, crashes, CRASHES_KEPT)

    def _with(
        self,
        known: dict[str, tuple[Incident, ...]],
        uuid: str,
        events: list[XidEvent],
        kept: float,
    ) -> dict[str, tuple[Incident, ...]]:
        was = known.get(uuid, ())
        if not events and not was:
            return known
        new = absorb(was, events, self.now.boot_id, self.now.at, kept)
        return known if new == was else {**known, uuid: new}

    def classified(self, gpu: str | None) -> tuple[XidClass, ...]:
        """The class of each of :meth:`all_events`."""
        if gpu not in self._classes:
            events, flagged = self.all_events(gpu), self.flagged(gpu)
            self._classes[gpu] = tuple(classify(one, events, flagged=flagged) for one in events)
        return self._classes[gpu]


def _in_fabric(gpu: Gpu) -> bool:
    return gpu.fabric is not None and gpu.fabric.state != "not_supported"


def _restarted(was: Trail, now: Trail) -> bool:
    """Counters that grow while the driver stays loaded are smaller: the GPU was reset.

    Not the volatile ECC counters, which ``nvidia-smi -p 0`` clears, nor bytes, which wrap.
    """
    if was.energy is not None and now.energy is not None:
        return now.energy < was.energy - 1.0
    both = was.clocks.keys() & now.clocks.keys()
    return any(now.clocks[reason] < was.clocks[reason] - 0.001 for reason in both)


def _place(address: str | None) -> str | None:
    """A PCI address with a domain of four digits, in lower case, as the kernel writes it."""
    if address is None:
        return None
    domain, _, rest = address.lower().partition(":")
    return f"{domain[-4:]:0>4}:{rest}"


def _at(event: XidEvent) -> float:
    return event.at
