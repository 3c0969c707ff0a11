"""What an engine has to answer before its replica counts as up."""

from __future__ import annotations

import json

import pytest
from farrier_agent.engines import ENGINES, Answer

OK = Answer(status=200)


def models(*names: str) -> Answer:
    data = [{"id": name, "object": "model", "owned_by": "x"} for name in names]
    return Answer(status=200, body=json.dumps({"object": "list", "data": data}).encode())


@pytest.mark.parametrize(
    ("health", "listed", "complaint"),
    [
        (OK, models("other", "tiny"), None),
        (Answer(status=503), models("tiny"), "/health answers 503"),
        (Answer(error="nothing listens"), models("tiny"), "/health: nothing listens"),
        (OK, Answer(status=401), "/v1/models answers 401"),
        (OK, models("other"), "/v1/models does not name 'tiny' (it names 'other')"),
        (OK, models(), "(it names none)"),
        (OK, Answer(status=200, body=b"<html>"), "no list of models"),
        (OK, Answer(status=200, body=b'{"data": [{"name": "tiny"}]}'), "no list of models"),
        (OK, Answer(status=200, body=b'{"data": [{"id": "\xff"}]}'), "no list of models"),
    ],
)
def test_vllm(health: Answer, listed: Answer, complaint: str | None) -> None:
    engine = ENGINES["vllm"]
    refused = engine.judge("tiny", {"/health": health, "/v1/models": listed})
    assert refused is None if complaint is None else complaint in (refused or "")


def test_an_openai_compatible_engine_need_not_have_a_health_path() -> None:
    engine = ENGINES["openai"]
    assert engine.paths == ("/v1/models",)
    assert engine.judge("tiny", {"/v1/models": models("tiny")}) is None
    assert "does not name" in (engine.judge("tiny", {"/v1/models": models("x")}) or "")


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        (Answer(200, b'{"data": [{"embedding": [0.5, -1]}]}'), None),
        (Answer(200, b'{"data": [{"embedding": []}]}'), "no embedding"),
        (Answer(200, b'{"data": []}'), "no embedding"),
        (Answer(200, b'{"data": [{"embedding": "AAAA"}]}'), "no embedding"),
        (Answer(503, b'{"error": {"message": "loading"}}'), "answers 503: loading"),
        (Answer(error="nothing listens"), "/v1/embeddings: nothing listens"),
    ],
)
def test_a_model_that_embeds_is_warm_by_an_embedding(answer: Answer, complaint: str | None) -> None:
    for step in ENGINES["transformers"].steps[2:]:
        paths = [question.path for question in step.questions("tiny")]
        assert paths == ["/v1/chat/completions", "/v1/completions", "/v1/embeddings"]
        why = step.judge("tiny", "/v1/embeddings", answer)
        assert why is None if complaint is None else complaint in (why or "")


def test_a_long_list_of_names_is_cut() -> None:
    listed = {"/health": OK, "/v1/models": models(*("m" * 1000 for _ in range(1000)))}
    assert len(ENGINES["vllm"].judge("tiny", listed) or "") < 600
