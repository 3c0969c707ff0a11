"""The demo's chat: against a stand-in engine, over HTTP, as the demo meets nginx."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median

import pytest

from farrier.demo.chat import Chat, curl, events, words
from farrier.demo.screen import printable
from farrier.demo.web import AnswerError, fetch

ENGINE = Path(__file__).parents[1] / "fakes/engine/standin.py"


@dataclass
class Engine:
    base: str
    process: subprocess.Popen[bytes]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def engine(*options: str) -> Iterator[Engine]:
    port = free_port()
    command = [sys.executable, str(ENGINE), "--port", str(port), "--model", "tiny", *options]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            deadline = time.monotonic() + 20
            while True:
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                assert time.monotonic() < deadline, "the stand-in engine does not listen"
                time.sleep(0.02)
            yield Engine(f"http://127.0.0.1:{port}", process)
        finally:
            process.kill()


def test_tokens_come_one_by_one() -> None:
    with engine("--token-delay", "0.1") as it:
        chat = Chat(it.base, "key", "tiny", "hello", max_tokens=8)
        arrived = [(time.monotonic(), text) for text in chat]
    assert chat.pieces == len(arrived) == 8
    assert chat.tokens == 8
    assert chat.text == "".join(text for _, text in arrived)
    assert chat.text.startswith("the stand-in engine answers")
    # All at once would be what a buffering proxy, or a client that reads to the end, does.
    gaps = [later[0] - earlier[0] for earlier, later in pairwise(arrived)]
    assert median(gaps) > 0.05
    assert chat.first is not None
    assert chat.first < chat.seconds / 2


def test_an_engine_that_dies_is_no_answer() -> None:
    with engine("--token-delay", "0.2") as it:
        stream = iter(Chat(it.base, "key", "tiny", "hello"))
        next(stream)
        it.process.kill()
        with pytest.raises(AnswerError, match=r"broke off|ended without \[DONE\]"):
            list(stream)


def test_a_refusal_names_status_and_text() -> None:
    with (
        engine("--start-delay", "600") as it,
        pytest.raises(AnswerError, match="the engine is starting") as caught,
    ):
        list(Chat(it.base, "key", "tiny", "hello"))
    assert caught.value.status == 503


def test_nobody_listening_is_said() -> None:
    with pytest.raises(AnswerError, match="Connection refused"):
        list(Chat(f"http://127.0.0.1:{free_port()}", "key", "tiny", "hello"))


def test_a_proxy_of_the_site_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port()}")
    with engine() as it:
        assert fetch(f"{it.base}/health") == b""


def test_the_curl_line_works_in_a_shell() -> None:
    with engine("--token-delay", "0") as it:
        line = curl(it.base, "a key", "tiny", "what's this?")
        done = subprocess.run(
            ["sh", "-c", line], capture_output=True, text=True, timeout=30, check=True
        )
    assert "".join(
        map(words, [d for d in events(done.stdout.encode().splitlines()) if d[0] == "{"])
    )
    assert done.stdout.rstrip().endswith("data: [DONE]")
    assert re.search(r"-H 'Authorization: Bearer a key'", line)


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        ("not json", "not an event of a chat completion"),
        ('{"choices": 3}', "not an event of a chat completion"),
        ('{"error": {"message": "out of memory"}}', "out of memory"),
    ],
)
def test_events_that_are_no_tokens(data: str, complaint: str) -> None:
    with pytest.raises(AnswerError, match=complaint):
        words(data)


def test_the_last_event_may_have_no_choice() -> None:
    assert words('{"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 8}}') == ""


def test_events_are_told_from_comments() -> None:
    lines = [b": a comment\n", b"data: one\n", b"\n", b"event: x\n", b"data:two\r\n"]
    assert list(events(lines)) == ["one", "two"]


def test_a_models_words_cannot_steer_the_terminal() -> None:
    assert printable("a\x1b[2Jb\r\n\x07c \u202ed") == "a[2Jb  c d"
    assert printable("naïve 東京") == "naïve 東京"
