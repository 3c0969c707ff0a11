"""The page in both formats: what the reference says of it, what is left out, what is chosen."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from farrier_agent.collectors.requests import RequestCounts
from farrier_agent.engines.passthrough import Family as EngineFamily
from farrier_agent.gpus import Gpu, Gpus, Nvml
from farrier_agent.metrics import gpus as gpu_metrics
from farrier_agent.metrics.family import Sample, family, header, lines
from farrier_agent.metrics.page import COLLECTORS, FAMILIES, Extra, gather
from farrier_agent.status import Status
from hypothesis import given
from hypothesis import strategies as st
from msgspec import inspect
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics import exposition as openmetrics_exposition
from prometheus_client.parser import text_string_to_metric_families as text_families
from prometheus_client.registry import Collector

from tests.agent.exposition import openmetrics, openmetrics_families, samples
from tests.agent.full_status import engine_families, full_extra, full_status, proc_tree, requests
from tests.agent.pages import NOWHERE, named, of, status_of
from tests.agent.statuses import NAMES, statuses

# ---- any status


@given(statuses(), st.none() | st.just(requests(2)))
def test_any_status_makes_a_page_that_both_reference_parsers_read_alike(
    status: Status, counts: RequestCounts | None
) -> None:
    declared = {one.name: set(one.labels) for one in FAMILIES}
    for name, labels in of(status, Extra(requests=counts, proc=NOWHERE)):
        names = {key for key, _ in labels} - {"le"}
        assert names == declared[re.sub(r"(_seconds)_(bucket|count|sum)$", r"\1", name)], name


class _Once(Collector):
    def __init__(self, metric: Metric) -> None:
        self._metric = metric

    def collect(self) -> Iterator[Metric]:
        yield self._metric


@given(
    st.sampled_from(("x_ratio", "x_total", "x_joules_total", "x")),
    NAMES | st.text(max_size=9),
    st.dictionaries(st.tuples(NAMES, st.text(max_size=5)), st.integers(0, 9) | st.floats(0, 1e9)),
)
def test_what_is_written_is_what_prometheus_clients_own_writers_write(
    name: str, text: str, values: dict[tuple[str, str], float]
) -> None:
    one = family(name, "a b", text or "text", "gpu")
    pairs: list[Sample] = list(values.items())
    kind = CounterMetricFamily if one.kind == "counter" else GaugeMetricFamily
    reference = kind(name, one.text, labels=one.labels, unit=one.unit)
    for key, value in values.items():
        reference.add_metric(key, value)
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Once(reference))
    body = "".join(f"{line}\n" for line in lines(one, pairs))
    ours = header(one.name, one.kind, one.text, one.unit, "text") + body
    theirs = generate_latest(registry).decode()
    assert parsed(text_families(ours)) == parsed(text_families(theirs))
    ours = header(one.name, one.kind, one.text, one.unit, "openmetrics") + body + "# EOF\n"
    theirs = openmetrics_exposition.generate_latest(registry).decode()  # type: ignore[no-untyped-call]
    assert parsed(openmetrics_families(ours)) == parsed(openmetrics_families(theirs))


def parsed(families: Iterable[Metric]) -> list[tuple[Any, ...]]:
    return [(one.name, one.documentation, one.type, one.unit, one.samples) for one in families]


def test_a_tick_of_eight_gpus_and_four_replicas_is_cheap() -> None:
    """Both formats together: prometheus_client's writers take 20 ms for them."""
    status, extra = full_status(), Extra(engine_families(), requests(), NOWHERE)
    took = []
    for _ in range(20):
        begun = time.process_time()
        made = gather(status, extra)
        sizes = (len(made.text("text")), len(made.text("openmetrics")))
        took.append(time.process_time() - begun)
    assert min(sizes) > 200_000
    assert min(took) < 0.010  # 2 ms on a machine with nothing else to do


# ---- what is left out


def test_every_number_of_a_gpu_is_a_metric() -> None:
    """But for its identity, which is only in farrier_gpu_info and in /status."""
    fields = {one.encode_name: one.type for one in _struct(Gpu).fields}
    numbers = {
        name
        for name, kind in fields.items()
        if isinstance(kind, inspect.BoolType)
        or (isinstance(kind, inspect.UnionType) and {*map(type, kind.types)} & NUMERIC)
    }
    assert numbers - {"minor_number", "up"} == set(gpu_metrics.VALUES)


NUMERIC = {inspect.BoolType, inspect.IntType, inspect.FloatType}


def _struct(kind: type) -> inspect.StructType:
    info = inspect.type_info(kind)
    assert isinstance(info, inspect.StructType)
    return info


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf"), None, 2**70])
def test_what_is_no_number_has_no_sample(value: float | None) -> None:
    odd = Gpu(uuid="a", index=0, up=True, power_watts=value)
    found = of(status_of(gpus=Gpus(count=1, devices=(odd,))))
    assert named("farrier_gpu_power_watts", found) == {}
    assert named("farrier_gpu_up", found) == {"a": 1}


def test_a_count_below_0_has_no_sample() -> None:
    odd = Gpu(uuid="a", index=0, up=True, pcie_replays_total=-1, temperature_celsius=-1.0)
    found = of(status_of(gpus=Gpus(count=1, devices=(odd,))))
    assert named("farrier_gpu_pcie_replays_total", found) == {}
    assert named("farrier_gpu_temperature_celsius", found) == {"a": -1.0}


