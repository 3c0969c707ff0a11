"""Files that change while the endpoint serves: nothing is restarted, nobody is refused by it."""

from __future__ import annotations

import http.client
import logging
import os
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cryptography import x509
from farrier_agent.web import InForce

from tests.agent.host import until
from tests.agent.web.certificates import Authority, Pair, replace
from tests.agent.web.conftest import Serve
from tests.agent.web.served import ALICE, MTLS, TLS, Served, ask, basic

USERS = f"basic_auth_users:\n  alice: {ALICE}\n"


def shown(one: Served, tls: ssl.SSLContext) -> bytes:
    """The certificate that the endpoint shows, in PEM."""
    with tls.wrap_socket(one.connect(), server_hostname="localhost") as made:
        found = made.getpeercert(binary_form=True)
    assert found is not None
    return ssl.DER_cert_to_PEM_cert(found).encode()


class Load:
    """Scrapes without a pause, some over a new connection each, some over one."""

    def __init__(self, one: Served, tls: ssl.SSLContext) -> None:
        self.answered = 0
        self.failures: list[str] = []
        self._one = one
        self._tls = tls
        self._over = threading.Event()
        self._threads = [
            threading.Thread(target=self._scrape, args=(keep,)) for keep in (True, False, False)
        ]

    def _scrape(self, keep: bool) -> None:
        connection = self._one.connection(self._tls)
        while not self._over.is_set():
            try:
                if not keep:
                    connection.close()
                reply = ask(connection, "/metrics", basic())
                if reply.code != 200 or not reply.body.endswith(b"\n"):
                    self.failures.append(f"{reply.code} {reply.body[:200]!r}")
                self.answered += 1
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(repr(error))
                connection.close()
        connection.close()

    def wait(self) -> None:
        """Until something more was answered."""
        before = self.answered
        until(lambda: self.answered > before)

    @contextmanager
    def running(self) -> Iterator[None]:
        for thread in self._threads:
            thread.start()
        try:
            yield
        finally:
            self._over.set()
            for thread in self._threads:
                thread.join(30)


def look(one: Served) -> str | None:
    one.in_force.rules()
    return one.in_force.problem


def wait_for(one: Served, words: str) -> None:
    """Until the endpoint says *words* about its configuration."""
    until(lambda: words in str(one.inside(lambda: look(one))))


def renew(one: Served, pair: Pair, tls: ssl.SSLContext) -> None:
    """As an ACME client does: first the one file, a moment later the other."""
    replace(one.directory / "server.crt", pair.certificate)
    wait_for(one, "not the key")
    replace(one.directory / "server.key", pair.key)
    until(lambda: shown(one, tls) == pair.certificate, 10)


def test_certificates_are_renewed_under_load(serve: Serve) -> None:
    one = serve(TLS + USERS)
    tls = one.context()
    load = Load(one, tls)
    with load.running():
        for _ in range(3):
            renew(one, one.authority.server(), tls)
            assert one.inside(lambda: one.in_force.problem) is None
            load.wait()
    assert load.failures == []
    assert load.answered > 50


def test_a_bad_file_changes_nothing_and_says_so(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "farrier-agent")
    one = serve(TLS + USERS)
    tls = one.context()
    assert one.get("/metrics", basic(), tls).code == 200
    good = (one.directory / "server.key").read_bytes()
    spoiled = [
        (one.directory / "server.key", b"none", "key_file: no private key"),
        (one.path, b"tls_server_confg: {}", "did you mean tls_server_config"),
        (one.path, b"basic_auth_users: {alice: wonderland}", "not a bcrypt hash"),
    ]
    for path, content, words in spoiled:
        before = path.read_bytes()
        replace(path, content)
        wait_for(one, words)
        problem = one.in_force.problem
        assert problem is not None
        assert problem.endswith("the one that was read before stays in force")
        assert one.in_force.good is False
        assert one.get("/metrics", basic(), tls).code == 200
        assert one.get("/metrics", {}, tls).code == 401, "and no door stands open"
        assert one.get("/metrics", basic()).code == 400, "nor does plain HTTP"
        replace(path, before)
        until(lambda: one.inside(lambda: look(one)) is None)
    assert (one.directory / "server.key").read_bytes() == good
    said = [record.message for record in caplog.records if record.levelno == logging.ERROR]
    assert len(said) == len(spoiled), "each once, however often it is looked at"


def test_a_bad_file_at_the_start_that_becomes_good(tmp_path: Path) -> None:
    served = Served(tmp_path, "tls_server_config: {cert_file: late.crt, key_file: late.key}")
    with served as one:
        assert one.get("/metrics").code == 503
        one.authority.server().write(tmp_path, "late")
        tls = one.context()

        def answers() -> bool:
            try:
                return one.get(tls=tls).code == 200
            except OSError:
                return False

        until(answers)
        assert one.in_force.good


