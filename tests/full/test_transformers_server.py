"""The server over Transformers with the real torch, as a process on this machine (8 min)."""

from __future__ import annotations

import asyncio
import http.client
import json
import math
import shutil
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from farrier_agent.engines import ENGINES, Answer
from farrier_agent.loopback import asker, get
from farrier_agent.vitals import read_load
from farrier_agent.warmup import WarmUp, warm_up
from openai import OpenAI

from farrier.lab.tiny_model import write_tiny_model
from tests.agent.host import until
from tests.full.transformers_server import Served, made_by, python_of_the_lock, serving

ADAPTER = ENGINES["transformers"]
LONG = 1500
"""Tokens that take seconds, and fit into the tiny model's context."""


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return python_of_the_lock(tmp_path_factory.mktemp("transformers"))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("models") / "tiny"
    write_tiny_model(directory)
    return directory


@pytest.fixture(scope="module")
def served(python: Path, tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    log = tmp_path_factory.mktemp("served") / "log"
    with serving(python, tiny, "--max-waiting", "1", log=log) as it:
        assert it.seen == {503, 200}, it.said
        yield it


def warmed(port: int) -> WarmUp:
    return asyncio.run(warm_up(asker(port), ADAPTER, "tiny", deadline=120, again=(0.1, 0.1)))


def copied(tiny: Path, to: Path, **tokenizer: Any) -> Path:
    """A copy of the model whose tokenizer_config.json says otherwise."""
    shutil.copytree(tiny, to)
    file = to / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | tokenizer))
    return to


def test_the_agent_finds_it_up_and_warms_it_up(served: Served) -> None:
    async def asked() -> dict[str, Answer]:
        return {path: await get(served.port, path, deadline=30) for path in ADAPTER.paths}

    assert ADAPTER.judge("tiny", asyncio.run(asked())) is None
    result = warmed(served.port)
    assert result.why is None
    assert [done.title for done in result.done] == ["health", "model", "short generation", "stream"]


def test_openais_client_is_at_home(served: Served) -> None:
    client = OpenAI(base_url=f"http://127.0.0.1:{served.port}/v1", api_key="x", max_retries=0)
    assert [model.id for model in client.models.list()] == ["tiny"]
    talk: Any = {"model": "tiny", "messages": [{"role": "user", "content": "hello"}]}
    one, two, other = (
        client.chat.completions.create(**talk, max_tokens=12, seed=seed) for seed in (1, 1, 2)
    )
    assert one.choices[0].message.content == two.choices[0].message.content
    assert one.choices[0].message.content != other.choices[0].message.content
    assert one.choices[0].finish_reason == "length"
    assert one.usage is not None
    assert (one.usage.completion_tokens, one.usage.total_tokens) == (12, 23)

    counted: Any = {"stream": True, "stream_options": {"include_usage": True}}
    events = list(client.chat.completions.create(**talk, max_tokens=12, seed=1, **counted))
    pieces = [event.choices[0].delta.content or "" for event in events if event.choices]
    assert "".join(pieces) == one.choices[0].message.content
    assert len(pieces) >= 12, "token by token"
    assert events[-1].usage == one.usage

    text = client.completions.create(model="tiny", prompt="hello", temperature=0)
    assert text.usage is not None
    assert text.usage.completion_tokens == 16
    words = text.choices[0].text.split()
    cut = client.completions.create(model="tiny", prompt="hello", temperature=0, stop=words[3])
    assert cut.choices[0].text.split() == words[:3]
    assert cut.choices[0].finish_reason == "stop"


@pytest.mark.parametrize(
    ("fields", "status", "code", "told"),
    [
        ({"model": "other"}, 404, "model_not_found", "this server has 'tiny'"),
        ({"prompt": "x " * 3000}, 400, "context_length_exceeded", "2048"),
        ({"max_tokens": 2048}, 400, "context_length_exceeded", "2048"),
        ({"prompt": ""}, 400, None, "empty"),
        ({"prompt": [7, 10**6]}, 400, None, "tokens are numbers"),
        ({"n": 2}, 400, None, "n is not supported"),
        ({"temperature": "hot"}, 400, None, "temperature"),
    ],
)
def test_what_is_wrong_is_told_as_openai_does(
    served: Served, fields: dict[str, Any], status: int, code: str | None, told: str
) -> None:
    got, answer = served.complete(**fields)
    assert (got, answer["error"]["code"]) == (status, code)
    assert told in answer["error"]["message"]


def test_what_is_no_request_is_told_as_openai_does(served: Served) -> None:
    for path, body, status in (
        ("/v1/completions", b"{", 400),
        ("/v1/completions", None, 405),
        ("/v1/nothing", {}, 404),
        ("/v1/embeddings", {"model": "tiny", "input": "x"}, 400),
    ):
        got, answer = served.ask(path, body)
        assert got == status
        assert set(answer["error"]) == {"message", "type", "param", "code"}


