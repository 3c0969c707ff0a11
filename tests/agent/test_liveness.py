"""A wedged engine is found in time, and a busy one never is taken for one."""

from __future__ import annotations

import asyncio
import http.client
import json
from collections.abc import Iterable
from time import monotonic

import pytest
from farrier_agent import loopback
from farrier_agent.engines import ENGINES, Load
from farrier_agent.engines.exposition import sums
from farrier_agent.liveness import Patience, Sample, Verdict, Watch, look
from farrier_agent.loopback import asker
from farrier_agent.warmup import generate
from hypothesis import example, given
from hypothesis import strategies as st

from tests.agent.host import until
from tests.agent.standin import Client, engine

PATIENCE = Patience()
TICK = 5.0


def verdicts(samples: Iterable[Sample], patience: Patience = PATIENCE) -> list[Verdict]:
    watch, given_ = Watch(), []
    for sample in samples:
        watch, verdict = look(watch, sample, patience)
        given_.append(verdict)
    return given_


def told(at: float, running: int, progress: float, waiting: int = 0, **more: object) -> Sample:
    load = Load(running, waiting, progress)
    return Sample(at=at, run="a", load=load, sockets=running, moved=0, **more)  # type: ignore[arg-type]


def seen(at: float, sockets: int, moved: int, unread: int = 0, run: str = "a") -> Sample:
    return Sample(at=at, run=run, sockets=sockets, moved=moved, unread=unread)


def test_a_wedge_is_found_within_30_seconds_at_any_moment_of_a_tick() -> None:
    # the last token comes right after a look: the worst case is one tick plus the patience
    samples = [told(0, 3, 100), *(told(TICK * n, 3, 101) for n in range(1, 8))]
    found = next(
        s.at for s, v in zip(samples, verdicts(samples), strict=True) if v.state == "wedged"
    )
    assert found - 0 <= 30
    wedged = verdicts(samples)[-1]
    assert wedged.why == "3 running and 0 waiting requests, no progress for 30 s"


@given(st.lists(st.integers(1, 4), min_size=2, max_size=200), st.integers(0, 10_000))
def test_a_full_queue_whose_tokens_move_is_busy_for_ever(
    ticks_between_tokens: list[int], waiting: int
) -> None:
    at, samples = 0.0, []
    for number, ticks in enumerate(ticks_between_tokens):
        for _ in range(ticks):
            samples.append(told(at, 256, number, waiting))
            at += TICK
    assert {verdict.state for verdict in verdicts(samples)} == {"busy"}


@given(
    st.lists(
        st.tuples(
            st.floats(0.1, 100),
            st.sampled_from("ab"),
            st.none() | st.integers(0, 3),
            st.none() | st.integers(0, 3),
            st.none() | st.integers(0, 3),
            st.integers(0, 2),
        ),
        max_size=60,
    )
)
def test_wedged_is_only_what_had_work_and_stood_still_in_every_look_of_that_time(
    looks: list[tuple[float, str, int | None, int | None, int | None, int]],
) -> None:
    at, samples = 0.0, []
    for pause, run, sockets, moved, tokens, running in looks:
        at += pause
        load = None if tokens is None else Load(running, 0, tokens)
        sample = Sample(at=at, run=run, sockets=sockets, moved=moved, load=load, probing=pause)
        samples.append(sample)
    for index, verdict in enumerate(verdicts(samples)):
        if verdict.state != "wedged":
            continue
        now = samples[index]
        limit = PATIENCE.progress if now.told else PATIENCE.silence
        during = [s for s in samples[: index + 1] if s.at >= now.at - limit]
        assert now.at - samples[0].at >= limit
        assert {s.run for s in during} == {now.run}
        if now.told:
            assert all(s.load and (s.load.running or s.sockets) for s in during)
            assert now.load
            assert now.load.running or (now.probing or 0) >= PATIENCE.probe
            assert len({s.load.progress for s in during if s.load}) == 1
        else:
            assert all(s.sockets for s in during)
            assert len({s.moved for s in during}) == 1


