"""Wedged engines on the running agent: found, closed, explained, restarted; but not for ever."""

from __future__ import annotations

import json
import signal
import tarfile
import time
from pathlib import Path
from typing import Any

from farrier_agent.config import Replica
from farrier_agent.control.protocol import Bundle, Done, Evidence, Failed, Ready, Restart

from tests.agent.host import Host, until
from tests.agent.replicas import UNIT, needs_another_user, run_by_its_unit
from tests.agent.standin import Client

pytestmark = needs_another_user

EVIDENCE = "farrier-evidence@tiny.service"
WEDGED = 2.0
"""Seconds without progress after which an engine counts as wedged here."""


def serving(host: Host, *options: str, **fields: Any) -> Replica:
    """One replica whose unit runs its engine, and a unit that keeps evidence about it."""
    return run_by_its_unit(host, *options, **({"wedged_seconds": WEDGED} | fields))


def wedge(host: Host, one: Replica, count: int = 3) -> None:
    """The engine takes requests and gets nowhere with them; its /health stays 200."""
    host.nginx.stream(one.port, count, tokens=100_000)
    Client(one.port).manners(answers="wedge")
    assert Client(one.port).listens()


def run(host: Host) -> str:
    invocation: str = host.systemd.now(UNIT)["InvocationID"]
    return invocation


def history(host: Host, *seconds_ago: float) -> None:
    """It was restarted for its health so many seconds ago, each."""
    host.records.mkdir(exist_ok=True)
    restarts = [time.time() - seconds for seconds in seconds_ago]
    (host.records / "tiny.health.json").write_text(json.dumps({"restarts": restarts}))


def bundles(host: Host) -> list[Path]:
    return sorted(host.evidence.glob("tiny-*.tar.gz"))


def test_a_wedged_engine_is_restarted_once_with_evidence(host: Host) -> None:
    one = serving(host)
    before = run(host)
    wedge(host, one)
    begun = time.monotonic()
    until(lambda: not host.gate())
    assert time.monotonic() - begun < WEDGED + 10
    assert host.check() == "up drain\n"
    until(lambda: host.replica().health_restarts == 1)
    until(lambda: host.get("/readyz")[0] == 200)
    assert host.gate()
    assert run(host) != before
    assert host.systemd.calls("StartUnit", "RestartUnit") == [
        f"StartUnit {UNIT} replace",
        f"StartUnit {EVIDENCE} replace",
        f"RestartUnit {UNIT} replace",
    ]
    (bundle,) = bundles(host)
    with tarfile.open(bundle) as archive:
        inside = {name.rpartition("/")[2]: name for name in archive.getnames()}
        manifest = archive.extractfile(inside["manifest.json"])
        assert manifest is not None
        assert "3 running and 0 waiting requests, no progress" in manifest.read().decode()
        assert "engine-metrics.txt" in inside
    last = host.replica().last_drain
    assert last is not None
    assert last.asked_by[0] == "farrier-agent (health)"
    assert (last.forced, last.cut) == (True, 3)
    assert f"evidence: {bundle}" in host.log()
    assert host.value("farrier_replica_health_restarts", replica="tiny") == 1
    host.turns(6)
    assert len(host.systemd.calls("RestartUnit")) == 1


def test_one_that_tells_nothing_of_its_work_is_judged_by_its_sockets(host: Host) -> None:
    one = serving(host, "--no-metrics", silent_seconds=WEDGED)
    before = run(host)
    wedge(host, one)
    until(lambda: host.replica().health_restarts == 1)
    until(lambda: host.get("/readyz")[0] == 200)
    assert run(host) != before
    assert "no byte moved" in host.log()


def test_an_engine_that_is_busy_is_never_restarted(host: Host) -> None:
    one = serving(host, "--token-delay=0.3", "--max-running=2")
    before = run(host)
    host.nginx.stream(one.port, 2, tokens=100_000)
    host.nginx.hold(one.port, 5)
    until(lambda: host.replica().health == "busy")
    host.turns(int(4 * WEDGED / 0.5))
    assert host.replica().health == "busy"
    assert host.value("farrier_replica_health", replica="tiny", state="busy") == 1
    assert run(host) == before
    assert host.gate()
    assert host.systemd.calls("RestartUnit") == []


def test_clients_that_stall_do_not_have_an_engine_restarted(host: Host) -> None:
    """Their requests are on sockets, and the engine knows of none: it is asked, and answers."""
    one = serving(host)
    host.nginx.hold(one.port, 5)
    until(lambda: host.replica().in_flight == 5)
    host.turns(int(5 * WEDGED / 0.5))
    assert host.gate()
    assert host.systemd.calls("RestartUnit") == []
    assert Client(one.port).executed()["begun"] > 2, "the generations that it was asked for"


def test_an_engine_that_hangs_while_it_knows_of_nothing_is_found(host: Host) -> None:
    one = serving(host)
    Client(one.port).manners(answers="wedge")
    host.turns(int(2 * WEDGED / 0.5))
    assert host.gate(), "nobody asks anything of it"
    host.nginx.hold(one.port, 1)
    until(lambda: host.replica().health_restarts == 1)
    until(lambda: host.get("/readyz")[0] == 200)


