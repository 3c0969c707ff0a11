"""The commands of an operator, as typed: status, drain, ready, logs, exec and audit.

On the fleet's hosts, with real requests under way where a drain has to wait for them.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.fleet.site import Site
from tests.roles.fleet import until


@pytest.fixture
def _drained(site: Site) -> Iterator[None]:
    """What a test drained serves again after it."""
    yield
    site.farrier("ready", "gpu", timeout=120)
    site.settle()


def rows(output: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output.splitlines()]


def replica(site: Site, host: str, name: str = "tiny") -> dict[str, Any]:
    (row,) = rows(site.farrier("status", "--json", host).stdout)
    found: dict[str, Any] = next(one for one in row["replicas"] if one["replica"] == name)
    return found


# status


def test_status_shows_every_host(site: Site) -> None:
    said = rows(site.farrier("status", "--json").stdout)
    assert [row["host"] for row in said] == sorted(site.addresses)
    for row in said:
        assert row["error"] is None
        assert row["agent_version"]
    (third,) = [row for row in said if row["host"] == "gpu03"]
    found = {(one["replica"], one["phase"], one["gate"]) for one in third["replicas"]}
    assert found == {("solo", "ready", "open"), ("tiny", "ready", "open")}
    table = site.farrier("status").stdout
    assert "solo 1 of 1 ready; tiny 3 of 3 ready" in table
    assert "\x1b" not in table, "nobody watches: no colours"
    only = site.farrier("status", "gateway").stdout
    assert "gpu01" not in only


def test_a_host_that_does_not_answer_is_a_row_and_hides_none(site: Site) -> None:
    # its kernel accepts connections, its sshd says nothing, until systemd lets it go on
    timer = "systemd-run --quiet --on-active=25 --timer-property=AccuracySec=100ms"
    thaw = f"{timer} systemctl kill -s CONT ssh"
    site.root("gpu02", f"{thaw} && systemctl kill -s STOP --kill-whom=main ssh")
    try:
        began = time.monotonic()
        done = site.farrier("status", "--json", "--timeout", "8", check=1)
        took = time.monotonic() - began
    finally:
        until(lambda: site.ssh("gpu02", "echo on", check=False) == "on\n", 60, "gpu02 is back")
        site.settle()
    said = {row["host"]: row for row in rows(done.stdout)}
    assert said["gpu02"]["error"]["kind"] == "NoAnswerError"
    assert all(row["error"] is None for host, row in said.items() if host != "gpu02")
    assert took < 24, "it was not waited for until it went on"


def test_an_agent_that_is_stopped_is_told_with_the_step(site: Site) -> None:
    site.root("gpu02", "systemctl stop farrier-agent")
    try:
        done = site.farrier("status", "gpu01", "gpu02", check=1)
    finally:
        site.root("gpu02", "systemctl start farrier-agent")
        site.settle()
    assert "the agent does not answer" in done.stdout
    assert "systemctl status farrier-agent" in done.stdout
    assert "2 hosts: 1 ready, 1 without an answer" in done.stdout


# drain and ready


@pytest.mark.usefixtures("_drained")
def test_a_drain_lets_what_runs_finish(site: Site) -> None:
    answers: list[Any] = []

    def ask() -> None:
        answers.append(site.chat("gw01", max_tokens=600))

    for host in site.gpus:
        site.manners(host, token_delay=0.3)
    # the gateway gives each host one
    clients = [threading.Thread(target=ask) for _ in site.gpus]
    for client in clients:
        client.start()
    try:
        until(lambda: replica(site, "gpu01")["in_flight"] == 1, 20, "one is in flight")
        drain = site.start(["drain", "gpu01", "--reason", "ticket 4711"])
        assert drain.stdout is not None
        progress = next((line for line in drain.stdout if "1 in flight" in line), "")
    finally:
        for host in site.gpus:
            site.manners(host, token_delay=0.001)
        for client in clients:
            client.join()
        for host in site.gpus:
            site.manners(host, token_delay=0.02)
    said = drain.communicate(timeout=60)[0]
    assert drain.returncode == 0, said
    assert [answer.status for answer in answers] == [200, 200, 200]
    assert progress.startswith("gpu01/tiny: draining, 1 in flight"), "told while it goes on"
    assert "gpu01/tiny: drained, after " in said
    assert "1 in flight when it began" in said
    now = replica(site, "gpu01")
    assert (now["phase"], now["gate"], now["in_flight"]) == ("drained", "closed", 0)
    assert any("ticket 4711" in line for line in now["story"])
    assert not site.gate("gpu01")
    assert site.chat("gw01").status == 200, "the others serve"

    back = site.farrier("ready", "gpu01/tiny")
    assert "gpu01/tiny: ready, after " in back.stdout
    assert site.gate("gpu01")
    assert "ready already" in site.farrier("ready", "gpu01").stdout


@pytest.mark.usefixtures("_drained")
def test_drains_of_several_hosts_as_json(site: Site) -> None:
    done = site.farrier("drain", "gpu01", "gpu02/tiny", "--json", "--no-wait")
    said = rows(done.stdout)
    last = {one["host"]: one for one in said if one["kind"] == "done"}
    assert set(last) == {"gpu01", "gpu02"}
    assert all(one["results"][0]["code"] == 0 for one in last.values())
    until(lambda: replica(site, "gpu02")["phase"] == "drained", 30, "it drained by itself")


@pytest.mark.usefixtures("_drained")
def test_the_last_ready_replica_of_a_model_is_not_drained_by_the_way(site: Site) -> None:
    refused = site.farrier("drain", "gpu03/solo", check=3)
    assert "gpu03/solo would be the end of solo" in refused.stderr
    assert "--allow-gap" in refused.stderr
    assert replica(site, "gpu03", "solo")["phase"] == "ready"

    everybody = site.farrier("drain", "gpu", "--json", check=3)
    assert "would be the end of tiny" in rows(everybody.stdout)[0]["error"]
    assert all(site.gate(host) for host in site.gpus)

    site.farrier("drain", "gpu01")
    both = site.farrier("drain", "gpu02", "gpu03/tiny", check=3)
    assert "gpu01/tiny is drained" in both.stderr

    site.farrier("drain", "gpu03/solo", "--allow-gap")
    assert replica(site, "gpu03", "solo")["phase"] == "drained"
    assert replica(site, "gpu03")["phase"] == "ready", "the other replica was not meant"


def test_a_place_that_there_is_not(site: Site) -> None:
    wrong = site.farrier("drain", "gpu01/nix", check=2)
    assert "no replica nix there; there is gpu01/tiny" in wrong.stderr
    nothing = site.farrier("drain", "gw01", check=2)
    assert "nothing is served there" in nothing.stderr


# logs, exec, audit


def test_logs_of_engines_agents_and_gateways(site: Site) -> None:
    site.root("gpu01", "systemd-cat -t elsewhere echo not-this")
    engine = rows(site.farrier("logs", "gpu03/solo", "-n", "5", "--json").stdout)
    assert {(one["host"], one["unit"]) for one in engine} == {("gpu03", "engine-solo.service")}
    agents = site.farrier("logs", "gpu01", "gpu02", "--agent", "-n", "2").stdout
    assert " gpu01 farrier-agent | " in agents
    assert " gpu02 farrier-agent | " in agents
    assert agents.splitlines() == sorted(agents.splitlines(), key=lambda line: line[:19])
    site.chat("gw01")
    assert " haproxy | " in site.farrier("logs", "gw01", "-n", "3").stdout


def test_logs_are_followed_and_nothing_is_left_behind(site: Site) -> None:
    following = site.start(["logs", "gpu01", "gpu02", "-f", "-n", "0", "--unit", "cron"])
    there = "pgrep -fc 'journalctl.*--follow' || true"
    until(lambda: site.ssh("gpu01", f"sudo {there}").strip() != "0", 30, "it follows")
    site.root(
        "gpu01",
        "systemd-run --quiet --wait --unit=cron-test true; systemctl restart cron"
        " 2>/dev/null || systemctl restart farrier-agent",
    )
    following.terminate()
    following.wait(20)
    gone = "sudo pgrep -f '[j]ournalctl .*--follow' >/dev/null && echo there || echo gone"
    for host in ("gpu01", "gpu02"):
        until(lambda: site.ssh(host, gone) == "gone\n", 20, f"nothing is left on {host}")  # noqa: B023


def test_exec_runs_side_by_side_and_says_whose_line_it_is(site: Site) -> None:
    done = site.farrier("exec", "gpu", "--", "id -un; uname -n")
    for host in site.gpus:
        assert f"{host} | farrier\n" in done.stdout
        assert f"{host} | {host}\n" in done.stdout
    assert site.farrier("exec", "gpu01", "--sudo", "--", "id", "-un").stdout == "gpu01 | root\n"
    failed = site.farrier("exec", "gpu01", "gpu02", "--", "[ $(uname -n) = gpu01 ]", check=1)
    assert "gpu02 | ended with 1" in failed.stderr
    assert "gpu01" not in failed.stderr
    said = rows(site.farrier("exec", "gpu01", "--json", "--", "echo", "a b").stdout)
    assert said == [{"host": "gpu01", "code": 0, "stdout": "a b\n", "stderr": ""}]
    site.farrier("exec", "gpu01", check=2)


@pytest.mark.usefixtures("_drained")
def test_audit_tells_who_did_what_newest_last(site: Site) -> None:
    site.farrier("drain", "gpu01", "--reason", "first")
    site.farrier("ready", "gpu01")
    site.farrier("drain", "gpu02", "--reason", "second")
    said = rows(site.farrier("audit", "--json").stdout)
    assert [one["at"] for one in said] == sorted(one["at"] for one in said)
    drains = [one for one in said if one["verb"] == "drain" and one["outcome"].startswith("done")]
    assert [(one["host"], one["reason"]) for one in drains[-2:]] == [
        ("gpu01", "first"),
        ("gpu02", "second"),
    ]
    lines = site.farrier("audit", "gpu02", "-n", "5").stdout.splitlines()
    assert any("gpu02" in line and "drain tiny" in line and "second" in line for line in lines)
