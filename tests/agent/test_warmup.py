"""An engine is warm when it answers, and what keeps it from that is said in words."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence

import pytest
from farrier_agent.engines import ENGINES, Answer, Question
from farrier_agent.engines.generation import GENERATIONS
from farrier_agent.loopback import asker
from farrier_agent.warmup import WarmUp, generate, warm_up
from hypothesis import example, given
from hypothesis import strategies as st

from tests.agent.host import free_port
from tests.agent.standin import engine

SHORT, STREAM = GENERATIONS
CHAT, TEXT = "/v1/chat/completions", "/v1/completions"


def warmed(
    port: int,
    *,
    model: str = "tiny",
    kind: str = "vllm",
    deadline: float = 20.0,
    adapters: Sequence[str] = (),
    refused_for: float = 60.0,
) -> tuple[WarmUp, list[str]]:
    said: list[str] = []
    result = asyncio.run(
        warm_up(
            asker(port),
            ENGINES[kind],
            model,
            deadline=deadline,
            adapters=adapters,
            refused_for=refused_for,
            again=(0.05, 0.05),
            say=said.append,
        )
    )
    return result, said


@pytest.mark.parametrize(
    ("kind", "steps"),
    [
        ("vllm", ["health", "model", "short generation", "stream", "logprobs"]),
        ("openai", ["model", "short generation", "stream"]),
    ],
)
def test_an_engine_that_serves_is_warm_after_real_generations(kind: str, steps: list[str]) -> None:
    with engine() as (client, _):
        result, _ = warmed(client.port, kind=kind)
        assert result.warm
        assert [done.title for done in result.done] == steps
        generations = len(steps) - steps.index("short generation")
        client.ends(*["length"] * generations)
        assert client.executed()["begun"] == generations


def test_each_adapter_has_to_generate_too() -> None:
    with engine("--adapter=law", "--adapter=chess") as (client, _):
        result, _ = warmed(client.port, adapters=["law", "chess"])
        assert result.warm
        assert [done.title for done in result.done][4:] == [
            *("logprobs", "short generation of law", "short generation of chess")
        ]
        client.ends(*["length"] * 5)
        result, _ = warmed(client.port, adapters=["law", "lost"], deadline=4)
    assert result.why is not None
    assert result.why.startswith("short generation of lost: /v1/chat/completions answers 404: The")


def test_an_engine_that_loads_slowly_is_waited_for_and_what_for_is_said_once() -> None:
    with engine("--load-delay=0.7", "--start-delay=0.7", wait=False) as (client, _):
        result, said = warmed(client.port)
    assert result.warm
    assert said[0] == f"health: /health: nothing listens on 127.0.0.1:{client.port}"
    assert said[1] == "health: /health answers 503"
    assert said[2:] == [f"{done.title}: done" for done in result.done]


@pytest.mark.parametrize(
    ("manner", "step", "words"),
    [
        ("503", "short generation", "/v1/chat/completions answers 503: as it was asked to"),
        ("500", "short generation", "answers 500: as it was asked to"),
        ("abort", "short generation", "answers 200 with finish_reason 'abort'"),
        ("close", "short generation", "not HTTP"),
        ("garbage", "short generation", "with something that is no completion"),
        ("wedge", "short generation", "no answer within"),
        ("undone", "stream", "the stream ended after 8 events without [DONE]"),
        ("break", "stream", "not HTTP"),
    ],
)
def test_an_engine_with_bad_manners_is_never_warm(manner: str, step: str, words: str) -> None:
    with engine(f"--answers={manner}", "--token-delay=0") as (client, _):
        begun = time.monotonic()
        result, said = warmed(client.port, deadline=0.6)
        assert time.monotonic() - begun < 5
    assert not result.warm
    assert result.why is not None
    assert result.why.startswith(f"{step}: ")
    # the last try may be cut short by the deadline; what the ones before it met was said
    assert any(words in one for one in (*said, result.why)), (said, result.why)
    assert result.why.endswith("not warm within 0.6 s")


def test_it_becomes_warm_when_its_manners_improve() -> None:
    with engine("--answers=503") as (client, _):

        async def improve() -> WarmUp:
            ask = asker(client.port)
            said = asyncio.Event()
            task = asyncio.create_task(
                warm_up(ask, ENGINES["vllm"], "tiny", deadline=20, say=lambda _: said.set())
            )
            await said.wait()
            await asyncio.to_thread(client.manners, answers="well")
            return await task

        assert asyncio.run(improve()).warm


def test_one_that_fails_at_each_generation_is_given_up_long_before_the_deadline() -> None:
    with engine("--answers=500") as (client, _):
        result, said = warmed(client.port, deadline=600, refused_for=0.3)
    assert [done.title for done in result.done] == ["health", "model"]
    assert any("answers 500: as it was asked to" in one for one in said)
    assert (result.why or "").endswith("as it was asked to; nothing else for 0.3 s")


def test_one_that_asks_to_wait_is_waited_for() -> None:
    with engine("--answers=503") as (client, _):
        result, _ = warmed(client.port, deadline=1, refused_for=0.1)
    assert (result.why or "").endswith("not warm within 1 s")


def test_another_model_is_not_this_one() -> None:
    with engine() as (client, _):
        result, _ = warmed(client.port, model="large", deadline=0.3)
        assert client.executed()["begun"] == 0
    assert "model: /v1/models does not name 'large' (it names 'tiny')" in (result.why or "")


def test_nothing_listens() -> None:
    result, _ = warmed(free_port(), deadline=0.3)
    assert "nothing listens" in (result.why or "")


def test_a_model_without_a_chat_template_is_asked_for_plain_text() -> None:
    asked = []
    good = {"choices": [{"finish_reason": "stop"}]}

    async def ask(question: Question, deadline: float) -> Answer:
        asked.append(question.path)
        if question.path == "/v1/chat/completions":
            return Answer(400, b'{"error": {"message": "no chat template"}}')
        if question.path == "/v1/models":
            return Answer(200, b'{"data": [{"id": "tiny"}]}')
        whole = json.dumps(good).encode()
        stream = json.loads(question.body or b"")["stream"]
        return Answer(200, b"data: " + whole + b"\n\ndata: [DONE]\n\n" if stream else whole)

    assert asyncio.run(warm_up(ask, ENGINES["openai"], "tiny", deadline=1)).warm
    assert asked == ["/v1/models", *["/v1/chat/completions", "/v1/completions"] * 2]


@pytest.mark.parametrize(
    ("refused", "asked"),
    [
        ([], [(CHAT, True)]),
        ([CHAT], [(CHAT, True), (TEXT, True)]),
        (["logprobs"], [(CHAT, True), (TEXT, True), (CHAT, False)]),
    ],
)
def test_vllm_is_asked_for_logprobs_before_any_client_does(
    refused: list[str], asked: list[tuple[str, bool]]
) -> None:
    """What they take is compiled when they are first asked for. One that gives none is warm too."""
    heard = []

    async def ask(question: Question, _: float) -> Answer:
        if question.body is None:
            return Answer(200, b'{"data": [{"id": "tiny"}]}')
        said = json.loads(question.body)
        heard.append((question.path, bool(said.get("logprobs"))))
        if question.path in refused or (said.get("logprobs") and "logprobs" in refused):
            return Answer(400)
        whole = b'{"choices": [{"finish_reason": "length"}]}'
        return Answer(200, b"data: " + whole + b"\n\ndata: [DONE]\n" if said["stream"] else whole)

    assert asyncio.run(warm_up(ask, ENGINES["vllm"], "tiny", deadline=1)).warm
    assert heard[-len(asked) :] == asked
    assert not any(logprobs for _, logprobs in heard[: -len(asked)])
    heard.clear()
    assert asyncio.run(generate(ask, ENGINES["vllm"], "tiny", deadline=1)) is None
    assert not any(logprobs for _, logprobs in heard), "one that may be wedged compiles nothing"


def test_an_error_in_a_stream_of_status_200_is_told() -> None:
    body = b'data: {"error": {"message": "EngineCore died\\n"}}\n\ndata: [DONE]\n\n'
    assert STREAM.judge("tiny", "/x", Answer(200, body)) == (
        "/x answers 200 with an error: EngineCore died "
    )


@given(st.binary(max_size=300))
@example(b"[" * 100_000)
@example(b'{"error": ' + b"[" * 100_000)
@example(b'{"choices": null}')
@example(b'{"choices": [{"finish_reason": "\\ud800"}]}')
def test_no_answer_of_an_engine_breaks_the_judges(garbage: bytes) -> None:
    for step in GENERATIONS:
        for answer in (
            Answer(200, garbage),
            Answer(500, garbage),
            Answer(200, b"data: " + garbage),
        ):
            why = step.judge("tiny", "/x", answer)
            assert why is not None
            assert len(why) < 400
            assert "\n" not in why
