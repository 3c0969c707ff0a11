"""Asks an agent that may be restarted before its last word: what it was asked for outlives it.

A drain, and its end, are kept durably, and asking for one twice is asking for one. So the same
question is put to the agent that comes back. A restart is not of that kind: a second one would be
one more. Of it is told what can be seen: whether the unit is in another run than before.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from farrier_agent.control.client import ask
from farrier_agent.control.errors import ControlError, LostError, NoAgentError
from farrier_agent.control.protocol import (
    Act,
    Done,
    Drain,
    Final,
    News,
    Progress,
    Ready,
    Report,
    Request,
    Restart,
    Result,
    Status,
)
from farrier_agent.status import Replica

__all__ = ["Agent", "act_restart", "ask_again", "ask_until_done", "judged", "restart_and_watch"]

MOST = 10
"""So often an agent may be lost over one request; more often it is the request that ends it."""

Replicas = Mapping[str, Replica]


@dataclass(frozen=True)
class Agent:
    """The agent at *path*. *hear* is told its news, *note* what a person should know besides.

    A restarted agent has to be back within *back_within* seconds; a lost restart of which nothing
    moves for *still* seconds is not waited for; *pause* is the time between two questions.
    """

    path: Path
    hear: Callable[[News], None]
    note: Callable[[str], None]
    back_within: float = 60.0
    still: float = 15.0
    pause: float = 0.5

    def ask(self, request: Request, content: bytes = b"") -> Final:
        """Ask once. Raises as :func:`.client.ask`."""
        return ask(request, path=self.path, hear=self.hear, content=content)

    def ask_when_back(self, request: Request, content: bytes = b"") -> Final:
        """Ask once it answers again. Raises LostError, and NoAgentError when it does not."""
        end = time.monotonic() + self.back_within
        while True:
            try:
                return self.ask(request, content)
            except NoAgentError:
                if time.monotonic() >= end:
                    raise
            time.sleep(self.pause)


def ask_until_done(agent: Agent, request: Drain | Ready) -> Final:
    """Ask for *request*, again when the agent was restarted over it. Raises ControlError."""
    begun = time.monotonic()
    return _asked(agent, request, lambda: _what_is_left(request, time.monotonic() - begun))


def ask_again(agent: Agent, request: Request, content: bytes = b"") -> Final:
    """The same for a *request* that says the same whenever it is made. Raises ControlError."""
    return _asked(agent, request, lambda: request, content)


def act_restart(agent: Agent, request: Act) -> Final:
    """Ask for a rollout's restart, which an agent that comes back does not do a second time.

    Raises ControlError.
    """
    first = agent.ask(Status())
    if not isinstance(first, Report):
        return first
    runs = {one.name: run for one in first.status.replicas if (run := _run(one))}
    return ask_again(agent, msgspec.structs.replace(request, runs=runs))


def _asked(
    agent: Agent, request: Request, again: Callable[[], Request], content: bytes = b""
) -> Final:
    try:
        return agent.ask(request, content)
    except LostError as error:
        lost = error
    for _ in range(MOST):
        agent.note(f"{lost}; asking again, for {agent.back_within:.0f} s")
        try:
            return agent.ask_when_back(again(), content)
        except LostError as error:
            lost = error
        except NoAgentError as error:
            raise _not_back(agent, error) from lost
    raise lost


def _what_is_left(request: Drain | Ready, seconds: float) -> Drain | Ready:
    """*request* when it is made *seconds* later: its deadline does not move with it."""
    if isinstance(request, Ready) or request.deadline is None:
        return request
    return msgspec.structs.replace(request, deadline=max(0.0, request.deadline - seconds))


def restart_and_watch(agent: Agent, request: Restart) -> Final:
    """Ask for a restart; when the agent is lost over it, say what can be seen of it.

    Raises ControlError.
    """
    first = agent.ask(Status())
    if not isinstance(first, Report):
        return first
    before = {one.name: one for one in first.status.replicas}
    try:
        return agent.ask(request)
    except LostError as error:
        lost = error
    agent.note(f"{lost}; watching what becomes of the restart")
    names = list(before) if request.all else list(request.replicas)
    return _watched(agent, names, before, wait=request.wait)


def _watched(agent: Agent, names: list[str], before: Replicas, *, wait: bool) -> Final:
    """Look until of every replica in *names* it is known, or nothing moves any more."""
    known: dict[str, Result] = {}
    seen: dict[str, Replica] = {}
    moved = time.monotonic()
    while True:
        now = _looked(agent)
        for name in [name for name in names if name not in known]:
            one = now.get(name)
            if one is not None and (name not in seen or seen[name].phase != one.phase):
                moved = time.monotonic()
                agent.hear(Progress(replica=name, state=one.phase or "?", text=one.reason or ""))
            if one is not None:
                seen[name] = one
                moved = time.monotonic() if _moves(one) else moved
            result = judged(before.get(name), one, wait=wait)
            if result is None and time.monotonic() - moved >= agent.still:
                result = _unknown(name, one, f"nothing has moved for {agent.still:.0f} s")
            if result is not None:
                known[name] = result
        if len(known) == len(names):
            return Done(results=tuple(known[name] for name in names))
        time.sleep(agent.pause)


def _looked(agent: Agent) -> Replicas:
    """The replicas as an agent that is back sees them."""
    for _ in range(MOST):
        try:
            answer = agent.ask_when_back(Status())
        except LostError:
            continue
        except NoAgentError as error:
            raise _not_back(agent, error) from error
        if isinstance(answer, Report):
            return {one.name: one for one in answer.status.replicas}
    raise LostError("the agent does not say how its replicas fare", "farrier-agent status")


def judged(before: Replica | None, now: Replica | None, *, wait: bool) -> Result | None:
    """What is certain of a lost restart from how its replica was *before* and is *now*.

    None when nothing is yet: look again. With *wait* it is to be ready, else to run anew.
    """
    if now is None or now.phase is None:
        return None
    anew = _run(now) is not None and _run(now) != _run(before)
    if not anew:
        return None if wait or _run(now) is None else _unknown(now.name, now)
    if now.phase == "ready" and now.gate == "open":
        return Result(replica=now.name, state="ready", text="runs anew")
    if now.phase in {"starting", "warming", "ready"}:
        on_its_way = Result(replica=now.name, state=now.phase, text="runs anew, is not warm yet")
        return None if wait else on_its_way
    why = f"runs anew, but is {now.phase}: {now.reason or 'no reason known'}"
    return Result(replica=now.name, state=now.phase, code=1, text=why)


def _unknown(name: str, now: Replica | None, why: str = "it was not waited for") -> Result:
    text = (
        f"not known to be restarted: it is in the run that it was in, and {why}; its agent was "
        f"restarted over it; next: farrier-agent status, then farrier-agent restart {name}"
    )
    return Result(replica=name, state=(now.phase if now else None) or "?", code=1, text=text)


def _run(one: Replica | None) -> str | None:
    return one.unit_state.invocation_id if one and one.unit_state else None


def _moves(one: Replica) -> bool:
    """It is on its way to somewhere, however long that takes."""
    unit = one.unit_state.active_state if one.unit_state else None
    return one.phase in {"draining", "starting", "warming"} or unit in {
        "activating",
        "deactivating",
    }


def _not_back(agent: Agent, error: ControlError) -> LostError:
    return LostError(
        f"{error}, for {agent.back_within:.0f} s; what it began it carries on when it is back",
        error.next,
    )
