"""The web configuration file: what is refused, with which words; what is not."""

from __future__ import annotations

import json
import re
import time
from contextlib import suppress
from pathlib import Path

import pytest
from farrier_agent.web.configuration import WebConfigError, parse, seconds
from hypothesis import example, given
from hypothesis import strategies as st

from tests.agent.web.served import ALICE

TLS = "tls_server_config: {{cert_file: a, key_file: b, {}}}"
MTLS = "tls_server_config: {{cert_file: a, key_file: b, client_auth_type: {}, {}}}"
CA = "client_ca_file: c"

REFUSED = [
    ("tls_server_confg: {}", r"\$: unknown key 'tls_server_confg': did you mean tls_server_config"),
    ("[a, b]", "no mapping of keys to values"),
    ("just words", "no mapping of keys to values"),
    (TLS.format("client_ca_fil: x"), "config: unknown key .*: did you mean client_ca_file"),
    (TLS.format("zzz: x"), "unknown key 'zzz': known: cert_file, "),
    ("http_server_config: {htp2: true}", r"\$.http_server_config: .*did you mean http2"),
    ("rate_limit: {bursts: 1}", "did you mean burst"),
    # what is there and says nothing
    ("tls_server_config:", r"\$.tls_server_config is empty: give it a value, or leave it out"),
    ("basic_auth_users: {}", r"\$.basic_auth_users is empty"),
    ("basic_auth_users: {alice: }", r"\$.basic_auth_users.alice is empty"),
    (TLS.format("client_ca_file: "), r"client_ca_file is empty"),
    (MTLS.format("RequireAndVerifyClientCert", CA + ", client_allowed_sans: []"), "_sans is empty"),
    # certificates
    ("tls_server_config: {key_file: b}", "cert_file: it is missing, and cert too"),
    ("tls_server_config: {cert: x}", "key_file: it is missing, and key too"),
    (TLS.format("cert: x"), "cert: cert_file is there too: one of them"),
    (TLS.format("key: x"), "key: key_file is there too"),
    # clients
    (TLS.format(CA), "client_ca_file: nobody is asked for a certificate"),
    (TLS.format("client_allowed_sans: [x]"), "client_allowed_sans: nobody is asked"),
    (MTLS.format("RequireAndVerifyClientCert", ""), "client_ca_file: it is missing"),
    (MTLS.format("RequestClientCert", CA), "RequestClientCert lets in who shows no certificate"),
    (MTLS.format("RequireAnyClientCert", CA), "RequireAnyClientCert lets in who shows any"),
    (MTLS.format("RequireClientCert", CA), "another name of RequireAnyClientCert"),
    (MTLS.format("VerifyClientCertIfGiven", CA), "lets in who shows no cert.*RequireAndVerify"),
    (MTLS.format("requireandverify", CA), "unknown 'requireandverify'; use RequireAndVerify"),
    # versions, ciphers, curves
    (TLS.format("min_version: TLS10"), r"min_version: TLS10 is not safe \(RFC 8996\)"),
    (TLS.format("max_version: TLS11"), "max_version: TLS11 is not safe"),
    (TLS.format("min_version: SSL3"), r"unknown 'SSL3' \(TLS12, TLS13\)"),
    (TLS.format("min_version: TLS13, max_version: TLS12"), "min_version: it is above max_version"),
    (TLS.format("cipher_suites: [TLS_RSA_WITH_RC4_128_SHA]"), "none that Go calls secure"),
    (TLS.format("cipher_suites: [TLS_AES_128_GCM_SHA265]"), "did you mean TLS_AES_128_GCM_SHA256"),
    (TLS.format("curve_preferences: [P-256]"), "unknown 'P-256'.*CurveP256"),
    (TLS.format("curve_preferences: [X25519, CurveP256]"), "can keep to one curve only"),
    # the rest
    ("http_server_config: {headers: {Server: x}}", "headers.Server: it cannot be set.*Strict-T"),
    ("http_server_config: {headers: {X-Frame-Options: all}}", "'all' is none of deny, sameorigin"),
    ('http_server_config: {headers: {X-XSS-Protection: "a\\r\\nb"}}', "one line of ASCII"),
    ("http_server_config: {http2: perhaps}", "http2"),
    ("basic_auth_users: {alice: wonderland}", "users.alice: not a bcrypt hash.*htpasswd -nBC 10"),
    ("basic_auth_users: {alice: $apr1$x$y}", "not a bcrypt hash"),
    (f"basic_auth_users: {{a: {ALICE.replace('$04$', '$31$')}}}", "a cost of 31 is not 4 to 15"),
    (f"basic_auth_users: {{'a:b': {ALICE}}}", "a letter and no colon"),
    ("rate_limit: {interval: often, burst: 1}", "'often' is not a duration"),
    ("rate_limit: {interval: 1, burst: 1}", "'1' is not a duration such as 1s"),
    ("rate_limit: {interval: 1s}", "burst: less than 1 would refuse every request"),
    # YAML
    ("a: 1\na: 2", "line 2, column 1: 'a' is there twice"),
    ("a: &x {b: 1}\nc: *x", r"aliases \(\*name\) are not followed"),
    ("a: !!python/object:os.system x", r"tags \(!name\) are not known"),
    ("a: 1\n---\nb: 2", "a second document"),
    ("? [a]\n: b", "a key is a list or a mapping"),
    ("a: [", "line 1, column"),
    ("a:\n\t- b", "line 2"),
    ("[" * 100 + "]" * 100, "nested too deeply"),
    ("x" * 300_000, "more than 256 KiB"),
]


