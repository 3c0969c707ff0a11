"""The parts of the server over Transformers that are without torch: text, bodies, the line."""

from __future__ import annotations

import asyncio
import base64
import struct
import threading
from typing import Any

import pytest
from farrier_transformers.bodies import ChatBody, CompletionBody, EmbeddingBody
from farrier_transformers.errors import ApiError
from farrier_transformers.jobs import Ended, Job, Line, Piece, Vector
from farrier_transformers.sampling import Sampling
from farrier_transformers.shapes import embeddings
from farrier_transformers.text import Text
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

TALK: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "x"}]}


def by_bytes(tokens: list[int]) -> str:
    """A decoder whose tokens are bytes: a character may take four of them."""
    return bytes(tokens).decode(errors="replace")


def spoken(said: str, stops: tuple[str, ...]) -> tuple[list[str], Text]:
    text = Text(by_bytes, stops)
    pieces = []
    for token in said.encode():
        pieces.append(text.add(token))
        if text.stopped:
            return pieces, text
    return [*pieces, text.rest()], text


@given(
    st.text(alphabet="abé☃🎉 ", max_size=30),
    st.lists(st.text(alphabet="abé🎉", min_size=1, max_size=3), max_size=3),
)
def test_text_comes_whole_and_ends_before_the_first_stop_word(said: str, stops: list[str]) -> None:
    pieces, text = spoken(said, tuple(stops))
    # the stop word that is complete first counts, and of those the one that began first
    ends = [end for end in range(len(said) + 1) if any(said[:end].endswith(stop) for stop in stops)]
    if ends:
        upto = said[: ends[0]]
        said = upto[: min(at for stop in stops if (at := upto.find(stop)) >= 0)]
    assert "".join(pieces) == said
    assert text.stopped == bool(ends)
    assert not any("\ufffd" in piece for piece in pieces)


def test_half_a_character_at_the_end_is_told_as_broken_and_not_lost() -> None:
    text = Text(by_bytes)
    assert [text.add(token) for token in "é".encode()[:1]] == [""]
    assert text.rest() == "\ufffd"


def test_a_decoder_that_drops_the_first_space_does_not_drop_the_others() -> None:
    words = ["one", " two", " three"]
    text = Text(lambda tokens: "".join(words[token] for token in tokens).lstrip())
    assert "".join(text.add(token) for token in (1, 2, 0)) == "two threeone"


@pytest.mark.parametrize(
    "fields",
    [
        {"n": 1, "logprobs": False, "tools": [], "response_format": {"type": "text"}},
        {"presence_penalty": 0, "frequency_penalty": 0.0, "logit_bias": {}, "user": "me"},
        {"n": None, "tools": None, "stop": None, "max_tokens": None, "seed": None},
    ],
)
def test_fields_that_ask_for_nothing_are_taken(fields: dict[str, Any]) -> None:
    assert ChatBody(**TALK, **fields).stops == ()


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"n": 2}, "n is not supported"),
        ({"n": True}, "n is not supported"),
        ({"logprobs": True}, "logprobs is not supported"),
        ({"logprobs": 0}, "logprobs is not supported"),
        ({"tools": [{"type": "function"}]}, "tools is not supported"),
        ({"response_format": {"type": "json_object"}}, "response_format is not supported"),
        ({"temperature": -1}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"stop": [""]}, "stop"),
        ({"stop": ["x"] * 17}, "stop"),
        ({"messages": []}, "messages"),
        ({"messages": [{"content": "x"}]}, "role"),
    ],
)
def test_fields_that_would_be_ignored_or_are_wrong_are_refused(
    fields: dict[str, Any], told: str
) -> None:
    with pytest.raises(ValidationError) as refused:
        ChatBody(**TALK | fields)
    assert told in str(refused.value)


def test_a_conversation_is_text() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    messages = [{"role": "user", "content": parts, "name": "me"}, {"role": "x"}]
    body = ChatBody(model="m", messages=messages)  # type: ignore[arg-type]
    assert body.conversation == [
        {"role": "user", "content": "a\nb", "name": "me"},
        {"role": "x", "content": ""},
    ]
    picture = [{"role": "user", "content": [{"type": "image_url"}]}]
    with pytest.raises(ApiError, match="text only, not 'image_url'"):
        _ = ChatBody(model="m", messages=picture).conversation  # type: ignore[arg-type]


