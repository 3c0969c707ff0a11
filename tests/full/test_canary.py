"""Canaries: good, slower, failing; killed, given up and stopped while held; gateways (25 min)."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from farrier.load.background import Background
from tests.fleet.canaries import (
    BUSY,
    GOOD,
    SHARE,
    SLOW,
    configurations,
    no_share_is_left,
    put_back,
    shares,
    to,
)
from tests.fleet.rolling import (
    as_it_was,
    checkout,
    here,
    kill,
    load,
    nothing_lost,
    quickly,
    rollout,
    started,
    step_of,
    warmed_up,
)
from tests.fleet.site import Site, account
from tests.roles.fleet import until

__all__ = ["as_it_was", "here", "no_share_is_left"]

HOLD = ["--canary", "25%", "--hold", "20s"]
LONG = ["--canary", "25%", "--hold", "10m"]
STORY = "Tell me a story"
"""Is in every prompt of the load, and in none of the agent's."""


def executed_on(site: Site, host: str, prefix: str) -> set[str]:
    """The requests whose name begins with *prefix* that *host*'s engine began."""
    found = site.root(host, f"grep -hs {prefix} {account('tiny')} || true")
    return {one["begun"] for one in map(json.loads, found.splitlines()) if "begun" in one}


def only_the_canarys_are_lost(site: Site, it: Background) -> int:
    """How many requests were lost; every one was executed by gpu01, all others are whole."""
    ledger = it.end()
    lost = {one.name for one in ledger.of("incomplete", "aborted", "dropped", "wrong")}
    assert lost <= executed_on(site, "gpu01", ledger.prefix)
    assert not ledger.of("refused"), [one.detail for one in ledger.of("refused")][:5]
    twice = {name: n for name, n in site.executed(ledger.prefix, "tiny").items() if n > 1}
    assert twice == {}
    assert len(ledger.of("complete")) > 50
    return len(lost)


def held(site: Site, here: Path, process: subprocess.Popen[str]) -> None:
    """Return when gpu01 is held, and has its share on every gateway."""
    reached(here, process, "hold")
    assert set(shares(site).values()) == {"gpu01:tiny 25"}


def reached(here: Path, process: subprocess.Popen[str], step: str) -> None:
    """Return when gpu01 is at *step*; fail with what *process* said if it ended before."""

    def there() -> bool:
        if process.poll() is not None:
            pytest.fail(f"it ended with {process.returncode}:\n{process.communicate()[0]}")
        return step_of(here, "gpu01") == step

    quickly(there, 300, f"gpu01 is at {step}")


def test_a_good_version_goes_on_to_all_hosts(site: Site, here: Path) -> None:
    before = configurations(site)
    with load(site, BUSY, "gw01") as one, load(site, BUSY, "gw02") as two:
        warmed_up(one)
        warmed_up(two)
        ledger = rollout(
            site, "converge", "-y", *HOLD, cwd=here, environment=to(site, GOOD), timeout=900
        )
        nothing_lost(site, one)
        nothing_lost(site, two)
    assert ledger["outcome"] == "done"
    assert all(before[host] != now for host, now in configurations(site).items())
    assert [one["canary"] for one in ledger["hosts"]] == [True, False, False]
    (compared,) = ledger["hosts"][0]["compared"]
    assert compared["verdict"] == "as well", compared
    canary, rest = compared["canary"]["answers"], compared["rest"]["answers"]
    assert 0.15 < canary / (canary + rest) < 0.35, compared
    assert set(shares(site).values()) == {""}
    assert [one["shared"] for one in ledger["hosts"]] == [[], [], []]


@pytest.mark.parametrize("gateway", ["gw01", "gw02"])
def test_a_slower_version_is_put_back(site: Site, here: Path, gateway: str) -> None:
    with load(site, BUSY, gateway) as it:
        warmed_up(it)
        put_back(site, here, SLOW, *HOLD)
        nothing_lost(site, it)


@pytest.mark.parametrize("manner", ["500", "break"])
def test_a_version_that_fails_is_put_back(site: Site, here: Path, manner: str) -> None:
    options = ("--fails-on", STORY, "--fails-with", manner)
    with load(site, BUSY) as it:
        warmed_up(it)
        ledger = put_back(site, here, options, *LONG)
        lost = only_the_canarys_are_lost(site, it)
    (compared,) = ledger["hosts"][0]["compared"]
    assert compared["canary"]["errors"] > 0
    assert compared["rest"]["errors"] == 0
    # those that ended after the last look were not counted any more
    assert lost >= compared["canary"]["errors"]
    assert compared["seconds"] < 300, "clear long before the end of the hold"


def test_killed_while_it_is_held_it_is_held_anew_elsewhere(
    site: Site, here: Path, tmp_path: Path
) -> None:
    with load(site, BUSY) as it:
        warmed_up(it)
        environment = to(site, GOOD)
        argv = ["rollout", "converge", "-y", *HOLD, "--lease", "30"]
        with started(site, argv, here, environment=environment) as first:
            held(site, here, first)
            kill(first)
        run = site.unit("gpu01", "engine-tiny.service", "InvocationID")
        assert set(shares(site).values()) == {"gpu01:tiny 25"}, "it stays"
        shown = site.farrier("rollout", "show", cwd=here).stdout
        assert "gpu01:tiny may have a share" in shown
        elsewhere = checkout(tmp_path / "elsewhere")
        ledger = rollout(site, "resume", cwd=elsewhere, environment=environment, timeout=900)
        nothing_lost(site, it)
    assert ledger["outcome"] == "done"
    assert len(ledger["operators"]) == 2
    steps = [one["step"] for one in ledger["hosts"][0]["steps"]]
    assert steps.count("hold") == 2
    assert steps.count("act") == 1
    assert site.unit("gpu01", "engine-tiny.service", "InvocationID") == run
    assert ledger["hosts"][0]["compared"][0]["seconds"] >= 20
    assert set(shares(site).values()) == {""}


