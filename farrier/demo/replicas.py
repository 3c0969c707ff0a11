"""What the agents say about their hosts, and the wait until every replica's gate is open."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from farrier_agent import status as agent_status
from farrier_agent.status import Replica, Status, StatusError

from farrier.demo.errors import DemoError
from farrier.demo.web import AnswerError, fetch

__all__ = ["await_gates", "explain"]


def read_status(base: str) -> Status:
    """The status of the agent at *base*. Raises :class:`AnswerError`."""
    try:
        return agent_status.loads(fetch(f"{base}/status"))
    except StatusError as error:
        raise AnswerError(f"{base}/status: {error}") from error


def explain(replica: Replica) -> str:
    """Why *replica* does not serve yet, in a few words."""
    state = replica.unit_state
    unit = f"unit {state.active_state}" if state and not state.active else ""
    return replica.detail or unit or f"gate {replica.gate or 'unknown'}"


def await_gates(
    agents: Mapping[str, str],
    report: Callable[[str], None],
    patience: float = 300.0,
    every: float = 0.5,
) -> dict[str, Status]:
    """The status of each host once every replica on it is up behind an open gate.

    *agents* are the agents' base URLs by host. *report* hears what changes and, at least every 15
    seconds, that the wait goes on. Raises :class:`DemoError` after *patience* seconds.
    """
    began = time.monotonic()
    heard: dict[str, str] = {}
    last_word = began
    while True:
        statuses: dict[str, Status] = {}
        waiting: dict[str, str] = {}
        for host, base in agents.items():
            try:
                statuses[host] = read_status(base)
            except AnswerError as error:
                waiting[host] = str(error)
                continue
            late = [r for r in statuses[host].replicas if not (r.up and r.gate == "open")]
            if late:
                waiting[host] = "; ".join(f"{replica.name}: {explain(replica)}" for replica in late)
        waited = time.monotonic() - began
        if not waiting:
            return statuses
        if waiting != heard or time.monotonic() - last_word > 15:
            for host, why in waiting.items():
                report(f"{waited:4.0f} s  {host}: {why}")
            heard, last_word = waiting, time.monotonic()
        if waited > patience:
            host = next(iter(waiting))
            why = "; ".join(f"{name}: {text}" for name, text in waiting.items())
            raise DemoError(
                f"not every replica serves after {patience:.0f} s: {why}",
                f".venv/bin/farrier lab ssh {host} -- "
                "sudo journalctl -n 40 -u 'engine-*' -u farrier-agent",
            )
        time.sleep(every)
