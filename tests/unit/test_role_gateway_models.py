"""Which model a request is for: the gateway in a real HAProxy."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.agent.host import until
from tests.unit.gateway_hosts import Gateway, Host, gateway
from tests.unit.gateway_running import KEYS, TINY, hosts, running, seen

__all__ = ["hosts", "running"]


def test_the_models_are_those_that_serve_and_that_the_key_may_use(
    running: Gateway, hosts: list[Host]
) -> None:
    def listed(by: str) -> list[str]:
        return [one["id"] for one in running.ask("/v1/models", by=by).json()["data"]]

    assert listed("alice") == ["Qwen/Qwen3", "tiny"]
    assert listed("bob") == ["tiny"]
    assert running.ask("/v1/models/Qwen/Qwen3").json()["id"] == "Qwen/Qwen3"
    assert running.ask("/v1/models/Qwen%2FQwen3").json()["id"] == "Qwen/Qwen3"
    assert running.ask("/v1/models/Qwen/Qwen3", by="bob").status == 403
    assert running.ask("/v1/models/none").status == 404
    hosts[1].takes = False
    until(lambda: listed("alice") == ["tiny"])
    assert running.ask("/v1/models/Qwen/Qwen3").code == "no_replica_ready"
    assert not seen(hosts)


def test_an_unknown_model_is_answered_with_those_that_there_are(running: Gateway) -> None:
    answer = running.ask(body={"model": 'no"such\\one'})
    assert (answer.status, answer.code) == (404, "model_not_found")
    message = answer.json()["error"]["message"]
    assert 'no"such\\one' in message
    assert message.endswith("Qwen/Qwen3, tiny")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"no json",
        b'{"model":""}',
        b'{"model":null}',
        b"\xef\xbb\xbf" + b'{"model":"tiny"}',
        b"[" * 60 + b'{"model":"tiny"}',
        b"\x1f\x8b\x08\x00",
    ],
    ids=["empty", "no-model", "text", "no-name", "null", "bom", "deep", "gzip"],
)
def test_a_body_without_a_readable_model_says_how_to_name_it(running: Gateway, body: bytes) -> None:
    answer = running.ask(body=body)
    assert (answer.status, answer.code) == (400, "model_missing")
    assert "X-Model" in answer.json()["error"]["message"]
    assert running.ask(body=body, X_Model="tiny").status == 200


def test_the_model_is_found_behind_a_long_prompt(tmp_path: Path, hosts: list[Host]) -> None:
    body = json.dumps({"prompt": "x" * 300_000, "model": "tiny"}).encode()
    with gateway(tmp_path, hosts, KEYS) as it:
        it.settled()
        assert it.ask(body=body).status == 200
    assert [request.body for host in hosts for request in host.seen] == [body]


def test_other_paths_are_no_endpoint(running: Gateway, hosts: list[Host]) -> None:
    for path in ("/", "/metrics", "/replicas/tiny/v1/chat/completions", "/v2/x"):
        assert running.ask(path, body=TINY).code == "not_found"
    assert running.ask("/farrier-alive", by=None).status == 200
    assert not seen(hosts)


def test_an_adapter_is_asked_for_by_its_name(tmp_path: Path) -> None:
    """Of a real HAProxy: *law* is on one host of two, *chess* on both."""
    both = [Host("gpu01", adapters=("chess", "law")), Host("gpu02", adapters=("chess",))]
    try:
        with gateway(tmp_path, both, KEYS) as it:
            it.settled()
            ids = [one["id"] for one in it.ask("/v1/models").json()["data"]]
            assert ids == ["law", "tiny", "chess"]
            for _ in range(4):
                assert it.ask(body={"model": "law"}).status == 200
            assert seen(both) == {"gpu01": 4}
            for _ in range(4):
                assert it.ask(body={"model": "chess"}, by="bob").status == 200
            assert len(seen(both)) == 2
            assert it.ask("/v1/models/law", by="bob").status == 200
            # what the replica has to take it by
            assert both[0].seen[0].headers["x-farrier-server"] == "gpu01:tiny"
    finally:
        for one in both:
            one.end()
