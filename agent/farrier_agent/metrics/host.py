"""The families about the host and the agent itself, and how the collectors fare."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from farrier_agent.metrics.family import ALWAYS, Family, Sample, family, one_hot
from farrier_agent.status import AgentCheck, Collector, Notice, Status, Unit

__all__ = ["FAMILIES", "UNIT_STATES", "samples"]

UNIT_STATES = ("active", "activating", "deactivating", "failed", "inactive", "reloading")
"""The states that ``farrier_unit_state`` is one-hot over; in a rarer one all of them are 0."""

BUILD = family(
    "farrier_agent_build_info",
    "version python",
    "The agent's version and that of its Python; always 1.",
    "agent",
)
INFO = family(
    "farrier_agent_info",
    "accelerator",
    "What kind of host the agent was told that this is; always 1.",
    "agent",
)
SUCCESS = family(
    "farrier_collector_success",
    "collector",
    "Whether the collector's last attempt succeeded (1).",
    ALWAYS,
)
DURATION = family(
    "farrier_collector_duration_seconds",
    "collector",
    "How long the collector's last attempt took, in seconds.",
    ALWAYS,
)
LAST_SUCCESS = family(
    "farrier_collector_last_success_timestamp_seconds",
    "collector",
    "When the collector last succeeded, in seconds since the epoch.",
    ALWAYS,
)
QUESTIONS = family(
    "farrier_agent_check_questions_total",
    "result",
    "Questions of gateways, answered or refused: closed without an answer.",
    "agent",
)
WEB = family(
    "farrier_agent_web_configuration_good",
    "",
    "Whether the web configuration is in force as its file has it (1).",
    "agent",
)
NOTICE = family(
    "farrier_host_notice_timestamp_seconds",
    "cloud kind",
    "When what a cloud announced to this host happens at the earliest, in seconds since the epoch.",
    "notices",
)
UNIT = family(
    "farrier_unit_state",
    "unit state",
    "The state of a systemd unit, a replica's or the host's: 1 for the state that it is in.",
    "units",
)

FAMILIES: tuple[Family, ...] = (
    BUILD,
    INFO,
    SUCCESS,
    DURATION,
    LAST_SUCCESS,
    QUESTIONS,
    WEB,
    NOTICE,
    UNIT,
)


def samples(status: Status) -> Iterator[tuple[Family, list[Sample]]]:
    """What is known of the host and the agent, by family."""
    agent = status.agent
    yield BUILD, [((agent.version, agent.python), 1)]
    yield INFO, [((status.accelerator,), 1)]
    yield from _collectors(status.collectors)
    yield QUESTIONS, _questions(status.agent_check)
    yield WEB, [((), status.web_good)]
    yield NOTICE, _notices(status.notices)
    yield UNIT, _units(status)


def _collectors(collectors: Sequence[Collector]) -> Iterator[tuple[Family, list[Sample]]]:
    ran = [one for one in collectors if one.duration_seconds is not None]
    yield SUCCESS, [((one.name,), one.success) for one in ran]
    yield DURATION, [((one.name,), one.duration_seconds) for one in ran]
    yield LAST_SUCCESS, [((one.name,), one.last_success_at) for one in ran]


def _questions(asked: AgentCheck | None) -> list[Sample]:
    if asked is None:
        return []
    return [(("answered",), asked.answered), (("refused",), asked.refused)]


def _notices(notices: Sequence[Notice]) -> list[Sample]:
    first: dict[tuple[str, ...], float] = {}
    for one in notices:
        key = (one.cloud, one.kind)
        first[key] = min(one.at, first.get(key, one.at))
    return list(first.items())


def _units(status: Status) -> list[Sample]:
    units: dict[str, Unit] = {unit.name: unit for unit in status.units}
    units |= {one.unit_state.name: one.unit_state for one in status.replicas if one.unit_state}
    return [
        sample
        for unit in units.values()
        if unit.load_state != "not-found"
        for sample in one_hot((unit.name,), UNIT_STATES, unit.active_state)
    ]
