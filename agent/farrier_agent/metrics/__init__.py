"""The text that ``/metrics`` serves, made from a snapshot. An unknown value makes no sample.

``family`` makes one family, ``gpus`` and ``replicas`` say what there is of theirs; what is the
host's and the agent's own is here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from farrier_agent.metrics.family import counter, gauge, one_hot
from farrier_agent.metrics.gpus import gpu_families
from farrier_agent.metrics.replicas import HEALTH, PHASES, replica_families
from farrier_agent.status import AgentCheck, Notice, Status, Unit

__all__ = ["CONTENT_TYPE", "HEALTH", "PHASES", "UNIT_STATES", "render"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

UNIT_STATES = ("active", "activating", "deactivating", "failed", "inactive", "reloading")
"""The states that ``farrier_unit_state`` is one-hot over; in a rarer one all of them are 0."""


class _Families(Collector):
    """Hands a list of families to a registry."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = list(families)

    def collect(self) -> Iterable[Metric]:
        return self._families


def render(status: Status) -> bytes:
    """*status*, and the agent's own process, in the text exposition format 0.0.4."""
    registry = CollectorRegistry(auto_describe=False)
    ProcessCollector(registry=registry)
    registry.register(_Families(_families(status)))
    return generate_latest(registry)


def _families(status: Status) -> Iterator[Metric]:
    agent = status.agent
    families = (
        gauge(
            "farrier_agent_build_info",
            "The agent's version and that of its Python.",
            ("version", "python"),
            [((agent.version, agent.python), 1)],
        ),
        gauge(
            "farrier_agent_info",
            "What kind of host the agent was told that this is.",
            ("accelerator",),
            [((status.accelerator,), 1)],
        ),
        *_collectors(status),
        _agent_check(status.agent_check),
        _notices(status.notices),
        _units(status),
        *replica_families(status.replicas),
        *(gpu_families(status.gpus) if status.gpus else ()),
    )
    return (family for family in families if family.samples)


def _collectors(status: Status) -> Iterator[Metric]:
    ran = [one for one in status.collectors if one.duration_seconds is not None]
    label = ("collector",)
    yield gauge(
        "farrier_collector_success",
        "Whether the collector's last attempt succeeded.",
        label,
        [((one.name,), one.success) for one in ran],
    )
    yield gauge(
        "farrier_collector_duration_seconds",
        "How long the collector's last attempt took.",
        label,
        [((one.name,), one.duration_seconds) for one in ran],
    )
    yield gauge(
        "farrier_collector_last_success_timestamp_seconds",
        "When the collector last succeeded, in seconds since the epoch.",
        label,
        [((one.name,), one.last_success_at) for one in ran],
    )


def _agent_check(asked: AgentCheck | None) -> Metric:
    return counter(
        "farrier_agent_check_questions_total",
        "Questions of gateways, answered or closed without an answer.",
        ("result",),
        [(("answered",), asked.answered), (("refused",), asked.refused)] if asked else [],
    )


def _notices(notices: Iterable[Notice]) -> Metric:
    first: dict[tuple[str, str], float] = {}
    for one in notices:
        key = (one.cloud, one.kind)
        first[key] = min(one.at, first.get(key, one.at))
    return gauge(
        "farrier_host_notice_timestamp_seconds",
        "When what a cloud announced to this host happens at the earliest, in epoch seconds.",
        ("cloud", "kind"),
        first.items(),
    )


def _units(status: Status) -> Metric:
    units: dict[str, Unit] = {unit.name: unit for unit in status.units}
    units |= {one.unit_state.name: one.unit_state for one in status.replicas if one.unit_state}
    return gauge(
        "farrier_unit_state",
        "The state of a systemd unit, a replica's or the host's: 1 for the state that it is in.",
        ("unit", "state"),
        [
            sample
            for unit in units.values()
            if unit.load_state != "not-found"
            for sample in one_hot((unit.name,), UNIT_STATES, unit.active_state)
        ],
    )