def test_from_plain_http_to_tls_and_no_open_connection_goes_on_in_the_clear(serve: Serve) -> None:
    one = serve("")
    connection = one.connection()
    assert ask(connection, "/metrics").code == 200
    one.write(TLS)
    until(lambda: one.inside(lambda: one.in_force.rules().tls is not None))  # type: ignore[union-attr]
    with pytest.raises((OSError, http.client.HTTPException)):
        ask(connection, "/metrics")
    assert one.get(tls=one.context()).code == 200


def test_a_client_whose_name_is_taken_out_is_cut_off(serve: Serve, tmp_path: Path) -> None:
    clients = Authority("clients")
    (tmp_path / "ca.crt").write_bytes(clients.certificate)
    one = serve(MTLS + "  client_allowed_sans: [a.example, b.example]\n")
    tls = one.context(clients.client(x509.DNSName("a.example")))
    connection = one.connection(tls)
    assert ask(connection).code == 200
    one.write(MTLS + "  client_allowed_sans: [b.example]\n")
    rules = one.inside(one.in_force.rules)
    until(lambda: one.inside(one.in_force.rules) is not rules)
    for _ in range(2):  # on the open connection, and on another
        with pytest.raises((OSError, http.client.HTTPException)):
            ask(connection, "/metrics")
        connection.close()


def test_another_authority_of_clients(serve: Serve, tmp_path: Path) -> None:
    before, after = Authority("clients"), Authority("clients")
    (tmp_path / "ca.crt").write_bytes(before.certificate)
    one = serve(MTLS)
    old, new = one.context(before.client()), one.context(after.client())
    assert one.get(tls=old).code == 200
    replace(tmp_path / "ca.crt", after.certificate)
    rules = one.inside(one.in_force.rules)
    until(lambda: one.inside(one.in_force.rules) is not rules)
    assert one.get(tls=new).code == 200
    with pytest.raises((OSError, http.client.HTTPException)):
        one.get(tls=old)


# -- how changes are seen ------------------------------------------------------------------------


class Watch:
    """Another second at every look."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1.0
        return self.now


def web_file(tmp_path: Path, text: str = "rate_limit: {interval: 1h, burst: 1}") -> Path:
    path = tmp_path / "web.yml"
    path.write_text(text)
    return path


def test_a_change_that_leaves_time_and_size_as_they_were_is_seen(tmp_path: Path) -> None:
    path = web_file(tmp_path)
    found = path.stat()
    in_force = InForce(path, Watch())
    before = in_force.rules()
    with path.open("r+") as file:  # the same inode
        file.write("rate_limit: {interval: 1h, burst: 2}")
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))
    assert path.stat().st_size == found.st_size
    assert in_force.rules() is before, "seen once it may be the half of it"
    assert in_force.rules() is not before


def test_half_a_file_is_not_taken(tmp_path: Path) -> None:
    """As an editor writes it, emptied first: no moment of plain HTTP for everybody."""
    users = f"basic_auth_users: {{alice: {ALICE}}}\n"
    path = web_file(tmp_path, users)
    in_force = InForce(path, Watch())
    assert in_force.rules() is not None
    for text in ("", "#\n", users + "http_server_config:", users, "", users):
        path.write_text(text)
        rules = in_force.rules()
        assert rules is not None
        assert rules.users is not None
    path.write_text("")
    for _ in range(2):
        rules = in_force.rules()
    assert rules is not None
    assert rules.users is None, "whoever means it, gets it"


def test_a_file_that_could_not_be_used_is_not_taken_by_halves_either(tmp_path: Path) -> None:
    path = web_file(tmp_path, "nonsense")
    in_force = InForce(path, Watch())
    assert in_force.rules() is None
    path.write_text("")
    assert in_force.rules() is None
    path.write_text(f"basic_auth_users: {{alice: {ALICE}}}")
    assert in_force.rules() is None
    rules = in_force.rules()
    assert rules is not None
    assert rules.users is not None


def test_what_does_not_change_is_not_read(tmp_path: Path) -> None:
    path = web_file(tmp_path)
    in_force = InForce(path, Watch())
    for _ in range(3):
        before = in_force.rules()
    os.utime(path, ns=(0, path.stat().st_mtime_ns))  # atime long ago: a read would renew it
    for _ in range(3):
        in_force.rules()
    accessed = path.stat().st_atime_ns
    for _ in range(5):
        assert in_force.rules() is before
    assert path.stat().st_atime_ns == accessed


def test_a_fifo_in_the_place_of_the_file_holds_nothing_up(tmp_path: Path) -> None:
    path = tmp_path / "web.yml"
    os.mkfifo(path)
    in_force = InForce(path, Watch())
    begun = time.monotonic()
    assert in_force.rules() is None
    assert time.monotonic() - begun < 5
    assert "not a regular file" in (in_force.problem or "")
