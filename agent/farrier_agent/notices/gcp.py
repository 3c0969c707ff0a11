"""GCP: preemption of spot machines, and host maintenance.

Neither names a time. A preempted machine has 30 seconds; maintenance that stops the machine is
announced an hour ahead with a GPU and 60 s without (docs, "Handle GPU host maintenance events";
only to those who have asked before, so it is asked for from the start). How much of that is left is
not said, so draining begins at once either way. Live migration stops nothing for long.
"""

from __future__ import annotations

from functools import partial

from farrier_agent.engines import Answer, Question
from farrier_agent.engines.answer import refusal
from farrier_agent.loopback import Ask
from farrier_agent.notices.notice import Looked, Notice, NoticeError

__all__ = ["Gcp", "maintenance", "preempted"]

_INSTANCE = "/computeMetadata/v1/instance/"
PREEMPTED, MAINTENANCE = _INSTANCE + "preempted", _INSTANCE + "maintenance-event"
PREEMPTION_SECONDS = 30.0
MAINTENANCE_SECONDS = 60.0
MAINTENANCE_SECONDS_WITH_GPU = 3600.0
_FLAVOR = (("Metadata-Flavor", "Google"),)


def preempted(body: bytes, now: float) -> Notice | None:
    """The preemption that begins *now*, if there is one. Raises NoticeError."""
    text = _text(PREEMPTED, body)
    if text == "FALSE":
        return None
    if text != "TRUE":
        raise NoticeError(f"{PREEMPTED} is neither TRUE nor FALSE: {text!r}")
    detail = f"the machine is preempted, {PREEMPTION_SECONDS:.0f} s after the notice"
    at = now + PREEMPTION_SECONDS
    return Notice(
        cloud="gcp", kind="preempt", id="preempted", at=at, drains=True, at_once=True, detail=detail
    )


def maintenance(body: bytes, now: float, *, gpu: bool) -> Notice | None:
    """The host maintenance that was announced *now*, if there is one. Raises NoticeError."""
    text = _text(MAINTENANCE, body)
    if text == "NONE":
        return None
    at = now + (MAINTENANCE_SECONDS_WITH_GPU if gpu else MAINTENANCE_SECONDS)
    if text in {"MIGRATE_ON_HOST_MAINTENANCE", "MIGRATE"}:
        detail = "the machine is migrated while it runs"
        return Notice(cloud="gcp", kind="migrate", id=text, at=at, drains=False, detail=detail)
    if text in {"TERMINATE_ON_HOST_MAINTENANCE", "SHUTDOWN_ON_HOST_MAINTENANCE"}:
        return Notice(
            cloud="gcp",
            kind="stop",
            id=text,
            at=at,
            drains=True,
            at_once=True,
            detail="the machine is stopped for maintenance of its host",
        )
    raise NoticeError(f"{MAINTENANCE} is no event that is known: {text!r}")


def _text(path: str, body: bytes) -> str:
    try:
        return body.decode("ascii").strip()[:80]
    except UnicodeDecodeError:
        raise NoticeError(f"{path} is no text") from None


class Gcp:
    """Asks GCP's metadata service."""

    def __init__(self, ask: Ask, deadline: float, gpu: bool) -> None:
        self._ask = ask
        self._deadline = deadline
        self._maintenance = partial(maintenance, gpu=gpu)

    async def look(self, now: float) -> Looked:
        """What the service announces."""
        notices: list[Notice] = []
        problems: list[str] = []
        for path, parse in ((PREEMPTED, preempted), (MAINTENANCE, self._maintenance)):
            answer: Answer = await self._ask(Question(path, headers=_FLAVOR), self._deadline)
            refused = refusal(path, answer)
            if refused:
                problems.append(refused)
                continue
            try:
                notice = parse(answer.body, now)
            except NoticeError as error:
                problems.append(str(error))
            else:
                notices += [notice] if notice else []
        return Looked(tuple(notices), tuple(problems))