def test_of_a_host_that_says_nothing_there_is_the_agent_alone(tmp_path: Path) -> None:
    found = of(status_of(), Extra(proc=proc_tree(tmp_path / "proc")))
    families = {name.partition("_")[0] + "_" + name.split("_")[1] for name, _ in found}
    assert families == {
        "farrier_agent",
        "process_virtual",
        "process_resident",
        "process_start",
        "process_cpu",
        "process_open",
        "process_max",
    }


def test_two_gpus_with_one_uuid_are_one() -> None:
    twice = (Gpu(uuid="a", index=0, up=True), Gpu(uuid="a", index=1, up=False))
    assert named("farrier_gpu_up", of(status_of(gpus=Gpus(count=2, devices=twice)))) == {"a": 1}


# ---- the agent's processes


def test_the_agents_own_process_and_the_nvml_workers(tmp_path: Path) -> None:
    proc = proc_tree(tmp_path / "proc", worker=701)
    found = of(status_of(nvml=Nvml(workers=1, pid=701)), Extra(proc=proc))
    ticks, size = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")
    assert found["process_resident_memory_bytes", ()] == 7000 * size
    assert found["process_open_fds", ()] == 5
    assert found["farrier_nvml_worker_resident_memory_bytes", ()] == 7001 * size
    assert found["farrier_nvml_worker_cpu_seconds_total", ()] == 400 / ticks


def test_a_worker_that_is_gone_has_no_memory(tmp_path: Path) -> None:
    proc = proc_tree(tmp_path / "proc", worker=701)
    found = of(status_of(nvml=Nvml(workers=1, pid=702)), Extra(proc=proc))
    assert named("farrier_nvml_worker_resident_memory_bytes", found) == {}
    assert named("process_resident_memory_bytes", found) != {}


def test_this_process_is_read_from_the_machine() -> None:
    found = of(status_of(), Extra())
    assert found["process_resident_memory_bytes", ()] > 10 * 2**20
    assert found["process_cpu_seconds_total", ()] > 0


# ---- engines' own


def engine(name: str, kind: str, *lines: str) -> EngineFamily:
    return EngineFamily(name, kind, 'what "it" \\ means\nin two lines', lines)


def test_a_family_that_comes_twice_is_one() -> None:
    families = (
        engine("x:running", "gauge", 'x:running{replica="a"} 1.0'),
        engine("x:other", "gauge", 'x:other{replica="a"} 2.0'),
        engine("x:running", "gauge", 'x:running{replica="b"} 3.0'),
        engine("x:running", "counter", 'x:running{replica="c"} 4.0'),
    )
    found = of(status_of(), Extra(families, proc=NOWHERE))
    assert named("x:running", found) == {"a": 1.0, "b": 3.0}


@pytest.mark.parametrize("name", ["farrier_gpu_up", "llm_requests_total", "process_open_fds"])
def test_no_engine_speaks_for_the_agent(name: str) -> None:
    theirs = engine(name, "gauge", f'{name}{{replica="a"}} 1.0')
    assert named(name, of(status_of(), Extra((theirs,), proc=NOWHERE))) == {}


def test_what_openmetrics_would_take_for_a_part_of_another_is_only_in_text() -> None:
    families = (
        engine("x:tokens_total", "counter", 'x:tokens_total{replica="a"} 1.0'),
        engine("x:tokens_created", "gauge", 'x:tokens_created{replica="a"} 1.7e+09'),
    )
    made = gather(status_of(), Extra(families, proc=NOWHERE))
    assert ("x:tokens_created", (("replica", "a"),)) in samples(made.text("text").decode())
    found = openmetrics(made.text("openmetrics").decode())
    assert [name for name, _ in found if name.startswith("x:")] == ["x:tokens_total"]


@pytest.mark.parametrize(
    ("kind", "name", "text", "there"),
    [
        ("untyped", "x:some", "untyped", "unknown"),
        ("counter", "x:some", "counter", "unknown"),  # OpenMetrics has no counter of that name
        ("counter", "x:some_total", "counter", "counter"),
        ("of_tomorrow", "x:some", "untyped", "unknown"),
    ],
)
def test_types_of_engines_families(kind: str, name: str, text: str, there: str) -> None:
    theirs = engine(name, kind, f'{name}{{replica="a"}} 1.0')
    made = gather(status_of(), Extra((theirs,), proc=NOWHERE))
    (one,) = (
        one
        for one in openmetrics_families(made.text("openmetrics").decode())
        if one.name.startswith("x:")
    )
    assert one.type == there
    assert one.documentation == theirs.text
    assert f"# TYPE {name} {text}\n" in made.text("text").decode()


# ---- the choice of collectors


@pytest.mark.parametrize("name", sorted(COLLECTORS))
def test_of_what_was_chosen_there_are_only_its_families_and_how_all_collectors_fare(
    name: str, tmp_path: Path
) -> None:
    made = gather(full_status(), full_extra(proc_tree(tmp_path / "proc")))
    found = {
        re.sub(r"(_seconds)_(bucket|count|sum)$", r"\1", one)
        for one, _ in samples(made.text("text", frozenset({name})).decode())
    }
    wanted = {one.name for one in FAMILIES if name in one.of}
    always = {
        f"farrier_collector_{one}"
        for one in ("success", "duration_seconds", "last_success_timestamp_seconds")
    }
    if name == "engine":
        wanted |= {one.name for one in full_extra(tmp_path).engine_families}
    assert found == wanted | always
    assert wanted


def test_every_family_is_somebodys_who_can_be_chosen() -> None:
    assert {name for one in FAMILIES for name in one.of} <= COLLECTORS | {""}
    assert {one.name for one in full_status().collectors} <= COLLECTORS
