"""The engines' metrics as a collector: each replica's page comes and goes on its own."""

from __future__ import annotations

import asyncio

from farrier_agent.collectors.engine import EngineMetrics
from farrier_agent.engines.passthrough import Family

from tests.agent.test_passthrough import VLLM

PAGE = b"# TYPE load gauge\nload %d\n"


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def made(clock: Clock | None = None, *names: str) -> EngineMetrics:
    models = {name: f"model-{name}" for name in names or ("a", "b")}
    return EngineMetrics(models, max_age=15, clock=clock or Clock())


def collected(metrics: EngineMetrics) -> tuple[Family, ...]:
    return asyncio.run(metrics.collect(1.0))


def load(metrics: EngineMetrics) -> list[str]:
    """What is passed on of PAGE: replica and value."""
    families = collected(metrics)
    assert len(families) <= 1
    found = [line.partition('replica="')[2] for one in families for line in one.lines]
    return [f"{line.partition(chr(34))[0]} {line.rpartition(' ')[2]}" for line in found]


def test_engines_without_metrics_give_nothing() -> None:
    assert collected(made()) == ()


def test_each_replica_has_its_last_page_until_it_is_stale() -> None:
    clock = Clock()
    metrics = made(clock)
    metrics.told("a", PAGE % 1)
    metrics.told("b", PAGE % 1)
    assert load(metrics) == ["a 1", "b 1"]
    clock.now += 10
    metrics.told("b", PAGE % 2)
    assert load(metrics) == ["a 1", "b 2"]
    clock.now += 10  # a's engine hangs
    assert load(metrics) == ["b 2"]
    metrics.told("a", PAGE % 3)
    assert load(metrics) == ["a 3", "b 2"]


def test_the_metrics_of_an_engine_that_does_not_run_are_gone_at_once() -> None:
    metrics = made()
    metrics.told("a", PAGE % 1)
    metrics.told("b", PAGE % 1)
    load(metrics)
    metrics.told("a", None)
    assert load(metrics) == ["b 1"]


def test_pages_of_nobody_are_not_kept() -> None:
    metrics = made()
    metrics.told("stranger", PAGE % 1)
    assert collected(metrics) == ()


def test_what_was_faulty_is_said_by_replica() -> None:
    metrics = made()
    metrics.told("a", PAGE % 1 + b"?\n")
    metrics.told("b", b"# TYPE load counter\nload_total 1\n")
    assert [one.name for one in collected(metrics)] == ["load"]
    assert (metrics.faulty, metrics.clashes) == ({"a": 1, "b": 0}, 1)


def test_a_page_that_does_not_change_in_its_lines_is_read_like_the_first_time() -> None:
    metrics, fresh = made(None, "a"), made(None, "a")
    changed = VLLM.replace(b'"} 0.0\n', b'"} 7.0\n')
    assert changed != VLLM
    for page in (VLLM, changed, VLLM):
        metrics.told("a", page)
        families = collected(metrics)
    fresh.told("a", VLLM)
    assert families == collected(fresh)
