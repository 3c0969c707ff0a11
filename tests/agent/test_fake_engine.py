"""The stand-in engine has the manners that it was given: tests of everything else build on it."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.agent.host import until
from tests.agent.standin import engine
from tests.fakes.engine.packing import packed


def test_as_one_file_it_is_the_same_program(tmp_path: Path) -> None:
    file = tmp_path / "engine.py"  # whatever its name says: Python sees what it is
    file.write_bytes(packed())
    with engine("--token-delay=0", program=file) as (client, _):
        assert client.chat()[1]["choices"][0]["finish_reason"] == "length"


def test_it_counts_what_it_began_and_how_that_ended() -> None:
    with engine("--token-delay=0") as (client, _):
        for name in ("a", "b", "b"):
            assert client.chat(name)[0] == 200
        assert client.chat("c", stream=True)[1].endswith("data: [DONE]\n\n")
        client.ends(*["length"] * 4)
        account = client.executed()
        assert account["requests"] == {"a": 1, "b": 2, "c": 1}
        assert (account["begun"], account["generated_tokens"]) == (4, 16)


def test_what_it_refuses_it_did_not_execute() -> None:
    with engine() as (client, _):
        assert client.ask("POST", "/v1/chat/completions", {"model": "other"})[0] == 404
        assert client.ask("POST", "/v1/chat/completions", [])[0] == 400
        assert client.ask("POST", "/v1/embeddings", {})[0] == 404
        assert client.executed()["begun"] == 0


def test_a_body_in_chunks_is_read_and_half_a_body_is_not_executed() -> None:
    with engine("--token-delay=0") as (client, _):
        connection = http.client.HTTPConnection("127.0.0.1", client.port, timeout=20)
        body = json.dumps({"model": "tiny", "prompt": "a b c"}).encode()
        connection.request("POST", "/v1/completions", iter([body[:7], body[7:]]))
        answer = connection.getresponse()
        assert (answer.status, json.loads(answer.read())["usage"]["prompt_tokens"]) == (200, 3)
        client.ends("length")
        half = http.client.HTTPConnection("127.0.0.1", client.port, timeout=20)
        half.putrequest("POST", "/v1/completions")
        half.putheader("Content-Length", "1000")
        half.endheaders(body)
        half.sock.shutdown(1)
        assert half.getresponse().status == 400
        assert client.executed()["begun"] == 1


def test_the_account_outlives_the_engine(tmp_path: Path) -> None:
    account = f"--account={tmp_path / 'account'}"
    with engine(account) as (client, process):
        client.chat("done")
        client.begin("cut", tokens=500)
        process.terminate()
        assert process.wait(timeout=20) == -signal.SIGTERM
    with engine(account) as (client, _):
        executed = client.executed()
    assert executed["requests"] == {"done": 1, "cut": 1}
    assert executed["ends"] == {"length": 1, "cut": 1}


@pytest.mark.parametrize("manner", ["500", "503"])
def test_a_status_instead_of_an_answer_is_still_an_execution(manner: str) -> None:
    with engine(f"--answers={manner}") as (client, _):
        assert client.chat()[0] == client.chat(stream=True)[0] == int(manner)
        client.ends(manner, manner)


def test_closing_without_an_answer() -> None:
    with engine("--answers=close") as (client, _):
        with pytest.raises(http.client.RemoteDisconnected):
            client.chat()
        client.ends("closed")


def test_streams_that_do_not_end_properly() -> None:
    with engine("--answers=undone", "--token-delay=0") as (client, _):
        text = client.chat(stream=True)[1]
        assert text.count("data: ") == 4
        assert "[DONE]" not in text
        client.manners(answers="break")
        with pytest.raises(http.client.IncompleteRead) as caught:
            client.chat(stream=True)
        assert caught.value.partial.count(b"data: ") == 2


def test_garbage() -> None:
    with (
        engine("--answers=garbage") as (client, _),
        pytest.raises(ValueError, match=r"codec|Expecting"),
    ):
        client.chat()


def test_abort_is_a_200_with_a_reason() -> None:
    with engine() as (client, _):
        running = client.begin("running", tokens=1000)
        assert client.manners(answers="abort")[0] == 200
        rest = running.read().decode()
        assert '"finish_reason": "abort"' in rest
        assert rest.endswith("data: [DONE]\n\n")
        status, answer = client.chat()
        assert (status, answer["choices"][0]["finish_reason"]) == (200, "abort")


def test_wedged_it_stands_still_and_says_that_it_is_healthy_and_can_be_freed() -> None:
    with engine() as (client, _):
        running = client.begin("running", tokens=20)
        client.manners(answers="wedge")
        first = client.executed()
        assert client.listens()
        assert client.ask("GET", "/v1/models")[0] == 200
        assert client.executed()["generated_tokens"] == first["generated_tokens"]
        assert client.executed()["running"] == 1
        client.manners(answers="well")
        assert running.read().endswith(b"data: [DONE]\n\n")


def test_metrics_are_like_vllms_and_can_be_absent() -> None:
    with engine("--max-running=1") as (client, _):
        running = client.begin("running", tokens=1000)
        waiting = http.client.HTTPConnection("127.0.0.1", client.port, timeout=20)
        waiting.request("POST", "/v1/completions", json.dumps({"model": "tiny", "prompt": "x"}))
        labels = '{model_name="tiny",engine="0"}'
        until(lambda: f"waiting{labels} 1.0" in client.ask("GET", "/metrics")[1])
        text = client.ask("GET", "/metrics")[1]
        assert f"vllm:num_requests_running{labels} 1.0" in text
        assert f"vllm:generation_tokens_total{labels} " in text
        client.manners(metrics=False)
        assert client.ask("GET", "/metrics")[0] == 404
        running.close()


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"answers": "kindly"}, "answers"),
        ({"on_sigterm": 3}, "on_sigterm"),
        ({"token_delay": "fast"}, "token_delay"),
        ({"token_delay": True}, "token_delay"),
        ({"metrics": 1}, "metrics"),
        ({"workers": 99}, "workers"),
        ({"workers": 1.5}, "workers"),
        ({"color": "red"}, "color"),
    ],
)
def test_manners_that_do_not_exist_change_nothing(changes: dict[str, object], field: str) -> None:
    with engine() as (client, _):
        before = client.ask("GET", "/manners")
        status, answer = client.manners(**{"answers": "wedge", **changes})
        assert status == 400
        assert field in answer["error"]["message"]
        assert client.ask("GET", "/manners") == before


def test_sigterm_drain_finishes_and_takes_nothing_new() -> None:
    with engine("--on-sigterm=drain", "--token-delay=0.05") as (client, process):
        running = client.begin("running")
        process.terminate()
        until(lambda: not client.listens())
        assert running.read().endswith(b"data: [DONE]\n\n")
        assert process.wait(timeout=20) == 0


def test_sigterm_abort_ends_what_runs_and_what_comes_with_a_200() -> None:
    with engine("--on-sigterm=abort", "--linger=2") as (client, process):
        running = client.begin("running", tokens=1000)
        process.terminate()
        assert '"finish_reason": "abort"' in running.read().decode()
        assert client.chat()[1]["choices"][0]["finish_reason"] == "abort"
        assert client.listens()
        assert process.wait(timeout=20) == 0


def test_sigterm_close_ends_what_runs_and_what_comes_without_an_answer() -> None:
    with engine("--on-sigterm=close", "--linger=2") as (client, process):
        running = client.begin("running", tokens=1000)
        process.terminate()
        with pytest.raises(http.client.IncompleteRead):
            running.read()
        with pytest.raises(http.client.RemoteDisconnected):
            client.chat()
        assert client.listens()
        assert process.wait(timeout=20) == 0


@pytest.mark.parametrize("manner", ["500", "503"])
def test_sigterm_with_a_status_for_new_requests(manner: str) -> None:
    with engine(f"--on-sigterm={manner}", "--linger=2", "--token-delay=0.05") as (client, process):
        running = client.begin("running")
        process.terminate()
        until(lambda: client.chat("new")[0] == int(manner))
        assert client.listens()
        assert client.chat("late")[0] == int(manner)
        assert "late" not in client.executed()["requests"]
        assert running.read().endswith(b"data: [DONE]\n\n")
        assert process.wait(timeout=20) == 0


def test_sigterm_hang_keeps_connections_and_process() -> None:
    with engine("--on-sigterm=hang") as (client, process):
        running = client.begin("running", tokens=1000)
        process.terminate()
        until(lambda: not client.listens())
        running.fp.raw._sock.settimeout(0.5)  # type: ignore[attr-defined]
        with pytest.raises(TimeoutError):
            running.read()  # what was sent before, then nothing
        process.terminate()
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=0.3)


def test_sigterm_ignored() -> None:
    with engine("--on-sigterm=ignore") as (client, process):
        process.terminate()
        assert client.chat()[0] == 200
        assert process.poll() is None


def test_workers_outlive_the_engine_and_ignore_sigterm() -> None:
    with engine("--workers=2", "--on-sigterm=drain") as (_, process):
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        assert len(children) == 2
        os.killpg(process.pid, signal.SIGTERM)
        assert process.wait(timeout=20) == 0
        for child in children:
            status = Path(f"/proc/{child}/status").read_text()
            assert "\nState:\tZ" not in status
        for child in children:
            os.kill(int(child), signal.SIGKILL)


def test_workers_can_be_had_while_it_runs() -> None:
    with engine() as (client, process):
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        assert children.read_text().split() == []
        assert client.manners(workers=1)[1]["workers"] == 1
        until(lambda: children.read_text() != "")  # once the thread that had it has ended
        (child,) = children.read_text().split()
        os.kill(int(child), signal.SIGTERM)
        assert "\nState:\tZ" not in Path(f"/proc/{child}/status").read_text()
        os.kill(int(child), signal.SIGKILL)


def test_a_client_names_its_request_in_the_field_user() -> None:
    body = {"model": "tiny", "messages": [], "max_tokens": 1, "user": "mine"}
    with engine() as (client, _):
        client.ask("POST", "/v1/chat/completions", body, **{"X-Request-Id": "nginx-does"})
        assert client.executed()["requests"] == {"mine": 1}


def test_it_does_not_listen_while_it_loads() -> None:
    begun = time.monotonic()
    with engine("--load-delay=1.5"):
        assert time.monotonic() - begun >= 1.5


def test_a_prompt_may_be_its_death_and_the_account_knows_it(tmp_path: Path) -> None:
    account = f"--account={tmp_path / 'account'}"
    with engine(account) as (client, process):
        assert client.manners(dies_on="drop tables")[0] == 200
        assert client.chat("well")[0] == 200
        client.ends("length")
        body = {"model": "tiny", "user": "ill", "prompt": "please drop tables"}
        with pytest.raises((http.client.HTTPException, OSError)):
            client.ask("POST", "/v1/completions", body)
        assert process.wait(timeout=20) == -signal.SIGKILL
    with engine(account) as (client, _):
        assert client.executed()["requests"] == {"well": 1, "ill": 1}
        assert client.executed()["ends"] == {"length": 1, "cut": 1}