def test_a_wedged_engine_that_drains_is_not_waited_for(host: Host) -> None:
    one = serving(host)
    wedge(host, one, 2)
    waiting = host.asking(Restart(replicas=("tiny",), wait=True))
    final = waiting.last_word(40)
    assert isinstance(final, Done)
    (last,) = final.results
    assert (last.state, last.code, last.cut) == ("ready", 0, 2)
    assert "its engine is wedged" in host.log()


def test_the_breaker_gives_up_and_says_so(host: Host) -> None:
    history(host, 3000, 2000, 1000)
    one = serving(host)
    before = run(host)
    wedge(host, one)
    until(
        lambda: any("wedged again after 3 restarts within 60 min" in why for why in host.reasons())
    )
    assert any("farrier-agent restart" in reason for reason in host.reasons())
    host.turns(6)
    assert not host.gate()
    assert run(host) == before
    assert host.systemd.calls("RestartUnit") == []
    # a new agent does not forgive
    host.stop(signal.SIGKILL)
    host.start()
    until(lambda: any("wedged again after 3 restarts" in why for why in host.reasons()))
    host.turns(6)
    assert host.systemd.calls("RestartUnit") == []
    assert host.log().count("wedged again after 3 restarts") >= 1
    # a person may try
    final = host.ask(Restart(replicas=("tiny",), wait=True))
    assert isinstance(final, Done)
    assert final.results[0].state == "ready"
    assert host.gate()
    assert run(host) != before


def test_the_second_restart_waits_for_its_time(host: Host) -> None:
    history(host, 55)
    one = serving(host)
    wedge(host, one)
    until(lambda: host.phase() == "drained")
    assert host.systemd.calls("RestartUnit") == []
    assert not host.gate()
    until(lambda: host.systemd.calls("RestartUnit"))
    restarts = json.loads((host.records / "tiny.health.json").read_text())["restarts"]
    assert restarts[1] - restarts[0] >= 60
    until(lambda: host.get("/readyz")[0] == 200)
    assert host.replica().health_restarts == 2


def test_without_evidence_it_is_restarted_all_the_same(host: Host) -> None:
    one = serving(host)
    host.systemd.programs(EVIDENCE, exec=["false"], oneshot=True)
    wedge(host, one)
    until(lambda: host.replica().health_restarts == 1)
    until(lambda: host.get("/readyz")[0] == 200)
    assert "no evidence" in host.log()
    assert f"journalctl -u {EVIDENCE} -e" in host.log()


def test_a_restart_that_systemd_refuses_is_tried_no_more_often(host: Host) -> None:
    one = serving(host)
    denied = ["org.freedesktop.DBus.Error.AccessDenied", "Permission denied"]
    host.systemd.order(fail={"RestartUnit": denied})
    wedge(host, one)
    until(lambda: "not restarted" in host.log())
    host.turns(8)
    assert len(host.systemd.calls("RestartUnit")) == 1
    assert not host.gate()


def test_an_agent_killed_over_the_evidence_is_followed_by_one_that_heals(host: Host) -> None:
    one = serving(host)
    flag = host.root / "go"
    wait = ["sh", "-c", f"until [ -e {flag} ]; do sleep 0.05; done"]
    host.systemd.programs(EVIDENCE, exec=wait, oneshot=True)
    wedge(host, one)
    until(lambda: len(host.systemd.calls("StartUnit")) == 2)
    host.stop(signal.SIGKILL)
    assert not host.gate()
    flag.touch()
    host.start()
    until(lambda: host.replica().health_restarts == 1)
    until(lambda: host.get("/readyz")[0] == 200)
    assert len(host.systemd.calls("RestartUnit")) == 1


def test_a_history_that_cannot_be_read_is_said(host: Host) -> None:
    host.records.mkdir()
    (host.records / "tiny.health.json").write_text("{")
    serving(host)
    assert "its restarts for health are forgotten" in host.log()


def test_evidence_on_request(host: Host) -> None:
    serving(host)
    final = host.ask(Evidence(replica="tiny", reason="it is slow"))
    assert isinstance(final, Bundle)
    assert [Path(final.path)] == bundles(host)
    assert final.size_bytes == bundles(host)[0].stat().st_size
    host.systemd.programs(EVIDENCE, exec=["false"], oneshot=True)
    failed = host.ask(Evidence(replica="tiny"))
    assert isinstance(failed, Failed)
    assert failed.next == f"journalctl -u {EVIDENCE} -e"
    assert host.gate()


def test_ready_after_it_gave_up_is_no_way_around_warm_up(host: Host) -> None:
    history(host, 3000, 2000, 1000)
    one = serving(host, warm_up_seconds=2.0)
    wedge(host, one)
    until(lambda: any("wedged again" in why for why in host.reasons()))
    final = host.ask(Ready(replicas=("tiny",), wait=True))
    assert isinstance(final, Done)
    assert final.results[0].code == 1
    assert not host.gate()