def test_killed_while_it_is_put_back_it_is_put_back_elsewhere(
    site: Site, here: Path, tmp_path: Path
) -> None:
    before = configurations(site)
    with load(site, BUSY) as it:
        warmed_up(it)
        environment = to(site, SLOW)
        argv = ["rollout", "converge", "-y", *HOLD, "--lease", "30"]
        with started(site, argv, here, environment=environment) as first:
            reached(here, first, "hold")
            reached(here, first, "drain")
            kill(first)
        assert set(shares(site).values()) == {"gpu01:tiny 0"}, "nothing goes there any more"
        elsewhere = checkout(tmp_path / "elsewhere")
        ledger = rollout(site, "resume", cwd=elsewhere, environment=environment, check=1)
        nothing_lost(site, it)
    assert ledger["hosts"][0]["state"] == "put back"
    assert ledger["hosts"][0]["turned"] in ledger["reason"]
    assert configurations(site) == before
    assert set(shares(site).values()) == {""}


def test_abort_while_it_is_held_ends_the_share(site: Site, here: Path, tmp_path: Path) -> None:
    before = configurations(site)
    environment = to(site, GOOD)
    with load(site, BUSY) as it:
        warmed_up(it)
        argv = ["rollout", "converge", "-y", *LONG]
        with started(site, argv, here, environment=environment) as process:
            held(site, here, process)
            ledger = rollout(
                site, "abort", cwd=checkout(tmp_path / "elsewhere"), environment=environment
            )
            assert ledger["outcome"] == "aborted"
            assert set(shares(site).values()) == {""}
            said, _ = process.communicate(timeout=120)
        assert process.returncode == 3, said
        assert set(shares(site).values()) == {""}, "the former process gives none any more"
        nothing_lost(site, it)
    after = configurations(site)
    assert [host for host in site.gpus if after[host] != before[host]] == ["gpu01"]
    assert all(site.gate(host) for host in site.gpus)


def test_ctrl_c_while_it_is_held_ends_the_share_and_resume_holds_anew(
    site: Site, here: Path
) -> None:
    environment = to(site, GOOD)
    with load(site, BUSY) as it:
        warmed_up(it)
        argv = ["rollout", "converge", "-y", *HOLD]
        with started(site, argv, here, environment=environment) as process:
            held(site, here, process)
            os.kill(process.pid, signal.SIGINT)
            said, _ = process.communicate(timeout=120)
        assert process.returncode == 1, said
        assert "farrier rollout resume" in said
        assert set(shares(site).values()) == {""}
        ledger = rollout(site, "resume", cwd=here, environment=environment, timeout=900)
        nothing_lost(site, it)
    assert ledger["outcome"] == "done"
    assert ledger["hosts"][0]["compared"][0]["verdict"] == "as well"


def test_a_gateway_that_begins_anew_gets_the_share_again(site: Site, here: Path) -> None:
    environment = to(site, GOOD)
    with load(site, BUSY, "gw01") as it:
        warmed_up(it)
        argv = ["rollout", "converge", "-y", *LONG]
        with started(site, argv, here, environment=environment) as process:
            held(site, here, process)
            site.root("gw02", "systemctl stop haproxy")
            site.root("gw02", "systemctl start haproxy")
            until(lambda: shares(site)["gw02"] == "gpu01:tiny 25", 60, "gw02 shares again")
            # one that is away for a while holds up nobody
            site.root("gw02", "systemctl stop haproxy")
            assert aborted(site, here, environment)["outcome"] == "aborted"
            process.communicate(timeout=120)
        site.root("gw02", "systemctl start haproxy")
        nothing_lost(site, it)
    assert set(shares(site).values()) == {""}


def aborted(site: Site, here: Path, environment: dict[str, str]) -> Any:
    """The ledger of the rollout that was given up, whatever could not be done then."""
    done = site.farrier("rollout", "abort", "--json", cwd=here, environment=environment, check=None)
    return json.loads(done.stdout.splitlines()[-1])


def test_without_traffic_nothing_is_proven_and_it_is_put_back(site: Site, here: Path) -> None:
    before = configurations(site)
    ledger = rollout(
        site,
        "converge",
        "-y",
        *("--canary", "25%", "--hold", "6s"),
        cwd=here,
        environment=to(site, GOOD),
        check=1,
    )
    (compared,) = ledger["hosts"][0]["compared"]
    assert compared["verdict"] == "not proven"
    assert compared["seconds"] >= 12, "held twice as long"
    assert "20 answers are needed" in ledger["reason"]
    assert configurations(site) == before
    assert set(shares(site).values()) == {""}


def test_what_cannot_be_a_canary_is_refused_before_anything_is_done(site: Site, here: Path) -> None:
    def refused(*argv: str) -> Any:
        words = ("rollout", "converge", "-y", *HOLD, *argv)
        return site.farrier(*words, cwd=here, environment=environment, check=3).stderr

    before, environment = configurations(site), to(site, GOOD)
    assert "nobody else serves solo" in refused("--model", "solo", "--limit", "gpu03")
    site.root("gw02", f"{SHARE} gpu02:tiny 5")
    said = refused()
    assert "on gateway gw02 gpu02:tiny has 5 % of tiny already" in said
    assert f"farrier exec --sudo gw02 -- {SHARE} gpu02:tiny 100" in said
    site.root("gw02", f"{SHARE} gpu02:tiny 100")
    assert configurations(site) == before
    assert not (here / ".farrier" / "rollouts").exists() or not list(
        (here / ".farrier" / "rollouts").glob("r-*.json")
    )
