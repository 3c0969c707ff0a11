"""The gateway, stopped, cut off, poisoned and flooded: nothing is lost (15 min).

HAProxy 3.0 and 2.6 (Debian 13 and 12) before three hosts; the engines are stand-ins. The clients'
ledger, the engines' accounts and HAProxy's log have to tell the same. What is measured is printed
(pytest -s).
"""

from __future__ import annotations

import json
import time

import pytest

from farrier.load import Plan
from tests.fleet.accounts import agree, busy, dropped, load, logged, replicas
from tests.fleet.disturbing import down, drained, lost_checks
from tests.fleet.site import Site
from tests.roles.fleet import until

GATEWAYS = ("gw01", "gw02")
MIXED = Plan(
    models=("tiny",),
    seconds=600,
    streams=12,
    stream_seconds=(1, 5),
    posts=10,
    fresh=10,
    uploads=3,
    upload_bytes=65_536,
)
"""Kept and fresh connections, streams, short requests and slow uploads, until the test ends it."""
STREAMS = 1000


@pytest.fixture(params=GATEWAYS)
def gateway(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


# ---- what people do to it ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "command",
    [
        "systemctl reload haproxy",
        "systemctl restart haproxy",
        "apt-get -q -y install --reinstall haproxy",
        "systemctl restart nginx",
    ],
)
def test_nothing_is_lost_while(site: Site, gateway: str, command: str) -> None:
    with load(site, gateway, MIXED) as it:
        until(lambda: it.ledger.at_work("stream") > 6, 60, "streams run")
        for _ in range(3):
            site.root("gpu01" if command.endswith("nginx") else gateway, command)
            busy(it, 60)
    agree(site, gateway, it.ledger)


def test_one_of_two_gateways_stops_as_planned(site: Site, gateway: str) -> None:
    (other,) = set(GATEWAYS) - {gateway}
    with load(site, other, MIXED) as beside, load(site, gateway, MIXED) as it:
        until(lambda: it.ledger.at_work("stream") > 6, 60, "streams run")
        busy(it)
        began = time.monotonic()
        site.root(gateway, "systemctl stop haproxy")
        print(f"{gateway}: stopped within {time.monotonic() - began:.1f} s")
        stopped = it.ledger.now
        until(lambda: it.ledger.of("unreached", since=stopped), 30, "nobody is let in any more")
        assert not it.ledger.at_work("stream")
        assert not it.ledger.of("complete", since=stopped)
        site.root(gateway, "systemctl start haproxy")
        until(lambda: it.ledger.of("complete", since=stopped), 60, "it serves again")
        busy(it)
        busy(beside)
    agree(site, gateway, it.ledger, "unreached")
    agree(site, other, beside.ledger)


# ---- blind and deaf --------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["reload", "restart"])
def test_reloaded_while_the_agent_of_a_drained_host_is_dead(
    site: Site, gateway: str, verb: str
) -> None:
    with load(site, gateway, MIXED) as it:
        busy(it)
        with drained(site, "gpu01", frozen=True):
            before = it.ledger.now
            site.root(gateway, f"systemctl {verb} haproxy")
            after = it.ledger.now
            busy(it, 100)
            until(lambda: it.ledger.now > after + 5, 30, "its checks have all been made")
            ended = it.ledger.now
    agree(site, gateway, it.ledger)
    log = logged(site, gateway, it.ledger.prefix)
    meanwhile = [
        log[one.name][-1] for one in it.ledger.requests if before < one.began and one.ended < ended
    ]
    assert len(meanwhile) > 50
    assert not [line for line in meanwhile if line["replica"] == "gpu01:tiny"]
    # It was not even asked: the new HAProxy knows what the one before it knew.
    assert not [line for line in meanwhile if line["retries"] != "0"]


def test_cut_off_from_every_check_it_routes_on(site: Site, gateway: str) -> None:
    with load(site, gateway, MIXED) as it:
        busy(it)
        with lost_checks(site, gateway):
            until(lambda: down(site, gateway) >= 4, 60, "no host answers its check")
            busy(it, 100)
            with drained(site, "gpu01"):
                before = site.executed(it.ledger.prefix).total()
                begun = it.ledger.now
                busy(it, 100)
                assert site.executed(it.ledger.prefix).total() > before
                ended = it.ledger.now
        until(lambda: not down(site, gateway), 30, "every host answers its check")
        busy(it)
    agree(site, gateway, it.ledger)
    log = logged(site, gateway, it.ledger.prefix)
    found = {
        one.name: log[one.name]
        for one in it.ledger.requests
        if begun < one.began and one.ended < ended
    }
    assert replicas(found).keys() == {"gpu02:tiny", "gpu03:tiny"}


