"""The load through real nginx and HAProxy: their own logs, the engines' account and the ledger."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from farrier.load import Background, Endpoint, Ledger, Plan, run
from tests.agent.host import free_port, until
from tests.agent.standin import Client, engine
from tests.proxies import certificate, haproxy, nginx

NOBODY: dict[str, Any] = {"streams": 0, "posts": 0, "uploads": 0, "fresh": 0.0}
EACH: dict[str, Any] = {
    "models": ("tiny",),
    "streams": 6,
    "posts": 6,
    "uploads": 2,
    "fresh": 5.0,
    "seconds": 3.0,
    "stream_seconds": (0.2, 1.5),
    "upload_seconds": 0.5,
    "pause": 0.05,
}


def executed(*engines: Client) -> Counter[str]:
    return sum((Counter(one.executed()["requests"]) for one in engines), Counter[str]())


def backend(*engines: Client) -> str:
    """HAProxy's, whose servers are named in the answers."""
    servers = "\n".join(
        f"    server gpu0{number}:tiny 127.0.0.1:{one.port}"
        for number, one in enumerate(engines, start=1)
    )
    return (
        "backend tiny\n    balance leastconn\n    option httpclose\n"
        f"    http-response set-header X-Farrier-Server %s\n{servers}\n"
    )


def test_a_reload_of_nginx_drops_on_kept_connections_and_every_drop_is_counted(
    tmp_path: Path,
) -> None:
    """nginx closes idle connections at once when it reloads (until keepalive_min_timeout, 1.27.4).

    What a client sent meanwhile is answered by nobody. The ledger has to agree with nginx's log:
    one line per request that nginx got, so neither a drop that is forgotten nor a hidden repetition
    goes unseen.
    """
    port, log = free_port(), tmp_path / "access.log"
    answer = (
        '{"model":"tiny","choices":[{"finish_reason":"length"}],"usage":{"completion_tokens":4}}'
    )
    site = (
        f"log_format names '$http_x_request_id'; access_log {log} names;\n"
        f"server {{ listen 127.0.0.1:{port}; keepalive_requests 1000000;"
        f" default_type application/json; return 200 '{answer}'; }}"
    )
    plan = Plan(**(NOBODY | {"models": ("tiny",), "posts": 32, "pause": 0.002, "seconds": 60.0}))
    with nginx(tmp_path, port, site) as proxy:
        endpoint = Endpoint(f"http://127.0.0.1:{port}")
        with Background(plan, endpoint) as background:
            ledger = background.ledger
            until(lambda: ledger.outcomes["complete"] > 100)
            end = time.monotonic() + 20
            reloads = 0
            while not ledger.outcomes["dropped"] and time.monotonic() < end:
                before = proxy.workers()
                proxy.reload()
                reloads += 1
                until(lambda: not before & proxy.workers())  # noqa: B023
            background.end()
        until(lambda: len(log.read_text().splitlines()) >= ledger.outcomes["complete"])
    logged = Counter(log.read_text().split())
    print(f"{reloads} reloads: {dict(ledger.outcomes)}")
    assert set(ledger.outcomes) <= {"complete", "dropped"}
    assert ledger.outcomes["dropped"], "no reload dropped anything: this shows nothing"
    assert all(one.reused for one in ledger.of("dropped"))
    assert ledger.dropped_on_kept == ledger.lost
    assert max(logged.values()) == 1
    assert {one.name for one in ledger.of("complete")} <= set(logged)


def test_haproxy_names_its_servers_and_a_killed_one_is_all_that_is_lost(tmp_path: Path) -> None:
    port = free_port()
    with engine() as (one, process), engine() as (other, _):
        front = f"frontend in\n    bind 127.0.0.1:{port}\n    default_backend tiny\n"
        with haproxy(tmp_path, port, front + backend(one, other)):
            plan = Plan(**(EACH | {"seconds": 30.0, "uploads": 0}))
            with Background(plan, Endpoint(f"http://127.0.0.1:{port}")) as background:
                ledger = background.ledger
                until(lambda: set(ledger.servers) == {"gpu01:tiny", "gpu02:tiny"})
                until(lambda: ledger.at_work("stream") == plan.streams)
                before = executed(one)
                killed = ledger.now
                process.kill()
                process.wait()
                until(lambda: ledger.of("complete", since=killed + 1))
            account = before + executed(other)
    assert ledger.lost > 0
    # HAProxy breaks the stream off, or gives 502; but to a request that is not the first on its
    # connection it gives nothing and closes, in the hope that the client asks again. A refused
    # connection becomes its own 503, which is no clear refusal as it stands.
    for lost in ledger.losses():
        assert lost.ended >= killed, lost
        assert (lost.outcome, lost.status) in {
            ("incomplete", 200),
            ("incomplete", 502),
            ("wrong", 503),
            ("dropped", 0),
        }, lost
    assert all(one.reused for one in ledger.of("dropped"))
    first, second = (ledger.servers[f"gpu0{number}:tiny"] for number in (1, 2))
    assert first.last <= killed + 0.1
    assert second.last > killed + 1
    assert ledger.faults(account | dict.fromkeys(_of_first(ledger) - set(account), 1)) == []


def _of_first(ledger: Ledger) -> set[str]:
    """What the killed engine may have begun after its account was read: it was served."""
    return {one.name for one in ledger.of("complete") if one.server == "gpu01:tiny"}


