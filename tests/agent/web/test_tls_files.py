"""Certificates and keys as files: what cannot be used is named, and nobody is answered."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from farrier_agent.web import WebConfigError, check

from tests.agent.web.certificates import Authority, encrypted
from tests.agent.web.conftest import Serve
from tests.agent.web.served import ALICE, MTLS, REFUSALS, TLS, Served


def _swap_key(one: Path) -> None:
    (one / "server.key").write_bytes(Authority().server().key)


def _make_directory(one: Path) -> None:
    (one / "web.yml").unlink()
    (one / "web.yml").mkdir()


def _encrypt(one: Path) -> None:
    pair = Authority().server()
    (one / "server.crt").write_bytes(pair.certificate)
    (one / "server.key").write_bytes(encrypted(pair))


BAD_FILES: list[tuple[Callable[[Path], object], str]] = [
    (lambda one: (one / "server.crt").unlink(), r"cert_file: /.*/server.crt: No such file"),
    (lambda one: (one / "server.key").unlink(), r"key_file: /.*/server.key: No such file"),
    (lambda one: (one / "ca.crt").unlink(), r"client_ca_file: /.*/ca.crt: No such file"),
    (lambda one: (one / "server.crt").write_text(""), "cert_file: no certificate in PEM"),
    (lambda one: (one / "server.key").write_text("x"), "key_file: no private key in PEM"),
    (_swap_key, "key_file: it is not the key of the certificate in cert_file"),
    (_encrypt, "key_file: the key is encrypted, .*openssl pkey"),
    (
        lambda one: (one / "server.crt").write_text(
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
        ),
        "OpenSSL cannot read them",
    ),
    (lambda one: (one / "ca.crt").write_text("none"), "client_ca_file: no certificate of an auth"),
    (lambda one: (one / "ca.crt").write_bytes(b"\xff" * 99), "client_ca_file: no certificate"),
    (lambda one: (one / "ca.crt").write_bytes(b"x" * 2_000_000), "more than 1024 KiB"),
    (
        _make_directory,
        "web.yml: Is a directory",
    ),
    (lambda one: (one / "web.yml").write_bytes(b"\xff\xfe"), "not UTF-8"),
    (lambda one: (one / "web.yml").unlink(), "web.yml: No such file"),
]


@pytest.mark.parametrize(("spoil", "words"), BAD_FILES, ids=[words for _, words in BAD_FILES])
def test_a_bad_file_is_named_and_nobody_is_answered(
    tmp_path: Path, spoil: Callable[[Path], object], words: str
) -> None:
    (tmp_path / "ca.crt").write_bytes(Authority("clients").certificate)
    served = Served(tmp_path, MTLS)
    spoil(tmp_path)
    with pytest.raises(WebConfigError, match=words):
        check(tmp_path / "web.yml")
    with served as one:
        for path in ("/metrics", "/livez", "/status"):
            reply = one.get(path)
            assert reply.code == 503
            assert b"farrier-agent check-config" in reply.body
            assert b"farrier_" not in reply.body
        problem = one.inside(lambda: one.in_force.problem)
        assert problem is not None
        assert str(tmp_path / "web.yml") in problem
        assert problem.endswith("until it can be used every HTTP request is refused with 503")
        assert one.in_force.good is False
        with pytest.raises(REFUSALS):
            one.get(tls=one.context())


def test_what_a_good_file_says_in_a_few_words(tmp_path: Path) -> None:
    served = Served(tmp_path, TLS + f"basic_auth_users: {{alice: {ALICE}}}")
    assert check(served.path) == "TLS from TLS12, 1 user(s)"
    served.write("")
    assert check(served.path) == "plain HTTP, no passwords"
    served.write(f"basic_auth_users: {{alice: {ALICE}}}")
    assert "anybody on the way can read" in check(served.path)


def test_certificates_may_stand_in_the_file(serve: Serve, tmp_path: Path) -> None:
    def block(key: str, text: bytes) -> str:
        return f"  {key}: |\n" + "".join(f"    {line}\n" for line in text.decode().splitlines())

    one = serve(TLS)
    pair = one.authority.server()
    one.write("tls_server_config:\n" + block("cert", pair.certificate) + block("key", pair.key))
    assert check(one.path).startswith("TLS")