# ---- clients and prompts that do harm --------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_a_poison_prompt_is_executed_once(site: Site, gateway: str, stream: bool) -> None:
    poison = f"poison-{time.monotonic_ns()}"
    for host in site.gpus:
        site.manners(host, dies_on=poison)
    message = [{"role": "user", "content": f"tell me of {poison}"}]
    name = f"{gateway}-{poison}"
    try:
        answer = site.chat(gateway, user=name, messages=message, stream=stream)
        assert answer.status == 502
        assert answer.json()["error"]["code"] == "engine_failed"
        assert site.executed(name) == {name: 1}
        assert site.chat(gateway).status == 200, "the others serve"
    finally:
        for host in site.gpus:
            # The agent may not have noticed yet that its engine died.
            alive = "curl -sS 127.0.0.1:8101/health -o /dev/null -w %{http_code}"
            until(lambda: site.ssh(host, alive, check=False) == "200", 60, f"{host} is back")  # noqa: B023
            until(lambda: site.ready(host), 60, f"{host} serves")  # noqa: B023
            site.manners(host, dies_on="")
    assert site.executed(name) == {name: 1}


def test_clients_that_read_slowly_or_vanish(site: Site, gateway: str) -> None:
    plan = Plan(
        models=("tiny",),
        seconds=600,
        streams=4,
        stream_seconds=(2, 4),
        posts=4,
        fresh=5,
        uploads=0,
        slow=6,
        slow_bytes=4096,
        vanish=20,
    )
    with load(site, gateway, plan) as it:
        until(lambda: it.ledger.counts["slow", "complete"] >= 6, 120, "slow clients are served")
        until(lambda: it.ledger.counts["vanish", "vanished"] >= 60, 60, "clients vanish")
    agree(site, gateway, it.ledger, "vanished")
    for host in site.gpus:
        # The engines do not go on for clients that are gone.
        until(lambda: running(site, host) == 0, 30, f"{host} rests")  # noqa: B023


def running(site: Site, host: str) -> int:
    """How many requests the host's engine of tiny executes."""
    said = json.loads(site.ssh(host, "curl -sS 127.0.0.1:8101/executed"))
    return int(said["running"])


def test_a_thousand_streams_at_once(site: Site, gateway: str) -> None:
    plan = Plan(
        models=("tiny",),
        seconds=600,
        requests=STREAMS,
        streams=STREAMS,
        stream_seconds=(50, 60),
        seconds_per_token=2.0,
        posts=0,
        fresh=0,
        uploads=0,
    )
    for host in site.gpus:
        site.manners(host, token_delay=2.0)
        # The inventory's gateway_replica_requests, which are 256 for each of the three.
        _raise(site, gateway, host)
    before = memory(site, gateway)
    try:
        with load(site, gateway, plan) as it:
            until(lambda: it.ledger.at_work("stream") == STREAMS, 50, "all of them run")
            during = memory(site, gateway)
            until(lambda: len(it.ledger.requests) == STREAMS, 180, "all of them are over")
            # They end nearly at once, faster than journald may read: HAProxy waits for nobody. It
            # logs one, or counts it as not logged, after its client has its end.
            until(
                lambda: (
                    len(logged(site, gateway, it.ledger.prefix)) + dropped(site, gateway) >= STREAMS
                ),
                30,
                "every stream is logged or counted",
            )
            unlogged = dropped(site, gateway)
    finally:
        for host in site.gpus:
            site.manners(host, token_delay=0.02)
        site.root(gateway, "systemctl restart haproxy")
    agree(site, gateway, it.ledger, unlogged=unlogged)
    first = it.ledger.to_first_token("stream").to_json()
    print(
        f"{gateway}: {STREAMS} streams, memory {before} -> {during} MiB, first token {first},"
        f" {unlogged} not logged"
    )
    # What the role reckons with: two buffers of gateway_max_body_kib for each request.
    assert during - before < STREAMS * 2.1


def _raise(site: Site, gateway: str, host: str) -> None:
    said = f"set maxconn server tiny/{host}:tiny 400"
    site.root(gateway, f"echo '{said}' | socat stdio /run/haproxy/admin.sock")


def memory(site: Site, gateway: str) -> float:
    """MiB of HAProxy's processes that are nobody else's."""
    text = site.root(
        gateway,
        "for pid in $(pgrep -x haproxy); do grep -h ^Private_ /proc/$pid/smaps_rollup; done",
    )
    return round(sum(int(line.split()[1]) for line in text.splitlines()) / 1024, 1)
