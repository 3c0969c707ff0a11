"""Every engine in its own words: the stand-in speaks the dialect, the real agent asks it."""

from __future__ import annotations

import asyncio
import http.client
import json
from collections.abc import Iterator
from contextlib import contextmanager
from subprocess import Popen
from typing import Any

import pytest
from farrier_agent import loopback
from farrier_agent.engines import ENGINES, Answer, Load
from farrier_agent.engines.llama_cpp import ROUNDED
from farrier_agent.liveness import Patience
from farrier_agent.loopback import asker
from farrier_agent.vitals import Vitals, read_load
from farrier_agent.warmup import WarmUp, warm_up
from hypothesis import given
from hypothesis import strategies as st

from tests.agent.host import until
from tests.agent.standin import Client, engine

DIALECTS = ("sglang", "trtllm", "llama_cpp", "ollama", "transformers", "tgi", "triton")
PATIENCE = Patience(progress=0.6, probe=0.2, silence=1.5, gap=5)


@contextmanager
def speaking(dialect: str, *options: str) -> Iterator[tuple[Client, Popen[bytes]]]:
    """An engine of *dialect* that listens."""
    with engine(f"--dialect={dialect}", *options, wait=False) as (client, process):
        until(lambda: listens(client))
        yield client, process


def listens(client: Client) -> bool:
    try:
        return client.ask("GET", "/executed")[0] == 200
    except (ConnectionError, http.client.HTTPException):
        return False


def warmed(client: Client, kind: str, deadline: float = 20.0) -> WarmUp:
    ask = asker(client.port)
    return asyncio.run(warm_up(ask, ENGINES[kind], "tiny", deadline=deadline, again=(0.05, 0.05)))


def complaint(client: Client, kind: str) -> str | None:
    """Why the replica is not up, as the agent's collector finds it."""
    adapter = ENGINES[kind]

    async def asked() -> dict[str, Answer]:
        return {path: await loopback.get(client.port, path, deadline=5) for path in adapter.paths}

    return adapter.judge("tiny", asyncio.run(asked()))


def load(client: Client, kind: str) -> Load | None:
    return asyncio.run(read_load(asker(client.port), ENGINES[kind], deadline=5))


def test_each_adapter_has_a_dialect_and_says_what_the_page_shows() -> None:
    assert set(ENGINES) - {"openai", "vllm", "ollama-on-cpu"} == set(DIALECTS)
    for name, adapter in ENGINES.items():
        assert adapter.name == name
        assert adapter.sigterm != "not known"
        assert (adapter.metrics is None) == (adapter.load is None)


@pytest.mark.parametrize("kind", DIALECTS)
def test_it_is_warmed_up_with_two_real_generations(kind: str) -> None:
    with speaking(kind, "--token-delay=0") as (client, _):
        result = warmed(client, kind)
        assert result.why is None
        titles = [done.title for done in result.done]
        assert titles[:4] == ["health", "model", "short generation", "stream"]
        client.ends("length", "length")
        assert complaint(client, kind) is None


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("sglang", "/ready answers 503"),
        ("trtllm", "/health answers 503"),
        ("llama_cpp", "/health answers 503"),
        ("ollama", "/api/version answers 503"),
        ("transformers", "/health answers 503"),
        ("tgi", "/health answers 503"),
        ("triton", "/health/ready answers 400"),
    ],
)
def test_one_that_starts_is_not_up(kind: str, words: str) -> None:
    with speaking(kind, "--start-delay=60") as (client, _):
        assert complaint(client, kind) == words
        result = warmed(client, kind, deadline=0.3)
        assert result.why == f"health: {words}; not warm within 0.3 s"
        assert client.executed()["begun"] == 0


def begin_two(client: Client) -> tuple[Any, ...]:
    """One request that runs, and another that waits for it, for as long as they are kept."""
    running = client.begin("running", tokens=10_000)
    waiting = http.client.HTTPConnection("127.0.0.1", client.port, timeout=20)
    waiting.request("POST", "/v1/completions", json.dumps({"model": "tiny", "prompt": "x"}))
    until(lambda: client.executed()["waiting"] == 1)
    return running, waiting


@pytest.mark.parametrize(
    ("kind", "running", "moves"),
    [
        ("sglang", 1, True),
        ("trtllm", 1, False),
        ("llama_cpp", 1, True),
        ("transformers", 1, True),
        ("tgi", 1, True),
        ("triton", None, False),
    ],
)
def test_it_tells_what_runs_and_waits_and_whether_work_moves(
    kind: str, running: int | None, moves: bool
) -> None:
    with speaking(kind, "--max-running=1", "--token-delay=0.005") as (client, _):
        kept = begin_two(client)
        told = load(client, kind)
        assert told is not None
        assert (told.running, told.waiting) == (running, 1)
        assert (told.progress is not None) == moves == bool(ENGINES[kind].progress)
        if moves:
            until(lambda: (now := load(client, kind)) and now.progress != told.progress)
        del kept


@pytest.mark.parametrize("kind", ["ollama", "ollama-on-cpu", "openai"])
def test_one_that_tells_nothing_of_its_work_is_not_asked(kind: str) -> None:
    with speaking("ollama") as (client, _):
        assert load(client, kind) is None


