"""The gateway on hosts: HAProxy 3.0 and 2.6 (Debian 13 and 12) before real nginx and agents.

One of both versions where the time counts; `make test-full PART=gateways` has every way on both.
"""

from __future__ import annotations

import http.client
import json
import ssl
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.fleet.site import Site
from tests.roles.fleet import until

GATEWAYS = ("gw01", "gw02")
STREAM_SECONDS = 5


class Load:
    """Streams and kept-alive POSTs through one gateway, each under a name of its own."""

    def __init__(self, site: Site, gateway: str, prefix: str) -> None:
        self.site = site
        self.gateway = gateway
        self.prefix = prefix
        self.outcomes: Counter[str] = Counter()
        self.names: set[str] = set()
        self._stop = threading.Event()
        self._lock = threading.Lock()

    def _send(self, connection: http.client.HTTPConnection, name: str, *, stream: bool) -> str:
        tokens = STREAM_SECONDS * 50 if stream else 2
        body = {"model": "tiny", "user": name, "max_tokens": tokens, "stream": stream}
        headers = {
            "Authorization": f"Bearer {self.site.key}",
            "Content-Type": "application/json",
            "X-Request-ID": name,
        }
        try:
            message = [{"role": "user", "content": "hello " * 200}]
            data = json.dumps(body | {"messages": message})
            connection.request("POST", "/v1/chat/completions", data, headers)
            answer = connection.getresponse()
            text = answer.read()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            return f"lost: {error!r}"
        if answer.status != 200:
            return f"status {answer.status}"
        return "complete" if not stream or text.endswith(b"data: [DONE]\n\n") else "cut"

    def _loop(self, number: int, *, stream: bool) -> None:
        address = self.site.addresses[self.gateway]
        connection = http.client.HTTPConnection(address, timeout=60)
        count = 0
        while not self._stop.is_set():
            name = f"{self.prefix}-{'s' if stream else 'p'}{number}-{count}"
            outcome = self._send(connection, name, stream=stream)
            with self._lock:
                self.outcomes[outcome] += 1
                self.names.add(name)
            count += 1
            self._stop.wait(0.02)
        connection.close()

    @contextmanager
    def running(self, streams: int = 12, posts: int = 8) -> Iterator[None]:
        """Run it while the block runs, and until everything that was begun is over."""
        threads = [
            threading.Thread(target=self._loop, args=(number,), kwargs={"stream": stream})
            for stream, many in ((True, streams), (False, posts))
            for number in range(many)
        ]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._stop.set()
            for thread in threads:
                thread.join()

    def nothing_lost(self) -> None:
        """Every request was answered in full, and executed once."""
        assert self.outcomes.keys() == {"complete"}, self.outcomes
        executed = self.site.executed(self.prefix)
        assert executed.keys() == self.names
        assert set(executed.values()) == {1}


@pytest.mark.parametrize("gateway", GATEWAYS)
def test_each_model_is_served_by_its_replicas(site: Site, gateway: str) -> None:
    assert site.models(gateway) == ["solo", "tiny"]
    names = [f"share-{gateway}-{number}" for number in range(12)]
    for name in names:
        assert site.chat(gateway, user=name).status == 200
        assert site.chat(gateway, "solo", user=f"{name}-solo").status == 200
    executed = site.executed(f"share-{gateway}")
    assert executed == Counter([*names, *(f"{name}-solo" for name in names)])


@pytest.mark.parametrize("gateway", GATEWAYS)
def test_keys_and_their_limits(site: Site, gateway: str) -> None:
    body = {"model": "tiny", "messages": [], "max_tokens": 1}
    assert site.request(gateway, "/v1/chat/completions", body=body).status == 401
    assert site.chat(gateway, "solo", key=site.keys["tiny-only"]).status == 403
    assert site.models(gateway, site.keys["tiny-only"]) == ["tiny"]
    slow = [site.chat(gateway, key=site.keys["slow"]).status for _ in range(4)]
    assert slow == [200, 200, 200, 429]