@pytest.mark.parametrize(("text", "words"), REFUSED, ids=[text[:60] for text, _ in REFUSED])
def test_what_is_refused(text: str, words: str) -> None:
    with pytest.raises(WebConfigError, match=words) as refused:
        parse(text)
    assert len(str(refused.value)) < 700


def test_all_that_is_wrong_is_said_at_once() -> None:
    with pytest.raises(WebConfigError) as refused:
        parse(TLS.format("min_version: TLS10, client_ca_file: x, cipher_suites: [y]"))
    for key in ("min_version", "client_ca_file", "cipher_suites"):
        assert f"$.tls_server_config.{key}: " in str(refused.value)


def test_a_long_list_of_faults_is_cut_short() -> None:
    with pytest.raises(WebConfigError) as refused:
        parse("\n".join(f"k{number}: 1" for number in range(1000)))
    assert "and 995 more" in str(refused.value)
    assert len(str(refused.value)) < 1000


def test_secrets_are_not_in_the_words() -> None:
    for text in ("basic_auth_users: {alice: hunter2}", "basic_auth_users: {alice: [hunter2}"):
        with pytest.raises(WebConfigError) as refused:
            parse(text)
        assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize("text", ["", "\n", "# nothing\n", "---\n"])
def test_an_empty_file_is_plain_http(text: str) -> None:
    found = parse(text)
    assert found.tls_server_config is None
    assert not found.basic_auth_users


def test_the_sample_of_exporter_toolkit() -> None:
    found = parse(
        "# TLS and basic authentication configuration example.\n"
        "tls_server_config:\n  cert_file: server.crt\n  key_file: server.key\n"
        f"basic_auth_users:\n  alice: {ALICE}\n  bob: {ALICE}\n"
        'rate_limit:\n  interval: "1s"\n  burst: 20\n'
    )
    assert found.files(Path("/etc/x")) == {
        "cert_file": Path("/etc/x/server.crt"),
        "key_file": Path("/etc/x/server.key"),
    }
    assert set(found.basic_auth_users) == {"alice", "bob"}
    assert (seconds(found.rate_limit.interval), found.rate_limit.burst) == (1, 20)


def test_everything_that_can_be_said() -> None:
    found = parse(f"""
tls_server_config:
  cert: |
    -----BEGIN CERTIFICATE-----
  key_file: /abs/key
  client_ca_file: ca.pem
  client_auth_type: "RequireAndVerifyClientCert"
  client_allowed_sans: [prometheus.example, 10.0.0.1, "spiffe://a/b", x@example.org]
  min_version: TLS12
  max_version: TLS13
  cipher_suites: [TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, TLS_AES_128_GCM_SHA256]
  prefer_server_cipher_suites: false
  curve_preferences: [CurveP256]
http_server_config:
  http2: true
  headers: {{X-Frame-Options: deny, X-XSS-Protection: 0, Content-Security-Policy: ""}}
basic_auth_users:
  yes: {ALICE}
  0123: {ALICE}
rate_limit: {{interval: 1m0.5s, burst: 3}}
""")
    assert found.tls_server_config is not None
    assert found.tls_server_config.asks_clients
    assert found.files(Path("/d"))["key_file"] == Path("/abs/key")
    assert set(found.basic_auth_users) == {"yes", "0123"}, "names are what is written"
    assert found.http_server_config.headers["X-XSS-Protection"] == "0"


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ("0", 0),
        ("1s", 1),
        ("500ms", 0.5),
        ("1m30s", 90),
        ("1.5h", 5400),
        (".5s", 0.5),
        ("2us", 2e-6),
    ],
)
def test_durations(said: str, found: float) -> None:
    assert seconds(said) == pytest.approx(found)


KEYS = re.findall(r"\w+", (Path(__file__).read_text().split("REFUSED")[1]))
WORDS = st.sampled_from(["a", "1", "true", ALICE, "TLS12", "null", "~", *KEYS])
TREES = st.recursive(
    WORDS | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=4),
    max_leaves=12,
)


@given(st.text(max_size=300))
@example('a: "\\ud800"')
@example("\ufeffa: 1")
@example("%YAML 9.9\n---\na: 1")
@example('a: "\\xZZ"')
@example("\x00")
@example("<<: {a: 1}")
@example("- " * 3000)
def test_garbage_is_refused_and_nothing_else(text: str) -> None:
    begun = time.monotonic()
    with suppress(WebConfigError):
        parse(text)
    assert time.monotonic() - begun < 10


@given(TREES)
def test_garbage_of_the_right_words(tree: object) -> None:
    with suppress(WebConfigError):
        assert parse(json.dumps(tree))
