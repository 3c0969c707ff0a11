"""AWS: interruptions of spot instances, scheduled events and rebalance recommendations.

IMDSv2: a session token first, then the paths with it; 404 means that there is no notice. A spot
interruption is announced two minutes ahead, best effort (EC2 user guide, "Spot Instance
interruption notices").
"""

from __future__ import annotations

import msgspec

from farrier_agent.engines import Answer, Question
from farrier_agent.engines.answer import parsed, refusal
from farrier_agent.loopback import Ask
from farrier_agent.notices.notice import Kind, Looked, Notice, NoticeError, http_time, iso_time

__all__ = ["Aws", "rebalance", "scheduled", "spot"]

SPOT = "/latest/meta-data/spot/instance-action"
SCHEDULED = "/latest/meta-data/events/maintenance/scheduled"
REBALANCE = "/latest/meta-data/events/recommendations/rebalance"
_TOKEN = Question(
    "/latest/api/token",
    headers=(("X-aws-ec2-metadata-token-ttl-seconds", "21600"), ("Content-Length", "0")),
    verb="PUT",
)
_CODES: dict[str, tuple[Kind, bool]] = {
    "instance-stop": ("stop", True),
    "instance-retirement": ("stop", True),
    "instance-reboot": ("reboot", True),
    "system-reboot": ("reboot", True),
    # network or power, while the instance runs on
    "system-maintenance": ("maintenance", False),
}


class _Spot(msgspec.Struct):
    action: str
    time: str


class _Event(msgspec.Struct):
    Code: str
    NotBefore: str
    EventId: str = ""
    State: str = "active"
    Description: str = ""


class _Rebalance(msgspec.Struct):
    noticeTime: str  # noqa: N815 - the service's name


def spot(body: bytes) -> Notice:
    """The interruption of a spot instance. Raises NoticeError."""
    action = parsed(body, _Spot)
    if action is None:
        raise NoticeError(f"{SPOT}: not an object with action and time")
    at = iso_time("time", action.time)
    detail = f"spot instance: {action.action[:40]!r} at {action.time[:40]}"
    return Notice(
        cloud="aws", kind="preempt", id=f"spot {action.time}", at=at, drains=True, detail=detail
    )


def scheduled(body: bytes) -> tuple[Notice, ...]:
    """The scheduled events that are still to come. Raises NoticeError."""
    events = parsed(body, list[_Event])
    if events is None:
        raise NoticeError(f"{SCHEDULED}: not a list of events with Code and NotBefore")
    found = []
    for event in events:
        if event.State != "active":
            continue
        # a code that is not known yet may well stop the instance
        kind, drains = _CODES.get(event.Code, ("maintenance", True))
        found.append(
            Notice(
                cloud="aws",
                kind=kind,
                id=event.EventId or f"{event.Code} {event.NotBefore}",
                at=http_time("NotBefore", event.NotBefore),
                drains=drains,
                detail=f"{event.Code[:40]}: {event.Description[:160]}",
            )
        )
    return tuple(found)


def rebalance(body: bytes) -> Notice:
    """A spot instance that may be interrupted soon: told, for nothing is lost yet."""
    advice = parsed(body, _Rebalance)
    if advice is None:
        raise NoticeError(f"{REBALANCE}: not an object with noticeTime")
    return Notice(
        cloud="aws",
        kind="rebalance",
        id=f"rebalance {advice.noticeTime}",
        at=iso_time("noticeTime", advice.noticeTime),
        drains=False,
        detail="this spot instance may be interrupted soon",
    )


class Aws:
    """Asks AWS's metadata service; the token is kept until the service refuses it."""

    def __init__(self, ask: Ask, deadline: float) -> None:
        self._ask = ask
        self._deadline = deadline
        self._token: str | None = None

    async def look(self, _now: float) -> Looked:
        """What the service announces."""
        notices: list[Notice] = []
        problems: list[str] = []
        for path in (SPOT, SCHEDULED, REBALANCE):
            answer = await self._get(path)
            if answer.status == 404:
                continue
            refused = refusal(path, answer)
            if refused:
                problems.append(refused)
                continue
            try:
                notices += scheduled(answer.body) if path == SCHEDULED else _one(path, answer.body)
            except NoticeError as error:
                problems.append(str(error))
        return Looked(tuple(notices), tuple(problems))

    async def _get(self, path: str) -> Answer:
        answer = Answer(status=401)
        for _ in range(2):  # a second time with a fresh token
            if self._token is None:
                given = await self._ask(_TOKEN, self._deadline)
                refused = refusal(_TOKEN.path, given)
                token = given.body.decode("ascii", "replace").strip()
                if refused or not token.isprintable() or not 0 < len(token) < 1024:
                    return Answer(error=refused or f"{_TOKEN.path} gives no token")
                self._token = token
            headers = (("X-aws-ec2-metadata-token", self._token),)
            answer = await self._ask(Question(path, headers=headers), self._deadline)
            if answer.status != 401:
                break
            self._token = None
        return answer


def _one(path: str, body: bytes) -> tuple[Notice, ...]:
    return (spot(body) if path == SPOT else rebalance(body),)
