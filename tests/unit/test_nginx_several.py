"""Several replicas of one model behind one ``/v1/…``: a real nginx before stand-ins for engines."""

from __future__ import annotations

import http.client
import json
import re
import socket
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from farrier.spec import ApiKey, HostSpec, Model
from roles import nginx
from roles.nginx.clients import clients
from roles.nginx.several import MOST, ways
from tests import proxies
from tests.agent.host import free_port, until
from tests.agent.standin import engine
from tests.roles.nginx_config import parse, weaknesses

ECHO = Path(__file__).parents[1] / "nginx" / "standin_echo.py"
BODY = b'{"model": "Org/Tiny"}'


def model(name: str, replica: str, port: int) -> Model:
    return Model(name, replica=replica, engine="custom", gpus=[], port=port, command=["/bin/serve"])


def replicas(*ports: int) -> tuple[Model, ...]:
    return tuple(
        model("Org/Tiny", f"tiny-{number}", port) for number, port in enumerate(ports, start=1)
    )


def site(models: Sequence[Model], **data: Any) -> str:
    spec = HostSpec("gpu01", groups=("gpu",), models=tuple(models), open_access=True)
    settings = nginx.DEFAULTS.data() | data
    return nginx.site_text(spec, settings, clients(spec, settings))


@dataclass
class Host:
    """nginx on *port*, before engines on *ports*; *gates* is where their gates are."""

    port: int
    ports: tuple[int, ...]
    gates: Path
    log: Path
    proxy: proxies.Proxy

    def open(self, *numbers: int) -> None:
        """These gates are open, and no other."""
        for number in range(1, len(self.ports) + 1):
            gate = self.gates / f"tiny-{number}"
            if number in numbers:
                gate.touch()
            else:
                gate.unlink(missing_ok=True)

    def ask(
        self, path: str = "/v1/chat/completions", body: bytes = BODY, **headers: str
    ) -> tuple[int, Any, http.client.HTTPResponse]:
        one = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        one.request("POST", path, body, {k.replace("_", "-"): v for k, v in headers.items()})
        answer = one.getresponse()
        text = answer.read()
        one.close()
        is_json = text.startswith(b"{")
        return answer.status, json.loads(text) if is_json else text.decode(), answer

    def taker(self, **headers: str) -> int:
        """The number of the replica that took a request."""
        status, got, _ = self.ask("/v1/chat/completions", BODY, **headers)
        assert status == 200, got
        return self.ports.index(got["port"]) + 1

    def logged(self, count: int) -> list[dict[str, Any]]:
        """The last *count* lines of the log, once there are so many."""
        until(lambda: len(self.log.read_text().splitlines()) >= count)
        return [json.loads(line) for line in self.log.read_text().splitlines()[-count:]]


@contextmanager
def host(scratch: Path, *ports: int, **data: Any) -> Iterator[Host]:
    """The role's nginx with the paths of its site in *scratch*, every gate open."""
    port = free_port()
    with tempfile.TemporaryDirectory(dir="/tmp") as gates:
        Path(gates).chmod(0o755)  # nginx's workers look for them as another user
        spec = HostSpec(
            "gpu01",
            groups=("gpu",),
            accelerator="cpu",
            models=replicas(*ports),
            nginx_port=port,
            open_access=True,
        )
        settings = nginx.DEFAULTS.data() | {"nginx_addresses": ["127.0.0.1"]} | data
        let_in = clients(spec, settings)
        text = (
            nginx.site_text(spec, settings, let_in)
            .replace("include /etc/nginx/farrier/clients.conf;", nginx.clients_text(let_in))
            .replace("/run/farrier/open", gates)
            .replace("/run/farrier", str(scratch))
            .replace("/var/log/nginx", str(scratch))
        )
        with proxies.nginx(scratch, port, "variables_hash_max_size 4096;\n" + text) as proxy:
            log = scratch / "farrier-access.log"
            it = Host(port, ports, Path(gates), log, proxy)
            it.open(*range(1, len(ports) + 1))
            yield it


@contextmanager
def echo(port: int) -> Iterator[None]:
    with subprocess.Popen(
        [sys.executable, str(ECHO), str(port)], stderr=subprocess.DEVNULL
    ) as process:
        try:
            until(lambda: _listens(port))
            yield
        finally:
            process.kill()