def unknown(at: float, *, tokens: int = 7, probing: float | None = None) -> Sample:
    """Sockets that an engine owes answers on, of which it tells nothing."""
    return Sample(at, "a", 5, 0, 0, Load(0, 0, tokens), probing)


def test_requests_that_the_engine_does_not_know_of_make_it_suspect_and_then_wedged() -> None:
    samples = [unknown(0), *(unknown(TICK * n) for n in range(1, 4))]
    samples += [unknown(20, probing=4.9), unknown(25, probing=9.9)]
    found = verdicts(samples)
    assert [verdict.state for verdict in found] == ["busy"] * 3 + ["suspect"] * 2 + ["wedged"]
    assert found[-1].why == (
        "5 requests in flight that it does not know of, no progress for 25 s, "
        "and no generation in 10 s"
    )


def test_stalled_uploads_wedge_nothing_as_long_as_it_answers_when_asked() -> None:
    """The generation that a suspect engine is asked for moves its progress."""
    watch, tokens, states = Watch(), 0, []
    for n in range(1000):
        watch, verdict = look(watch, unknown(TICK * n, tokens=tokens), PATIENCE)
        tokens += verdict.state == "suspect"
        states.append(verdict.state)
    assert set(states) == {"busy", "suspect"}
    assert states.count("suspect") < 300


def test_answers_that_their_clients_do_not_read_are_not_even_suspect() -> None:
    samples = [Sample(TICK * n, "a", 5, 5, 0, Load(0, 0, 7)) for n in range(1000)]
    assert {verdict.state for verdict in verdicts(samples)} == {"idle"}


def test_an_engine_without_metrics_is_given_time_for_a_long_answer() -> None:
    samples = [seen(TICK * n, 1, 500) for n in range(62)]
    states = [verdict.state for verdict in verdicts(samples)]
    assert states[:60] == ["busy"] * 60
    assert states[60] == "wedged"
    assert verdicts(samples)[-1].why == "1 requests in flight, no byte moved for 305 s"


def test_an_answer_that_its_client_does_not_read_is_not_awaited_from_the_engine() -> None:
    samples = [seen(TICK * n, 2, 500, unread=2) for n in range(200)]
    assert "wedged" not in {verdict.state for verdict in verdicts(samples)}


def test_metrics_that_fell_silent_are_told() -> None:
    silent = [seen(TICK * n, 4, 9) for n in range(1, 70)]
    verdict = verdicts([told(0, 4, 100), *silent])[-1]
    assert verdict.state == "wedged"
    assert "no answer on its metrics any more" in verdict.why


def test_one_missing_answer_on_the_metrics_during_a_long_answer_proves_nothing() -> None:
    """No byte moves while an answer that is not streamed is made; its tokens did, until now."""
    busy = [told(TICK * n, 4, n) for n in range(200)]
    states = {verdict.state for verdict in verdicts([*busy, seen(TICK * 200, 4, 0)])}
    assert states == {"busy"}


