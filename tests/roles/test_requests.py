"""Requests as clients make them: the openai client through nginx, keys, errors, the gate."""

from __future__ import annotations

import json
import socket
import subprocess
import time
from collections.abc import Iterator
from http.client import HTTPConnection
from itertools import pairwise
from typing import Any

import openai
import pytest
from openai.types.chat import ChatCompletionUserMessageParam

from tests.roles.fleet import Answer, Fleet

MESSAGES: list[ChatCompletionUserMessageParam] = [{"role": "user", "content": "Say something."}]
GPU_HOSTS = ("gpu01", "gpu02", "gpu03")


@pytest.fixture(params=["/v1", "/replicas/tiny/v1"])
def real(fleet: Fleet, request: pytest.FixtureRequest) -> Iterator[openai.OpenAI]:
    """A user's client of gpu01, on either of the paths on which it serves tiny."""
    base = fleet.url("gpu01", request.param)
    with openai.OpenAI(base_url=base, api_key=fleet.key, max_retries=0, timeout=60) as client:
        yield client


def test_the_real_vllm_completes_a_chat(real: openai.OpenAI) -> None:
    assert [(model.id, model.owned_by) for model in real.models.list()] == [("tiny", "vllm")]
    answer = real.chat.completions.create(model="tiny", messages=MESSAGES, max_tokens=12)
    assert answer.model == "tiny"
    assert answer.choices[0].finish_reason == "length"
    assert len((answer.choices[0].message.content or "").split()) == 12
    assert answer.usage
    assert answer.usage.completion_tokens == 12