def _listens(port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def two(tmp_path: Path) -> Iterator[Host]:
    """Two replicas that take requests."""
    ports = free_port(), free_port()
    with ExitStack() as running:
        for port in ports:
            running.enter_context(echo(port))
        yield running.enter_context(host(tmp_path, *ports))


def test_a_way_for_every_set_of_open_gates() -> None:
    models = replicas(8101, 8102, 8103)
    found = {way.group: [one.replica for one in way.models] for way in ways(models)}
    assert found == {
        "farrier_any_1": ["tiny-1"],
        "farrier_any_2": ["tiny-2"],
        "farrier_any_3": ["tiny-3"],
        "farrier_any_1_2": ["tiny-1", "tiny-2"],
        "farrier_any_1_3": ["tiny-1", "tiny-3"],
        "farrier_any_2_3": ["tiny-2", "tiny-3"],
        "farrier_any_1_2_3": ["tiny-1", "tiny-2", "tiny-3"],
    }


def test_one_replica_several_models_and_too_many_have_none() -> None:
    assert ways(replicas(8101)) == ()
    assert ways((*replicas(8101, 8102), model("other", "o", 8103))) == ()
    first, second = replicas(8101, 8102)
    adapted = replace(second, lora={"law": "path:/srv/law"})
    assert ways((first, adapted)) == ()
    assert len(ways((replace(first, lora={"law": "path:/srv/law"}), adapted))) == 3
    assert len(ways(replicas(*range(8101, 8101 + MOST)))) == 255
    assert ways(replicas(*range(8101, 8102 + MOST))) == ()
    assert "upstream farrier" not in site(replicas(8101))
    assert "and /v1/" not in site(replicas(*range(8101, 8102 + MOST)))


def test_no_path_hides_a_request_or_passes_a_closed_gate() -> None:
    engines = {8101: "tiny-1", 8102: "tiny-2"}
    text = site(replicas(*engines))
    whole = f"# configuration file /etc/nginx/nginx.conf:\nuser www-data; http {{ {text} }}\n"
    assert weaknesses(parse(whole), engines) == []
    for change, wanted in (
        (("open/tiny-2) { set", "open/tiny-1) { set"), "without the gate"),
        (('if ($farrier_open = "") { return 470; }', ""), "while no gate is open"),
        (("error timeout;", "error timeout non_idempotent;"), "is repeated"),
        (("least_conn;", "least_conn; keepalive 4;"), "is kept"),
        (("server 127.0.0.1:8101 ", "server 127.0.0.1:8102 "), "without the gate"),
    ):
        broken = whole.replace(*change)
        assert broken != whole
        found = weaknesses(parse(broken), engines)
        assert found
        assert all(wanted in one for one in found), found


def test_a_key_counts_and_is_barred_by_the_model(tmp_path: Path) -> None:
    keys = {"bob": ApiKey.of("bob", "b" * 20, models=("other",), streams=2, requests_per_minute=6)}
    spec = HostSpec("gpu01", groups=("gpu",), models=replicas(8101, 8102), api_keys=keys)
    settings = nginx.DEFAULTS.data()
    text = nginx.site_text(spec, settings, clients(spec, settings))
    (way,) = re.findall(r"location \^~ /v1/ \{(.*?)\n    \}", text, re.DOTALL)
    steps = [line.strip() for line in way.splitlines() if line.strip()]
    assert steps[1:3] == [
        "if ($farrier_stranger) { return 471; }",
        "if ($farrier_barred_1) { return 473; }",
    ]
    assert "limit_req zone=farrier_rate_6 burst=5 nodelay;" in steps
    assert "limit_conn farrier_streams_2 2;" in steps


def test_requests_go_to_the_replica_with_the_fewest(two: Host, tmp_path: Path) -> None:
    held = tmp_path / "held"
    held.touch()
    tmp_path.chmod(0o755)
    takers: list[int] = []
    threads = [
        threading.Thread(target=lambda: takers.append(two.taker(X_Hold_While=str(held))))
        for _ in range(6)
    ]
    for number, thread in enumerate(threads, 1):
        thread.start()
        until(lambda wanted=number: sockets(two.ports) == wanted)  # type: ignore[misc]
    held.unlink()
    for thread in threads:
        thread.join()
    assert Counter(takers) == {1: 3, 2: 3}
    assert Counter(one["replica"] for one in two.logged(6)) == {"tiny-1": 3, "tiny-2": 3}


def sockets(ports: Sequence[int]) -> int:
    """Requests in flight as a drain counts them: connections of nginx's to the engines' ports."""
    wanted = {f"{port:04X}" for port in ports}
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return sum(
        fields[2].rpartition(":")[2] in wanted and fields[3] == "01"
        for fields in map(str.split, lines)
    )


def test_a_closed_gate_is_not_asked(two: Host) -> None:
    two.open(2)
    assert {two.taker() for _ in range(8)} == {2}
    two.open(1)
    assert {two.taker() for _ in range(8)} == {1}
    assert two.ask("/replicas/tiny-2/v1/models")[0] == 503
    two.open()
    status, said, answer = two.ask()
    assert (status, said["error"]["code"]) == (503, "replica_not_ready")
    assert answer.headers["Retry-After"] == "5"
    two.open(1, 2)
    assert {two.taker() for _ in range(8)} == {1, 2}


def test_what_refuses_the_connection_is_tried_elsewhere_with_its_whole_body(tmp_path: Path) -> None:
    """Both gates are open, as in the moment after an engine's crash; nothing was executed there."""
    ports = free_port(), free_port()
    big = b'{"x": "' + b"y" * 3_000_000 + b'"}'
    with echo(ports[1]), host(tmp_path, *ports) as it:
        for _ in range(8):
            status, got, _ = it.ask(body=big)
            assert (status, got["port"], got["body"]) == (200, ports[1], len(big))
        logged = it.logged(8)
    assert {one["replica"] for one in logged} == {"tiny-2"}
    assert "502, 200" in {one["engine_status"] for one in logged}


def test_a_slow_upload_is_in_flight_and_arrives_whole(tmp_path: Path) -> None:
    ports = free_port(), free_port()
    with echo(ports[1]), host(tmp_path, *ports) as it:
        it.open(1, 2)
        with socket.create_connection(("127.0.0.1", it.port), timeout=30) as one:
            one.sendall(
                b"POST /v1/x HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 200000\r\n"
                b"\r\n" + b"a" * 1000
            )
            until(lambda: sockets(ports) == 1)
            one.sendall(b"a" * 199_000)
            answer = b"".join(iter(lambda: one.recv(65536), b""))
    assert b'"body": 200000' in answer


def test_nobody_listens(tmp_path: Path) -> None:
    with host(tmp_path, free_port(), free_port()) as it:
        status, said, _ = it.ask()
        assert (status, said["error"]["code"]) == (502, "engine_failed")


def test_what_an_engine_may_have_begun_is_never_repeated(two: Host) -> None:
    """Only what only looks may be: nginx takes a GET for one that can be asked twice."""
    for body in (BODY, b"{" + b" " * 500_000 + b"}"):
        assert two.ask(body=body, X_Answer="break")[0] == 502
    for status in (500, 502, 503, 504, 429, 425):
        answered = two.ask(X_Answer=str(status))[0]
        assert answered == (502 if status == 425 else status)
    assert [one["engine_status"] for one in two.logged(8)] == [
        *("502", "502", "500", "502", "503", "504", "429", "425"),
    ]


def test_each_replica_takes_no_more_than_it_may(tmp_path: Path) -> None:
    ports = free_port(), free_port()
    held = tmp_path / "held"
    held.touch()
    with ExitStack() as running:
        for port in ports:
            running.enter_context(echo(port))
        it = running.enter_context(host(tmp_path, *ports, nginx_max_requests=2))
        threads = [
            threading.Thread(target=it.ask, kwargs={"X_Hold_While": str(held)}) for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        until(lambda: sockets(ports) == 4)
        status, said, answer = it.ask()
        assert (status, said["error"]["code"]) == (429, "saturated")
        assert answer.headers["Retry-After"] == "1"
        held.unlink()
        for thread in threads:
            thread.join()
        assert it.taker() in {1, 2}


def test_a_stream_goes_through_and_one_that_was_left_is_not_whole(tmp_path: Path) -> None:
    with ExitStack() as running:
        (first, _), (second, _) = (running.enter_context(engine()) for _ in range(2))
        it = running.enter_context(host(tmp_path, first.port, second.port))
        one = http.client.HTTPConnection("127.0.0.1", it.port, timeout=30)
        body = {"model": "tiny", "messages": [], "max_tokens": 4, "stream": True}
        one.request("POST", "/v1/chat/completions", json.dumps(body))
        assert one.getresponse().read().endswith(b"data: [DONE]\n\n")
        one.close()
        body["max_tokens"] = 100_000
        left = http.client.HTTPConnection("127.0.0.1", it.port, timeout=30)
        left.request("POST", "/v1/chat/completions", json.dumps(body))
        assert left.getresponse().readline().startswith(b"data: ")
        assert left.sock is not None
        left.sock.shutdown(socket.SHUT_RDWR)
        left.close()
        whole, cut = it.logged(2)
    assert (whole["completion"], whole["status"]) == ("OK", 200)
    assert (cut["completion"], cut["status"]) == ("", 200)
    assert {whole["replica"], cut["replica"]} <= {"tiny-1", "tiny-2"}