def test_one_runs_one_waits_and_the_third_is_told_to_come_again(served: Served) -> None:
    running = served.stream(LONG)
    asking = threading.Thread(target=served.complete, kwargs={"max_tokens": 1})
    asking.start()
    until(lambda: served.number("transformers:requests_waiting") == 1, 30)
    full = served.open("/v1/completions", {"model": "tiny", "prompt": "x"})
    assert (full.status, full.headers["Retry-After"]) == (503, "5")
    assert json.loads(full.read())["error"]["code"] == "queue_full"
    before = asyncio.run(read_load(asker(served.port), ADAPTER, deadline=30))
    assert before is not None
    assert (before.running, before.waiting) == (1, 1)
    until(lambda: served.number("transformers:blocks_total") > (before.progress or 0), 30)
    now = asyncio.run(read_load(asker(served.port), ADAPTER, deadline=30))
    assert now is not None
    assert before.progress is not None
    assert now.progress is not None
    assert now.progress > before.progress
    running.close()
    asking.join(60)
    assert served.number("transformers:requests_waiting") == 0


def test_a_client_that_leaves_ends_its_generation(served: Served) -> None:
    cancelled = ("transformers:requests_ended_total", '{how="cancelled"}')
    before, made = served.number(*cancelled), served.number("transformers:generation_tokens_total")
    served.stream(LONG).close()
    until(lambda: served.number(*cancelled) == before + 1, 30)
    assert served.number("transformers:generation_tokens_total") - made < LONG / 2
    # one that would get its answer in one piece has no bytes to send: it is noticed all the same
    body = {"model": "tiny", "prompt": "x", "max_tokens": LONG, "ignore_eos": True}
    connection = http.client.HTTPConnection("127.0.0.1", served.port)
    kind = {"Content-Type": "application/json"}
    connection.request("POST", "/v1/completions", json.dumps(body), kind)
    until(lambda: served.number("transformers:requests_running") == 1, 30)
    connection.close()
    until(lambda: served.number(*cancelled) == before + 2, 30)
    assert served.complete(max_tokens=1)[0] == 200


def test_sigterm_finishes_what_runs_and_what_waits(
    python: Path, tiny: Path, tmp_path: Path
) -> None:
    with serving(python, tiny, log=tmp_path / "log") as it:
        running, answers = it.stream(300), []
        asking = threading.Thread(target=lambda: answers.append(it.complete(max_tokens=20)))
        asking.start()
        until(lambda: it.number("transformers:requests_waiting") == 1, 30)
        it.process.send_signal(signal.SIGTERM)
        until(lambda: "1 running and 1 waiting" in it.said, 30)
        until(lambda: refused(it), 30)
        assert running.read().endswith(b"data: [DONE]\n\n")
        asking.join(60)
        ((status, answer),) = answers
        assert (status, answer["usage"]["completion_tokens"]) == (200, 20)
        assert it.ends() == 0


def refused(served: Served) -> bool:
    try:
        served.ask("/health")
    except ConnectionError:
        return True
    return False


def test_sigterm_cuts_what_takes_longer_and_says_so(
    python: Path, tiny: Path, tmp_path: Path
) -> None:
    with serving(python, tiny, "--shutdown-timeout", "0", log=tmp_path / "log") as it:
        running = it.stream(LONG)
        it.process.send_signal(signal.SIGTERM)
        *_, last = running.read().split(b"\n\n")[:-1]
        assert json.loads(last.removeprefix(b"data: "))["error"]["code"] == "cut"
        assert it.ends() == 0


def test_without_a_chat_template_it_takes_text_only(
    python: Path, tiny: Path, tmp_path: Path
) -> None:
    model = copied(tiny, tmp_path / "tiny", chat_template=None)
    with serving(python, model, log=tmp_path / "log") as it:
        talk = {"model": "tiny", "messages": [{"role": "user", "content": "hello"}]}
        status, answer = it.ask("/v1/chat/completions", talk)
        assert (status, answer["error"]["code"]) == (400, "no_chat_template")
        assert "chat_template" in answer["error"]["message"]
        assert warmed(it.port).why is None


EMBEDS = """
import sys, torch
from pathlib import Path
from transformers import BertConfig, BertModel
torch.manual_seed(1)
to, size = Path(sys.argv[1]), int(sys.argv[2])
config = BertConfig(vocab_size=size, hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
                    intermediate_size=64, max_position_embeddings=64)
BertModel(config).save_pretrained(to)
"""


def test_a_model_that_embeds(python: Path, tiny: Path, tmp_path: Path) -> None:
    model = tmp_path / "tiny"
    size = len(json.loads((tiny / "tokenizer.json").read_text())["model"]["vocab"])
    made_by(python, EMBEDS, model, str(size))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tiny / name, model)
    with serving(python, model, log=tmp_path / "log") as it:
        assert 200 in it.seen, it.said
        assert warmed(it.port).why is None
        client = OpenAI(base_url=f"http://127.0.0.1:{it.port}/v1", api_key="x", max_retries=0)
        told = client.embeddings.create(model="tiny", input=["hello there", "apple", "hello there"])
        first, other, again = (one.embedding for one in told.data)
        assert len(first) == 32
        assert first == again != other
        assert math.isclose(math.hypot(*first), 1, rel_tol=1e-3)
        long = it.ask("/v1/embeddings", {"model": "tiny", "input": "x " * 100})
        assert (long[0], long[1]["error"]["code"]) == (400, "context_length_exceeded")
        assert it.complete()[0] == 400