@pytest.mark.parametrize("gateway", GATEWAYS)
def test_tls_with_the_labs_authority(site: Site, gateway: str) -> None:
    context = ssl.create_default_context(cafile=str(site.lab.ca))
    connection = http.client.HTTPSConnection(
        site.addresses[gateway], 443, context=context, timeout=20
    )
    connection.request("GET", "/v1/models", headers={"Authorization": f"Bearer {site.key}"})
    assert connection.getresponse().status == 200
    connection.close()


@pytest.mark.parametrize(
    ("gateway", "command"),
    [
        ("gw01", "systemctl reload haproxy"),
        ("gw02", "systemctl restart haproxy"),
        ("gw01", "apt-get -q -y install --reinstall haproxy"),
        ("gw02", "systemctl restart nginx"),
    ],
    ids=["reload", "restart", "upgrade", "nginx"],
)
def test_nothing_is_lost_while(site: Site, gateway: str, command: str) -> None:
    prefix = f"{gateway}-{command.split()[-2]}-{time.monotonic_ns()}"
    load = Load(site, gateway, prefix)
    with load.running():
        until(lambda: load.outcomes["complete"] > 50, 30, "the load runs")
        site.root("gpu01" if command.endswith("nginx") else gateway, command)
        until(lambda: len(load.names) > 300, 60, "the load goes on")
    load.nothing_lost()


@pytest.mark.parametrize("gateway", ["gw02"])
def test_a_drain_loses_nothing(site: Site, gateway: str) -> None:
    load = Load(site, gateway, f"{gateway}-drain-{time.monotonic_ns()}")
    with load.running():
        until(lambda: load.outcomes["complete"] > 50, 30, "the load runs")
        site.root("gpu01", "farrier-agent drain tiny --wait", check=False)
        until(lambda: site.phase("gpu01") == "drained", 60, "gpu01 is drained")
        site.root("gpu01", "farrier-agent ready tiny")
        until(lambda: site.ready("gpu01"), 60, "gpu01 serves again")
    load.nothing_lost()


@pytest.mark.parametrize("gateway", ["gw01"])
def test_a_configuration_that_is_none_changes_nothing(site: Site, gateway: str) -> None:
    config = "/etc/haproxy/haproxy.cfg"
    site.root(gateway, f"cp -p {config} /root/kept && echo nonsense >>{config}")
    try:
        load = Load(site, gateway, f"{gateway}-bad-{time.monotonic_ns()}")
        with load.running(streams=4, posts=4):
            until(lambda: load.outcomes["complete"] > 20, 30, "the load runs")
            for verb in ("reload", "restart"):
                said = site.root(gateway, f"systemctl {verb} haproxy || echo refused", check=False)
                assert "refused" in said
                assert site.chat(gateway).status == 200
        load.nothing_lost()
    finally:
        site.root(
            gateway,
            f"mv -f /root/kept {config} && systemctl reset-failed haproxy; systemctl start haproxy",
        )
    assert site.unit(gateway, "haproxy", "ActiveState") == "active"


@pytest.mark.parametrize("gateway", ["gw02"])
def test_a_stop_waits_for_what_runs(site: Site, gateway: str) -> None:
    load = Load(site, gateway, f"{gateway}-stop-{time.monotonic_ns()}")
    with load.running(streams=6, posts=0):
        until(lambda: len(site.executed(load.prefix)) == 6, 30, "six streams run")
        load._stop.set()
        site.root(gateway, "systemctl stop haproxy")
    load.nothing_lost()
    site.root(gateway, "systemctl start haproxy")
    until(lambda: len(site.models(gateway)) == 2, 30, f"{gateway} serves again")


def test_systemd_has_read_what_the_first_converge_added(site: Site) -> None:
    """Debian 12's does not notice by itself that a drop-in's directory is new."""
    for host in (*GATEWAYS, *site.gpus):
        service = "haproxy.service" if host in GATEWAYS else "nginx.service"
        drop_in = f"/etc/systemd/system/{service}.d/farrier.conf"
        assert drop_in in site.unit(host, service, "DropInPaths").split()


def test_a_second_converge_changes_nothing(site: Site) -> None:
    run = site.converge(timeout=900)
    assert run.returncode == 0, run.last_words(40)
    for gateway in GATEWAYS:
        assert not [name for name in run.changed(gateway) if name.startswith("Gateway")]
