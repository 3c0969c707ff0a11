"""Azure: scheduled events, which name the machines they are for and the time they begin.

The document is one for all machines of a scale set or availability set, so the machine's own name
is asked for first. Minimum notice: Preempt 30 s, Redeploy 10 min, Freeze and Reboot 15 min,
Terminate as configured (docs, "Scheduled Events for Linux VMs").
"""

from __future__ import annotations

import msgspec

from farrier_agent.engines import Question
from farrier_agent.engines.answer import parsed, refusal
from farrier_agent.loopback import Ask
from farrier_agent.notices.notice import Kind, Looked, Notice, NoticeError, http_time

__all__ = ["Azure", "scheduled_events"]

NAME = "/metadata/instance/compute/name?api-version=2021-02-01&format=text"
EVENTS = "/metadata/scheduledevents?api-version=2020-07-01"
_METADATA = (("Metadata", "true"),)
_KINDS: dict[str, tuple[Kind, bool]] = {
    "Preempt": ("preempt", True),
    "Terminate": ("stop", True),
    "Redeploy": ("stop", True),
    "Reboot": ("reboot", True),
    "Freeze": ("freeze", False),  # paused for some seconds
}


class _Event(msgspec.Struct):
    EventId: str
    EventType: str
    Resources: list[str] = []
    EventStatus: str = ""
    NotBefore: str = ""
    Description: str = ""


class _Document(msgspec.Struct):
    Events: list[_Event]


def scheduled_events(body: bytes, name: str, now: float) -> tuple[Notice, ...]:
    """The events of the document *body* that concern the machine *name*. Raises NoticeError.

    An event without NotBefore has begun: its time is *now*.
    """
    document = parsed(body, _Document)
    if document is None:
        raise NoticeError(f"{EVENTS}: not a document with Events")
    found = []
    for event in document.Events:
        if name.lower() not in {resource.lower() for resource in event.Resources}:
            continue
        # a type that is not known yet may well stop the machine
        kind, drains = _KINDS.get(event.EventType, ("maintenance", True))
        found.append(
            Notice(
                cloud="azure",
                kind=kind,
                id=event.EventId[:80],
                at=http_time("NotBefore", event.NotBefore) if event.NotBefore else now,
                drains=drains,
                detail=f"{event.EventType[:40]}: {event.Description[:160]}",
            )
        )
    return tuple(found)


class Azure:
    """Asks Azure's metadata service; the machine's name is asked for once."""

    def __init__(self, ask: Ask, deadline: float) -> None:
        self._ask = ask
        self._deadline = deadline
        self._name: str | None = None

    async def look(self, now: float) -> Looked:
        """What the service announces for this machine."""
        if self._name is None:
            answer = await self._ask(Question(NAME, headers=_METADATA), self._deadline)
            refused = refusal("the name of this machine", answer)
            name = answer.body.decode(errors="replace").strip()
            if refused or not name or len(name) > 200:
                why = refused or f"the name of this machine cannot be {name[:80]!r}"
                return Looked(problems=(why,))
            self._name = name
        answer = await self._ask(Question(EVENTS, headers=_METADATA), self._deadline)
        refused = refusal(EVENTS, answer)
        if refused:
            return Looked(problems=(refused,))
        try:
            return Looked(scheduled_events(answer.body, self._name, now))
        except NoticeError as error:
            return Looked(problems=(str(error),))