def test_one_prompt_as_text_or_tokens() -> None:
    assert CompletionBody(model="m", prompt="x").only_prompt == "x"
    assert CompletionBody(model="m", prompt=["x"]).only_prompt == "x"
    assert CompletionBody(model="m", prompt=[1, 2]).only_prompt == [1, 2]
    for prompt in (["x", "y"], []):
        with pytest.raises(ApiError, match="one prompt"):
            _ = CompletionBody(model="m", prompt=prompt).only_prompt


def test_what_may_be_embedded() -> None:
    assert EmbeddingBody(model="m", input="x").inputs == ["x"]
    assert EmbeddingBody(model="m", input=["x", "y"]).inputs == ["x", "y"]
    assert EmbeddingBody(model="m", input=[1, 2]).inputs == [[1, 2]]
    assert EmbeddingBody(model="m", input=[[1], [2]]).inputs == [[1], [2]]
    for nothing in ([], "", ["x", ""]):
        with pytest.raises(ApiError, match="must not be empty"):
            _ = EmbeddingBody(model="m", input=nothing).inputs
    told = embeddings("m", [Vector([1.0, -0.5], 3)], "base64")
    raw = base64.b64decode(told["data"][0]["embedding"])
    assert struct.unpack("<2f", raw) == (1.0, -0.5)
    assert told["usage"] == {"prompt_tokens": 3, "total_tokens": 3}


def test_sampling_is_the_requests_over_the_models_over_openais() -> None:
    greedy = Sampling(1, temperature=0).over(0.7, 0.9, 20)
    assert greedy["do_sample"] is False
    assert greedy["top_k"] is None
    assert Sampling(1).over(0.7, 0.9, 20) == {
        "do_sample": True,
        "temperature": 0.7,
        "top_p": 0.9,
        "top_k": 20,
    }
    own = Sampling(1, temperature=0.2, top_p=0.5, top_k=-1).over(0.7, 0.9, 20)
    assert (own["temperature"], own["top_p"], own["top_k"]) == (0.2, 0.5, 0)
    assert Sampling(1).over(None, None, None)["temperature"] == 1.0


FULL = ApiError(503, "it ends")


def job() -> Job:
    return Job(lambda _model, _job: Ended("stop", 1, 1))


def test_so_many_wait_and_no_more() -> None:
    async def play() -> None:
        line = Line(1)
        first, second, third = job(), job(), job()
        line.join(first)
        line.join(second)  # the first one's turn is now: nobody runs
        with pytest.raises(ApiError, match="2 requests wait already") as refused:
            line.join(third)
        assert (refused.value.status, refused.value.headers) == (503, {"Retry-After": "5"})
        assert line.next() is first
        assert (line.running, line.waiting) == (1, 1)
        with pytest.raises(ApiError):
            line.join(third)
        line.leave(second)
        line.join(third)
        assert second.cancelled
        assert line.next() is third

    asyncio.run(play())


def test_a_line_that_closes_serves_who_waits_and_one_that_is_cut_tells_them() -> None:
    async def play() -> None:
        line = Line(5)
        first, second = job(), job()
        line.join(first)
        line.join(second)
        line.close(FULL)
        with pytest.raises(ApiError, match="it ends"):
            line.join(job())
        assert line.next() is first
        line.cut(ApiError(503, "cut"))
        for each in (first, second):
            assert each.cancelled
            with pytest.raises(ApiError, match="cut"):
                _ = [event async for event in each]
        assert line.next() is None

    asyncio.run(play())


def test_events_of_another_thread_come_in_order_and_end() -> None:
    async def play() -> list[Any]:
        line = Line(5)

        def work() -> None:
            taken = line.next()
            assert taken is not None
            for word in "abc":
                taken.tell(Piece(word))
            taken.tell(Ended("stop", 1, 3))

        thread = threading.Thread(target=work)
        thread.start()
        asked = job()
        line.join(asked)
        events = [event async for event in asked]
        await asyncio.to_thread(thread.join)
        return events

    assert asyncio.run(play()) == [Piece("a"), Piece("b"), Piece("c"), Ended("stop", 1, 3)]