@pytest.mark.parametrize(("kind", "moves"), [("sglang", True), ("trtllm", False)])
def test_a_wedged_one_is_found_by_its_work_or_else_by_its_silence(kind: str, moves: bool) -> None:
    async def watch(client: Client) -> str:
        life = Vitals(asker(client.port), ENGINES[kind], "tiny", PATIENCE)
        while True:
            verdict = await life.look("a", sockets=1, moved=0)
            if verdict.state == "wedged":
                return verdict.why
            await asyncio.sleep(0.02)

    with speaking(kind, "--token-delay=0.005") as (client, _):
        running = client.begin("running", tokens=10_000)
        client.manners(answers="wedge")
        why = asyncio.run(asyncio.wait_for(watch(client), 20))
        running.close()
    assert why.startswith("1 running" if moves else "1 requests in flight, no byte moved")


def test_metrics_that_are_off_are_no_load() -> None:
    for kind in ("sglang", "llama_cpp"):
        with speaking(kind, "--no-metrics") as (client, _):
            assert load(client, kind) is None
            assert warmed(client, kind).warm


def test_six_digits_tell_no_progress() -> None:
    """llama-server prints 1.23457e+07 for 12,345,678: its steps would seem to stand still."""
    adapter = ENGINES["llama_cpp"]
    assert adapter.load is not None
    page = (
        "llamacpp:requests_processing 1\nllamacpp:requests_deferred 0\nllamacpp:n_decode_total {}\n"
    )
    assert adapter.load(page.format("9.99999e+06").encode()) == Load(1, 0, 9_999_990)
    assert adapter.load(page.format("1e+07").encode()) == Load(1, 0, None)
    assert ROUNDED == 1e7


@pytest.mark.parametrize(
    ("share", "words"),
    [
        (0.0, "nothing of tiny:latest is in the GPUs' memory, the rest runs on the CPU"),
        (0.5, "400 of 800 MiB of tiny:latest is in the GPUs' memory"),
    ],
)
def test_ollama_does_not_serve_from_the_cpu_by_accident(share: float, words: str) -> None:
    with speaking("ollama", f"--on-gpus={share}", "--token-delay=0") as (client, _):
        assert complaint(client, "ollama") is None, "nothing is loaded before the first request"
        result = warmed(client, "ollama", deadline=0.5)
        assert result.why is not None
        assert result.why.startswith(f"on its GPUs: {words}")
        assert words in (complaint(client, "ollama") or "")
        assert warmed(client, "ollama-on-cpu").warm
        assert complaint(client, "ollama-on-cpu") is None
        client.manners(on_gpus=1.0)
        assert warmed(client, "ollama").warm


def test_an_ollama_model_with_a_tag_is_another_than_the_latest() -> None:
    listed = Answer(200, b'{"data": [{"id": "qwen3:8b"}]}')
    heard = {"/api/version": Answer(200), "/v1/models": listed}
    assert ENGINES["ollama-on-cpu"].judge("qwen3:8b", heard) is None
    why = ENGINES["ollama-on-cpu"].judge("qwen3", heard)
    assert why == "/v1/models does not name 'qwen3:latest' (it names 'qwen3:8b')"


def test_tgi_serves_its_one_model_under_any_name() -> None:
    with speaking("tgi", "--token-delay=0") as (client, _):
        body = {"model": "anything", "prompt": "x", "max_tokens": 1}
        assert client.ask("POST", "/v1/completions", body)[0] == 200
    heard = {"/health": Answer(200), "/info": Answer(200, b"{}")}
    assert ENGINES["tgi"].judge("tiny", heard) == "/info names no model"


@pytest.mark.parametrize("kind", DIALECTS)
def test_what_sigterm_does_to_a_stream(kind: str) -> None:
    cuts = ENGINES[kind].sigterm.startswith("cuts")
    with speaking(kind, "--token-delay=0.02") as (client, process):
        running = client.begin("running", tokens=30)
        process.terminate()
        if kind == "sglang":
            assert client.chat("new", tokens=1)[0] == 200, "it takes new ones meanwhile"
        if cuts:
            with pytest.raises((http.client.IncompleteRead, ConnectionError)):
                running.read()
        else:
            assert running.read().endswith(b"data: [DONE]\n\n")
        assert (process.wait(timeout=20) == 0) != cuts


JSON: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["models", "data", "name", "id", "size", "model_id"]), inner
        )
    ),
    max_leaves=8,
)


@given(st.sampled_from(sorted(ENGINES)), st.binary(max_size=200) | JSON.map(json.dumps))
def test_no_answer_breaks_an_adapter(kind: str, body: bytes | str) -> None:
    adapter = ENGINES[kind]
    answer = Answer(200, body.encode() if isinstance(body, str) else body)
    why = adapter.judge("tiny", dict.fromkeys(adapter.paths, answer))
    assert why is None or len(why) < 700
    for step in adapter.steps:
        for question in step.questions("tiny"):
            why = step.judge("tiny", question.path, answer)
            assert why is None or len(why) < 700
    if adapter.load:
        assert isinstance(adapter.load(answer.body), Load)