def test_a_reload_of_haproxy_loses_no_stream(tmp_path: Path) -> None:
    port = free_port()
    with engine() as (one, _):
        front = f"frontend in\n    bind 127.0.0.1:{port}\n    default_backend tiny\n"
        with haproxy(tmp_path, port, front + backend(one)) as proxy:
            plan = Plan(**(EACH | {"seconds": 30.0, "pause": 1.0, "keep_alive": False}))
            with Background(plan, Endpoint(f"http://127.0.0.1:{port}")) as background:
                ledger = background.ledger
                until(lambda: ledger.at_work("stream") == plan.streams)
                before = proxy.workers()
                reloaded = ledger.now
                proxy.reload()
                until(lambda: proxy.workers() - before)
                until(lambda: ledger.of("complete", since=reloaded + 1))
        account = executed(one)
    assert ledger.outcomes == {"complete": len(ledger.requests)}
    assert ledger.faults(account) == []


def test_tls_is_checked_against_the_ca_that_was_given(tmp_path: Path) -> None:
    port = free_port()
    ca, pair = certificate(tmp_path)
    with engine() as (one, _):
        bind = f"bind 127.0.0.1:{port} ssl crt {pair} alpn h2,http/1.1"
        front = f"frontend in\n    {bind}\n    default_backend tiny\n"
        with haproxy(tmp_path, port, front + backend(one)):
            url = f"https://127.0.0.1:{port}"
            trusted = asyncio.run(run(Plan(**EACH), Endpoint(url, ca=ca)))
            stranger = asyncio.run(run(Plan(**(EACH | {"seconds": 1.0})), Endpoint(url)))
        account = executed(one)
    assert trusted.outcomes == {"complete": len(trusted.requests)}
    assert trusted.faults(account) == []
    assert set(stranger.outcomes) == {"unreached"}
    assert "not trusted" in stranger.requests[0].detail
    assert pytest.approx(trusted.seconds, abs=6) == 3


# -- HTTP/2 --------------------------------------------------------------------------------------

TWO: dict[str, Any] = EACH | {"http2": True, "slow": 1, "vanish": 1}


@pytest.mark.parametrize("tls", [True, False])
def test_http2_serves_every_kind(tmp_path: Path, tls: bool) -> None:
    port = free_port()
    ca, pair = certificate(tmp_path)
    with engine() as (one, _):
        how = f"ssl crt {pair} alpn h2,http/1.1" if tls else "proto h2"
        front = f"frontend in\n    bind 127.0.0.1:{port} {how}\n    default_backend tiny\n"
        with haproxy(tmp_path, port, front + backend(one)):
            url = f"http{'s' * tls}://127.0.0.1:{port}"
            ledger = asyncio.run(run(Plan(**TWO), Endpoint(url, ca=ca if tls else None)))
        account = executed(one)
    assert set(ledger.outcomes) == {"complete", "vanished"}, ledger.losses()
    kinds = {kind for kind, end in ledger.counts if end == "complete"}
    assert kinds == {"stream", "post", "upload", "fresh", "slow"}
    assert ledger.faults(account) == []
    assert set(ledger.servers) == {"gpu01:tiny"}


def test_a_server_without_http2_is_told(tmp_path: Path) -> None:
    port = free_port()
    ca, pair = certificate(tmp_path)
    with engine() as (one, _):
        front = f"frontend in\n    bind 127.0.0.1:{port} ssl crt {pair}\n    default_backend tiny\n"
        with haproxy(tmp_path, port, front + backend(one)):
            plan = Plan(**(TWO | {"seconds": 1.0}))
            ledger = asyncio.run(run(plan, Endpoint(f"https://127.0.0.1:{port}", ca=ca)))
    assert set(ledger.outcomes) == {"unreached"}
    assert "ALPN" in ledger.requests[0].detail


def test_a_reload_of_haproxy_loses_nothing_in_http2(tmp_path: Path) -> None:
    """It says GOAWAY: what it did not touch goes to the next connection, and is counted."""
    port = free_port()
    with engine() as (one, _):
        front = f"frontend in\n    bind 127.0.0.1:{port} proto h2\n    default_backend tiny\n"
        with haproxy(tmp_path, port, front + backend(one)) as proxy:
            plan = Plan(**(TWO | {"seconds": 60.0, "vanish": 0, "slow": 0}))
            with Background(plan, Endpoint(f"http://127.0.0.1:{port}")) as background:
                ledger = background.ledger
                for _ in range(3):
                    until(lambda: ledger.at_work("stream") >= plan.streams - 1)
                    before, reloaded = proxy.workers(), ledger.now
                    proxy.reload()
                    until(lambda: proxy.workers() - before)  # noqa: B023
                    until(lambda: ledger.of("complete", since=reloaded + 1))  # noqa: B023
        account = executed(one)
    print(f"repeats: {sum(request.repeats for request in ledger.requests)}")
    assert ledger.outcomes == {"complete": len(ledger.requests)}, ledger.losses()
    assert ledger.faults(account) == []


def test_http2_sees_a_killed_engine(tmp_path: Path) -> None:
    port = free_port()
    with engine() as (one, process):
        front = f"frontend in\n    bind 127.0.0.1:{port} proto h2\n    default_backend tiny\n"
        with haproxy(tmp_path, port, front + backend(one)):
            plan = Plan(**(TWO | {"seconds": 60.0, "vanish": 0, "slow": 0}))
            with Background(plan, Endpoint(f"http://127.0.0.1:{port}")) as background:
                ledger = background.ledger
                until(lambda: ledger.at_work("stream") == plan.streams)
                process.kill()
                until(lambda: ledger.outcomes["wrong"])
    broken = ledger.of("incomplete")
    streams = [one for one in broken if one.kind == "stream"]
    assert len(streams) >= plan.streams // 2
    # HAProxy 2.6 ends them with END_STREAM, as if they were whole: only [DONE] is missing
    assert {one.status for one in streams} == {200}
    # afterwards HAProxy's own 503, which says neither why nor when
    assert {one.status for one in ledger.of("wrong")} == {503}