@pytest.mark.parametrize(
    ("name", "samples"),
    [
        ("a suspended machine", [told(0, 1, 5), told(3600, 1, 5)]),
        ("a restart", [seen(0, 1, 5), *(seen(n * 10, 1, 5, run=str(n // 20)) for n in range(80))]),
        ("an idle hour", [told(n * 10, 0, 5) for n in range(360)] + [told(3600, 1, 5)]),
        ("a clock that goes back", [told(100, 1, 5), told(50, 1, 5)]),
    ],
)
def test_time_without_observation_or_work_does_not_count(name: str, samples: list[Sample]) -> None:
    assert "wedged" not in {verdict.state for verdict in verdicts(samples)}, name


def test_what_cannot_be_seen_is_unknown() -> None:
    assert verdicts([Sample(at=0, run="a")])[-1].state == "unknown"
    assert verdicts([Sample(at=0, run="a", load=Load(1, None, 4))])[-1].state == "unknown"


def loads(client: Client) -> Load:
    adapter = ENGINES["vllm"]
    assert adapter.metrics is not None
    assert adapter.load is not None
    answer = asyncio.run(loopback.get(client.port, adapter.metrics, deadline=5))
    return adapter.load(answer.body)


class Watcher:
    """Watches a real engine, with *sockets* that it owes answers on."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.sockets = 0
        self.probing: float | None = None
        self._watch = Watch()
        self._patience = Patience(progress=0.5, probe=0.2, gap=5)

    def state(self) -> str:
        sample = Sample(
            at=monotonic(),
            run="a",
            sockets=self.sockets,
            moved=0,
            load=loads(self.client),
            probing=self.probing,
        )
        self._watch, verdict = look(self._watch, sample, self._patience)
        return verdict.state


def test_the_metrics_of_an_engine_that_works_wedges_and_recovers() -> None:
    with engine("--token-delay=0.01", "--max-running=1") as (client, _):
        running = client.begin("running", tokens=100_000)
        queued = http.client.HTTPConnection("127.0.0.1", client.port)
        queued.request("POST", "/v1/completions", '{"model": "tiny"}')
        until(lambda: loads(client).waiting == 1)
        watcher = Watcher(client)
        begun = monotonic()
        until(lambda: watcher.state() != "busy" or monotonic() - begun > 1.5)
        assert watcher.state() == "busy"
        client.manners(answers="wedge")
        assert client.listens()
        until(lambda: watcher.state() == "wedged")
        client.manners(answers="well")
        until(lambda: watcher.state() == "busy")
        running.close()
        queued.close()


def test_an_engine_that_wedged_while_it_was_idle_does_not_know_of_its_requests() -> None:
    async def probe(client: Client) -> str | None:
        return await generate(asker(client.port), ENGINES["vllm"], "tiny", deadline=0.3)

    with engine() as (client, _):
        watcher = Watcher(client)
        watcher.sockets = 1
        until(lambda: watcher.state() == "suspect")
        assert asyncio.run(probe(client)) is None
        assert watcher.state() == "busy"
        client.manners(answers="wedge")
        until(lambda: watcher.state() == "suspect")
        assert "no answer within" in (asyncio.run(probe(client)) or "")
        watcher.probing = 0.3
        until(lambda: watcher.state() == "wedged")


def test_an_engine_without_metrics_has_no_load() -> None:
    with engine("--no-metrics") as (client, _):
        assert loads(client) == Load()
    assert ENGINES["openai"].load is None


LINES = """\
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{model_name="a } b",engine="0"} 2.0
vllm:num_requests_running{model_name="a",engine="1"} 3.0 1700000000000
vllm:num_requests_running_total 50
vllm:num_requests_waiting 4
vllm:generation_tokens_total{engine="0"} 1e3
vllm:prompt_tokens_total{engine="0"} NaN
vllm:iteration_tokens_total_count{engine="0"} 7
"""


def test_families_are_summed_over_their_labels() -> None:
    assert ENGINES["vllm"].load is not None
    assert ENGINES["vllm"].load(LINES.encode()) == Load(running=5, waiting=4, progress=1007)


@given(st.binary(max_size=200))
@example(b'vllm:num_requests_running{a="}"} x\n')
@example(b"vllm:num_requests_running\n")
@example(b"vllm:num_requests_running} 3")
@example(b"vllm:num_requests_running{} 1e999")
def test_no_metrics_of_an_engine_break_the_adapter(text: bytes) -> None:
    assert ENGINES["vllm"].load is not None
    for body in (text, b"vllm:num_requests_running{" + text, b"vllm:num_requests_running " + text):
        load = ENGINES["vllm"].load(body)
        assert load.running is None or load.running >= 0
        json.dumps(sums(body, ["vllm:num_requests_running"]), allow_nan=False)
