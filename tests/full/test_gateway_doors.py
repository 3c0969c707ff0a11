"""What the gateway lets in: large and strange bodies, keys, files that cannot be read (10 min).

HAProxy 3.0 and 2.6 (Debian 13 and 12) before three hosts; the engines are stand-ins. The clients'
ledger, the engines' accounts and HAProxy's log have to tell the same.
"""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path

import pytest

from farrier.lab.certificates import certificate_of
from farrier.load import Plan
from tests.fleet.accounts import agree, busy, load, logged
from tests.fleet.site import Site
from tests.roles.fleet import until

GATEWAYS = ("gw01", "gw02")
MAX_BODY = 1024 * 1024


@pytest.fixture(params=GATEWAYS)
def gateway(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


# ---- bodies ----------------------------------------------------------------------------------


@pytest.mark.parametrize("http2", [False, True], ids=["h1", "h2"])
def test_prompts_of_300_kilobytes(site: Site, gateway: str, http2: bool) -> None:
    plan = Plan(
        models=("tiny",),
        seconds=600,
        streams=4,
        stream_seconds=(1, 2),
        posts=8,
        fresh=4,
        uploads=6,
        upload_bytes=300_000,
        upload_seconds=2,
        prompt_bytes=300_000,
        http2=http2,
    )
    with load(site, gateway, plan, tls=True) as it:
        busy(it, 100)
        until(lambda: it.ledger.counts["upload", "complete"] >= 12, 60, "uploads are served")
    agree(site, gateway, it.ledger)


def curl(site: Site, gateway: str, body: bytes, *options: str, scheme: str) -> tuple[int, str]:
    """Status and error code of a POST of *body* by curl."""
    address = f"{site.addresses[gateway]}/v1/chat/completions"
    headers = site.converge.directory / "headers"
    headers.touch(0o600)
    headers.write_text(f"Authorization: Bearer {site.key}\nContent-Type: application/json\nExpect:")
    argv = ["curl", "-sS", "--cacert", str(site.lab.ca), "-H", f"@{headers}", *options]
    argv += ["--data-binary", "@-", "-w", "\n%{http_code}", f"{scheme}://{address}"]
    done = subprocess.run(
        argv,
        input=body,
        capture_output=True,
        timeout=60,
        check=False,
    )
    text, _, status = done.stdout.decode().rpartition("\n")
    error = json.loads(text).get("error", {}) if text else {}
    return int(status), error.get("code", "")


def sized(size: int, user: str) -> bytes:
    """A good body of *size* bytes, with the model at its end."""
    frame = f'{{"messages":[],"max_tokens":1,"user":"{user}","pad":"","model":"tiny"}}'
    return frame.replace('"pad":""', f'"pad":"{"x" * (size - len(frame))}"').encode()


OVER_WHICH = {
    "h1": ("http", "--http1.1"),
    "h1-chunked": ("http", "--http1.1", "-H", "Transfer-Encoding: chunked"),
    "h2": ("https", "--http2"),
    "h2-no-length": ("https", "--http2", "-H", "Content-Length:"),
}


@pytest.mark.parametrize("way", OVER_WHICH)
def test_bodies_at_and_over_the_limit(site: Site, gateway: str, way: str) -> None:
    scheme, *options = OVER_WHICH[way]
    name = f"{gateway}-{way}-{time.monotonic_ns()}"
    assert curl(site, gateway, sized(MAX_BODY, f"{name}-at"), *options, scheme=scheme)[0] == 200
    for size in (MAX_BODY + 1, 2 * MAX_BODY, 12 * MAX_BODY):
        over = f"{name}-{size}"
        named = (*options, "-H", f"X-Request-ID: {over}")
        said = curl(site, gateway, sized(size, over), *named, scheme=scheme)
        # With HTTP/2 curl may stumble over the end of the upload, before it reads the answer.
        assert said in {(413, "request_too_large"), (0, "") if scheme == "https" else None}, size
        assert [line["status"] for line in logged(site, gateway, over)[over]] == [413]
    assert site.executed(name) == {f"{name}-at": 1}


@pytest.mark.parametrize("way", OVER_WHICH)
def test_bodies_without_a_readable_model(site: Site, gateway: str, way: str) -> None:
    scheme, *options = OVER_WHICH[way]
    name = f"{gateway}-none-{way}-{time.monotonic_ns()}"
    good = f'{{"user":"{name}","messages":[],"model":'.encode()
    for body in (b"hello", b"\x1f\x8b\x08", b"[]", b"{}", good + b'"tiny', b"{" * 5000):
        status, code = curl(site, gateway, body, *options, scheme=scheme)
        assert (status, bool(code)) == (400, True), body[:80]
    number = curl(site, gateway, good + b"7}", *options, scheme=scheme)
    assert number == (404, "model_not_found")
    assert not site.executed(name)


# ---- who is let in ---------------------------------------------------------------------------


def closed(site: Site, gateway: str, name: str) -> None:
    """Nobody gets in without a good key, nor to another model than the key's."""
    body = {"model": "tiny", "messages": [], "max_tokens": 1, "user": name}
    for key in (None, "sk-wrong", "", site.key[:-1]):
        answer = site.request(gateway, "/v1/chat/completions", key=key, body=body)
        assert answer.status == 401, key
        assert answer.json()["error"]["code"] == "invalid_api_key"
    other = site.chat(gateway, "solo", key=site.keys["tiny-only"], user=name)
    assert (other.status, other.json()["error"]["code"]) == (403, "model_not_allowed")
    assert not site.executed(name)


@pytest.mark.parametrize(
    "harm",
    ["rm keys.map", "rm keys.map && mkdir keys.map", "rm allowed.map", "mv keys.map elsewhere"],
)
def test_keys_that_cannot_be_read_at_a_reload(site: Site, gateway: str, harm: str) -> None:
    name = f"{gateway}-keys-{time.monotonic_ns()}"
    site.root(gateway, "rm -rf /root/kept && cp -a /etc/haproxy/farrier /root/kept")
    try:
        site.root(gateway, f"cd /etc/haproxy/farrier && {harm}")
        for verb in ("reload", "restart"):
            assert "refused" in site.root(gateway, f"systemctl {verb} haproxy || echo refused")
            closed(site, gateway, name)
            assert site.chat(gateway).status == 200, "it serves on with the keys that it had"
    finally:
        site.root(gateway, "rm -rf /etc/haproxy/farrier && mv /root/kept /etc/haproxy/farrier")
        site.root(gateway, "systemctl reset-failed haproxy; systemctl start haproxy")
        site.root(gateway, "systemctl reload haproxy")
    assert site.chat(gateway).status == 200


def test_an_empty_file_of_keys_lets_nobody_in(site: Site, gateway: str) -> None:
    name = f"{gateway}-empty-{time.monotonic_ns()}"
    keys = "/etc/haproxy/farrier/keys.map"
    site.root(gateway, f"cp -p {keys} {keys}.kept && : >{keys} && systemctl reload haproxy")
    try:
        assert site.chat(gateway, user=name).status == 401
        assert site.request(gateway, "/v1/models").status == 401
    finally:
        site.root(gateway, f"mv -f {keys}.kept {keys} && systemctl reload haproxy")
    assert not site.executed(name)
    assert site.chat(gateway).status == 200


def test_what_the_operator_cannot_read_changes_no_gateway(
    site: Site, gateway: str, tmp_path: Path
) -> None:
    expired = tmp_path / "expired.pem"
    expired.touch(0o600)
    expired.write_text(certificate_of("old", [gateway], expired=True)[1])
    keys = {"api_keys_file": str(site.keys_file)}
    cases = {
        "has expired": keys | {"gateway_tls_certificate": str(expired)},
        "No such file": keys | {"gateway_tls_certificate": str(tmp_path / "none.pem")},
        "none.toml": {"api_keys_file": str(tmp_path / "none.toml")},
        "api_keys_file": {"api_keys_file": ""},
    }
    since = site.unit(gateway, "haproxy", "InvocationID")
    before = site.root(gateway, "find /etc/haproxy -type f | sort | xargs sha256sum")
    for reason, data in cases.items():
        run = site.converge(data={gateway: data}, limit=[gateway])
        assert run.returncode != 0, reason
        assert reason in run.stderr, run.last_words()
        assert not [name for name in run.changed(gateway) if name.startswith("Gateway")]
        assert site.root(gateway, "find /etc/haproxy -type f | sort | xargs sha256sum") == before
        closed(site, gateway, f"{gateway}-refused-{time.monotonic_ns()}")
        assert site.chat(gateway).status == 200
    assert site.unit(gateway, "haproxy", "InvocationID") == since