def test_the_real_vllm_streams_a_chat(real: openai.OpenAI) -> None:
    chunks = list(
        real.chat.completions.create(
            model="tiny",
            messages=MESSAGES,
            max_tokens=30,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    parts = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    # on a busy machine vLLM sends what it made meanwhile as one
    assert len([part for part in parts if part]) > 5
    assert len("".join(parts).split()) == 30
    assert chunks[-1].usage
    assert chunks[-1].usage.completion_tokens == 30


@pytest.mark.parametrize("host", GPU_HOSTS)
def test_a_stream_ends_in_done(fleet: Fleet, host: str) -> None:
    answer = fleet.chat(host, stream=True, max_tokens=8)
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.text.endswith("data: [DONE]\n\n")
    assert answer.text.count("data: {") >= 8


def test_tokens_come_as_they_are_made(fleet: Fleet) -> None:
    """The stand-in takes 20 ms for each of its words: 2 s in all, nothing held back."""
    with openai.OpenAI(base_url=fleet.url("gpu02", "/v1"), api_key=fleet.key) as client:
        began = time.monotonic()
        chunks = client.chat.completions.create(
            model="tiny", messages=MESSAGES, max_tokens=100, stream=True
        )
        arrivals = [time.monotonic() - began for _ in chunks]
    assert len(arrivals) == 100
    assert arrivals[-1] >= 2
    assert arrivals[0] < 0.5
    assert max(b - a for a, b in pairwise(arrivals)) < 1


def test_no_port_of_an_engine_is_reachable_from_elsewhere(fleet: Fleet) -> None:
    """Neither its HTTP port nor those that vLLM's workers talk over."""
    for host in GPU_HOSTS:
        ports: dict[int, set[str]] = {}
        for line in fleet.root(host, "ss -Hltunp").splitlines():
            fields = line.split()
            address, _, port = fields[4].rpartition(":")
            ports.setdefault(int(port), set()).add(address)
        # only what the fleet is meant to offer is on other addresses than the host's own loop
        beyond = {port for port, at in ports.items() if not at <= {"127.0.0.1", "[::1]"}}
        assert beyond == {22, 8080, 9100, 9810, 9811}, host
        assert ports[8101] == {"127.0.0.1"}
        health = fleet.ssh(host, "curl -s -w '%{http_code}' 127.0.0.1:8101/health")
        assert health == "200"
        address = fleet.addresses[host]
        for number, reachable in ((8080, True), (8101, False)):
            from_gateway = fleet.ssh(
                "gw01",
                f"timeout 5 bash -c 'exec 3<>/dev/tcp/{address}/{number}' 2>/dev/null && echo open",
                check=False,
            )
            assert from_gateway == ("open\n" if reachable else ""), (host, number)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((address, 8101), timeout=5)


def error_of(answer: Answer) -> dict[str, Any]:
    """The error of *answer*, which has to have the shape that OpenAI's clients understand."""
    assert answer.headers["content-type"] == "application/json"
    document = answer.json()
    assert list(document) == ["error"]
    assert set(document["error"]) == {"message", "type", "param", "code"}
    assert document["error"]["message"]
    error: dict[str, Any] = document["error"]
    return error


@pytest.mark.parametrize("path", ["/v1/models", "/replicas/tiny/v1/models"])
def test_a_key_is_asked_for_and_compared_exactly(fleet: Fleet, path: str) -> None:
    key = fleet.key
    refused = {
        "no header": None,
        "an empty one": "",
        "no scheme": key,
        "another scheme": f"Basic {key}",
        "another key": f"Bearer sk-farrier-{'x' * 43}",
        "its case changed": f"Bearer {key.swapcase()}",
        "upper case": f"Bearer {key.upper()}",
        "one letter less": f"Bearer {key[:-1]}",
        "one letter more": f"Bearer {key}x",
        "twice": f"Bearer {key} {key}",
    }
    for what, header in refused.items():
        headers = {} if header is None else {"Authorization": header}
        answer = fleet.request("gpu02", path, headers=headers)
        assert answer.status == 401, what
        assert error_of(answer)["code"] == "invalid_api_key"
        assert answer.headers["www-authenticate"].startswith("Bearer")
    for header in (f"Bearer {key}", f"bearer {key}"):
        assert fleet.request("gpu02", path, headers={"Authorization": header}).status == 200


def test_the_clients_library_understands_a_refusal(fleet: Fleet) -> None:
    base = fleet.url("gpu01", "/v1")
    with (
        openai.OpenAI(base_url=base, api_key="sk-wrong", max_retries=0) as client,
        pytest.raises(openai.AuthenticationError) as caught,
    ):
        client.models.list()
    assert caught.value.code == "invalid_api_key"
    assert "Authorization: Bearer" in caught.value.message


@pytest.mark.parametrize("path", ["/", "/v2/models", "/replicas/other/v1/models", "/metrics"])
def test_another_path_is_404_and_says_what_there_is(fleet: Fleet, path: str) -> None:
    error = error_of(answer := fleet.request("gpu01", path, key=fleet.key))
    assert (answer.status, error["code"]) == (404, "not_found")
    assert "/replicas/tiny/v1/" in error["message"]


def test_another_model_is_the_engines_404(fleet: Fleet) -> None:
    base = fleet.url("gpu01", "/v1")
    with (
        openai.OpenAI(base_url=base, api_key=fleet.key, max_retries=0) as client,
        pytest.raises(openai.NotFoundError, match="other"),
    ):
        client.chat.completions.create(model="other", messages=MESSAGES)


def test_a_body_that_is_too_large_is_413_before_it_is_sent(fleet: Fleet) -> None:
    connection = HTTPConnection(fleet.addresses["gpu01"], 8080, timeout=10)
    connection.putrequest("POST", "/v1/chat/completions")
    connection.putheader("Authorization", f"Bearer {fleet.key}")
    connection.putheader("Content-Length", str(65 * 1024 * 1024))
    connection.endheaders()
    raw = connection.getresponse()
    answer = Answer(raw.status, {k.lower(): v for k, v in raw.getheaders()}, raw.read())
    connection.close()
    error = error_of(answer)
    assert (answer.status, error["code"]) == (413, "request_too_large")
    assert "64m" in error["message"]


def test_a_closed_gate_is_503_at_the_next_request_and_an_open_one_200(fleet: Fleet) -> None:
    """No reload of nginx in between, and on one connection that was open all the time."""
    connection = HTTPConnection(fleet.addresses["gpu01"], 8080, timeout=30)
    paths = ("/v1/models", "/replicas/tiny/v1/models")

    def statuses() -> list[int]:
        found = []
        for path in paths:
            connection.request("GET", path, headers={"Authorization": f"Bearer {fleet.key}"})
            answer = connection.getresponse()
            answer.read()
            found.append(answer.status)
        return found

    assert statuses() == [200, 200]
    fleet.root("gpu01", "rm /run/farrier/open/tiny")
    try:
        assert statuses() == [503, 503]
        for path in paths:
            answer = fleet.request("gpu01", path, key=fleet.key)
            assert error_of(answer)["code"] == "replica_not_ready"
            assert int(answer.headers["retry-after"]) > 0
        assert fleet.request("gpu01", paths[0]).status == 401  # the key comes first
        with (
            openai.OpenAI(
                base_url=fleet.url("gpu01", "/v1"), api_key=fleet.key, max_retries=0
            ) as client,
            pytest.raises(openai.InternalServerError) as caught,
        ):
            client.chat.completions.create(model="tiny", messages=MESSAGES)
        assert caught.value.status_code == 503
    finally:
        fleet.root("gpu01", "touch /run/farrier/open/tiny")
    assert statuses() == [200, 200]
    connection.close()


def test_what_curl_users_type_works(fleet: Fleet) -> None:
    """As the demo prints it, from another host of the network."""
    body = json.dumps({"model": "tiny", "messages": MESSAGES, "max_tokens": 3, "stream": True})
    url = fleet.url("gpu01", "/v1/chat/completions")
    typed = (
        f'read -r key; curl -sN {url} -H "Authorization: Bearer $key"'
        f" -H 'Content-Type: application/json' -d '{body}'"
    )
    done = subprocess.run(
        ["ssh", "-F", str(fleet.lab.ssh_config), "gw01", typed],
        input=f"{fleet.key}\n",
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.endswith("data: [DONE]\n\n")
