"""A rollout's half on the host: its lease, its drains, what it does, and what becomes of it."""

from __future__ import annotations

import time

import pytest
from farrier_agent.control.protocol import (
    Act,
    Audit,
    Audited,
    Drain,
    Failed,
    Final,
    Lease,
    Leased,
    Ready,
    Restart,
)

from tests.agent.host import Host, replica, until
from tests.agent.replicas import (
    UNIT,
    counts,
    needs_another_user,
    result,
    run_by_its_unit,
    serving,
    two_that_serve,
)
from tests.agent.rollouts import ID, Rollout, audit, kept

pytestmark = needs_another_user


def refusal(final: Final) -> str:
    assert isinstance(final, Failed), final
    assert final.code == 3, final
    return f"{final.error}; next: {final.next}"


def run(host: Host) -> str:
    """The run of the unit, as systemd names it."""
    return str(host.systemd.now(UNIT)["InvocationID"])


# -- a rollout as it should be -----------------------------------------------------------------


def test_drain_restart_ready(host: Host) -> None:
    run_by_its_unit(host)
    before = run(host)
    rollout = Rollout(host)
    shown = host.snapshot().rollout
    assert shown is not None
    assert (shown.rollout, shown.holder, shown.token) == (ID, "alice@laptop", rollout.token)
    assert shown.expires_in is not None
    assert 500 < shown.expires_in <= 600
    assert shown.acting is None

    last = rollout.drain(reason="a new version")
    assert (last.state, last.code) == ("drained", 0)
    assert host.check() == "up drain\n"
    assert f"held by rollout {ID}: a new version (asked by alice@laptop)" in str(host.reasons())

    last = result(rollout.act("restart", "tiny"))
    assert (last.state, last.code, last.text) == ("drained", 0, "warm, and closed until ready")
    assert None not in {last.stop_seconds, last.start_seconds, last.warm_seconds}
    assert run(host) != before
    assert not host.gate()
    assert host.check() == "up drain\n"
    assert kept(host)["acting"]["deed"] == "restart"
    until(lambda: getattr(host.snapshot().rollout, "acting", None) == "restart")

    last = rollout.ready()
    assert (last.state, last.code) == ("ready", 0)
    assert host.gate()
    done = rollout.act("done")
    assert isinstance(done, Leased)
    assert done.acting is None
    assert isinstance(rollout.lease("release"), Leased)
    assert host.gate()
    until(lambda: host.snapshot().rollout is None)
    assert [line["verb"] for line in audit(host)] == [
        *("lease take", "drain", "drain", "act restart", "act restart"),
        *("ready", "act done", "lease release"),
    ]
    for line in audit(host):
        assert (line["by"], line["holder"], line["rollout"]) == ("root", "alice@laptop", ID)
        assert line["token"] == rollout.token
    assert audit(host)[4]["outcome"] == "done: tiny drained"
    assert "Traceback" not in host.log()


def test_its_own_restart_is_all_of_that_in_one(host: Host) -> None:
    one = run_by_its_unit(host)
    before = run(host)
    rollout = Rollout(host)
    host.nginx.hold(one.port, 1)
    going = host.asking(Restart(replicas=("tiny",), token=rollout.token, wait=True))
    until(lambda: counts(host, 1))
    assert kept(host)["acting"] is None, "it only drains yet"
    host.nginx.let_go()
    last = result(going.last_word(40))
    assert (last.state, last.code) == ("ready", 0)
    assert run(host) != before
    assert host.gate()
    assert kept(host)["acting"] is None
    assert len(host.systemd.calls("RestartUnit")) == 1


# -- fencing -----------------------------------------------------------------------------------


def test_a_token_that_does_not_count_does_nothing(host: Host) -> None:
    serving(host)
    before = host.record()
    for request in (
        Drain(replicas=("tiny",), token=5, wait=True),
        Ready(replicas=("tiny",), token=5),
        Restart(replicas=("tiny",), token=5, wait=True),
        Act(action="restart", replicas=("tiny",), token=5),
        Act(action="converge", token=5),
        Act(action="done", token=5),
        Lease(action="renew", token=5),
        Lease(action="release", token=5),
    ):
        said = refusal(host.ask(request))
        assert "token 5 is of no lease: nobody has one on this host now; nothing was done" in said
    assert host.record() == before
    assert host.gate()
    assert len(audit(host)) == 8
    assert all(line["outcome"].startswith("refused: ") for line in audit(host))


def test_a_second_rollout_is_told_who_has_the_lease(host: Host) -> None:
    serving(host)
    first = Rollout(host)
    said = refusal(host.ask(Lease(action="take", rollout="r-2", holder="bob@desk", takeover=True)))
    assert f"alice@laptop has the lease of this host for rollout {ID}" in said
    assert f"next: farrier rollout show {ID}" in said
    first.lease("release")
    second = Rollout(host, "r-2", "bob@desk")
    assert second.token > first.token
    said = refusal(host.ask(Drain(replicas=("tiny",), token=first.token)))
    assert "is not the present lease's: bob@desk has the lease" in said
    assert host.gate()


def test_the_same_rollout_from_elsewhere_fences_its_former_process(host: Host) -> None:
    serving(host)
    asleep = Rollout(host)
    asleep.drain()
    awake = Rollout(host, holder="alice@desk")
    assert awake.token > asleep.token
    final = host.ask(Ready(replicas=("tiny",), token=asleep.token))
    assert "alice@desk has the lease" in refusal(final)
    assert "alice@desk has the lease" in refusal(asleep.lease("renew"))
    assert not host.gate()
    assert awake.ready().state == "ready"


def test_a_person_is_never_fenced(host: Host) -> None:
    serving(host)
    rollout = Rollout(host)
    rollout.drain()
    rollout.act("converge")
    assert result(host.ask(Ready(replicas=("tiny",), wait=True))).state == "ready"
    assert host.gate()
    assert result(host.ask(Drain(replicas=("tiny",), wait=True))).state == "drained"


# -- the operator sleeps -----------------------------------------------------------------------


def test_a_lease_that_runs_out_gives_back_what_it_drained(host: Host) -> None:
    serving(host)
    rollout = Rollout(host)
    rollout.drain()
    assert not host.gate()
    rollout.falls_asleep()
    until(host.gate)
    until(lambda: host.phase() == "ready")
    assert f"the lease of rollout {ID} (alice@laptop, token {rollout.token}) ran out" in host.log()
    assert f"rollout {ID} has no lease of this host any more" in host.log()
    said = refusal(host.ask(Drain(replicas=("tiny",), token=rollout.token)))
    assert "ran out at" in said
    assert "the host takes itself back; nothing was done" in said
    assert host.gate()
    assert [line["verb"] for line in audit(host)][-3:] == ["lease", "take back", "drain"]


def test_a_drain_under_way_is_given_back_too(host: Host) -> None:
    one = serving(host)
    host.nginx.hold(one.port, 1)
    rollout = Rollout(host)
    going = host.asking(Drain(replicas=("tiny",), token=rollout.token, wait=True))
    until(lambda: counts(host, 1))
    rollout.falls_asleep()
    last = result(going.last_word())
    assert (last.state, last.code) == ("ready", 1)
    assert "has no lease of this host any more" in last.text
    # it is told at once that the drain is over; the gate is opened with the next breath
    until(host.gate)
    host.nginx.let_go()


def test_a_lease_that_is_renewed_holds(host: Host) -> None:
    serving(host)
    rollout = Rollout(host)
    rollout.drain()
    assert isinstance(rollout.lease("renew", seconds=6), Leased)
    first = kept(host)["lease"]["expires"]
    while time.clock_gettime(time.CLOCK_BOOTTIME) < first + 1:
        assert isinstance(rollout.lease("renew", seconds=6), Leased)
        host.turns(1)
    assert not host.gate()
    assert isinstance(rollout.lease("release"), Leased)
    assert isinstance(rollout.lease("release"), Leased), "asked again"
    until(host.gate)


def test_what_a_person_wants_closed_too_stays_so(host: Host) -> None:
    serving(host)
    rollout = Rollout(host)
    host.ask(Drain(replicas=("tiny",), wait=True, reason="bad fan"))
    rollout.drain()
    rollout.falls_asleep()
    until(lambda: "does not want it drained any more; it stays so for root: bad fan" in host.log())
    host.turns()
    assert not host.gate()
    assert host.phase() == "drained"
    assert host.record().rollouts == frozenset()


def test_while_acting_nothing_returns_by_itself(host: Host) -> None:
    serving(host)
    rollout = Rollout(host)
    rollout.drain()
    assert isinstance(rollout.act("converge"), Leased)
    rollout.falls_asleep()
    until(lambda: "left this host half done (acting: converge)" in host.log())
    host.turns(4)
    assert not host.gate()
    shown = host.snapshot().rollout
    assert shown is not None
    assert (shown.acting, shown.expires_in, shown.rollout) == ("converge", None, ID)
    said = refusal(host.ask(Ready(replicas=("tiny",), token=rollout.token)))
    assert "the host stays as it was left (acting: converge)" in said

    said = refusal(host.ask(Lease(action="take", rollout="r-2", holder="bob@desk")))
    assert f"rollout {ID} (alice@laptop) left this host half done (acting: converge, since" in said
    assert f"next: farrier rollout resume {ID}" in said
    other = Rollout(host, "r-2", "bob@desk", takeover=True)
    assert other.ready().state == "ready"
    assert isinstance(other.act("done"), Leased)
    assert kept(host)["acting"] is None


def test_a_person_can_say_that_a_half_done_host_is_well(host: Host) -> None:
    serving(host)
    rollout = Rollout(host)
    rollout.drain()
    rollout.act("converge")
    assert "it is for that one to say" in refusal(host.ask(Act(action="done")))
    rollout.lease("release")
    host.turns()
    assert not host.gate()
    assert isinstance(host.ask(Act(action="done")), Leased)
    until(host.gate)


def test_an_unhealthy_one_is_not_taken_back(host: Host) -> None:
    """A GPU with a fault that acts: no host returns to that by itself."""
    one = replica(gpus=[1])
    host.configure(one, accelerator="cuda")
    host.unit(one.unit, run=1)
    host.engine(one.port, "tiny")
    host.start()
    until(lambda: host.get("/readyz")[0] == 200)
    rollout = Rollout(host)
    rollout.drain()
    host.nvml("count 2\n1.lost 1")
    until(lambda: (health := host.snapshot().health) and health.host.state == "unhealthy")
    rollout.falls_asleep()
    until(lambda: f"rollout {ID} holds it no more, and it is not taken back: " in host.log())
    host.turns(3)
    assert not host.gate()
    assert result(host.ask(Ready(replicas=("tiny",), wait=True))).state == "ready"


def test_only_what_the_rollout_that_is_gone_drained_returns(host: Host) -> None:
    two_that_serve(host)
    first = Rollout(host)
    assert first.drain("a").state == "drained"
    host.ask(Drain(replicas=("b",), wait=True, reason="bad fan"))
    first.falls_asleep()
    until(lambda: "ran out" in host.log())
    second = Rollout(host, "r-2", "bob@desk")
    until(lambda: host.gate("a"))
    assert not host.gate("b")
    assert second.drain("a").state == "drained"
    host.turns(3)
    assert not host.gate("a")


# -- acts --------------------------------------------------------------------------------------


def test_what_is_not_drained_is_not_restarted(host: Host) -> None:
    run_by_its_unit(host)
    rollout = Rollout(host)
    said = refusal(rollout.act("restart", "tiny"))
    assert "replica tiny is ready, not drained; nothing was done" in said
    said = refusal(rollout.act("reboot"))
    assert "not everything is drained: replica tiny is ready; nothing was done" in said
    assert kept(host)["acting"] is None
    assert host.systemd.calls("RestartUnit") == []
    assert host.gate()


def test_a_persons_drain_is_not_opened_by_a_rollout(host: Host) -> None:
    run_by_its_unit(host)
    host.ask(Drain(replicas=("tiny",), wait=True, reason="bad fan"))
    rollout = Rollout(host)
    said = refusal(rollout.act("restart", all=True))
    assert "is kept closed by others (bad fan, asked by root)" in said
    assert host.systemd.calls("RestartUnit") == []
    last = result(rollout.act("restart", "tiny"))
    assert (last.state, last.code) == ("drained", 0)
    last = rollout.ready()
    assert (last.state, last.code) == ("drained", 3)
    assert "wanted by others: bad fan (asked by root); next: farrier-agent ready tiny" in last.text
    assert not host.gate()
    assert result(host.ask(Ready(replicas=("tiny",), wait=True))).state == "ready"


def test_an_engine_that_does_not_come_back_is_said_and_stays_closed(host: Host) -> None:
    one = run_by_its_unit(host)
    rollout = Rollout(host)
    rollout.drain()
    host.engine_unit(one, "--exit-at-start=3")
    last = result(rollout.act("restart", "tiny"))
    assert last.code == 1
    assert f"journalctl -u {UNIT} -e" in last.text
    assert kept(host)["acting"]["deed"] == "restart"
    host.engine_unit(one)
    last = result(rollout.act("restart", "tiny"))
    assert (last.state, last.code) == ("drained", 0)
    assert rollout.ready().state == "ready"


def test_a_restart_by_hand_while_acting_ends_closed(host: Host) -> None:
    run_by_its_unit(host)
    rollout = Rollout(host)
    rollout.drain()
    rollout.act("converge")
    before = run(host)
    host.systemd.job("restart", UNIT)
    until(lambda: run(host) != before and host.phase() == "drained")
    host.turns()
    assert not host.gate()
    assert rollout.ready().state == "ready"


def test_an_engine_that_crashes_while_acting_comes_back_closed(host: Host) -> None:
    run_by_its_unit(host)
    rollout = Rollout(host)
    rollout.drain()
    rollout.act("converge")
    host.unit(UNIT, run=7)
    until(lambda: host.log().count("warm, and kept closed: held by rollout") == 1)
    assert not host.gate()
    assert host.phase() == "drained"


def test_a_stopped_replica_that_a_rollout_starts_waits_for_its_word(host: Host) -> None:
    run_by_its_unit(host)
    host.systemd.job("stop", UNIT)
    until(lambda: host.phase() == "stopped")
    rollout = Rollout(host)
    assert rollout.drain().state == "stopped"
    last = result(rollout.act("restart", "tiny"))
    assert (last.state, last.code) == ("drained", 0)
    assert not host.gate()
    assert rollout.ready().state == "ready"


@pytest.mark.parametrize("policy", ["abort", "force"])
def test_deadlines_are_a_rollouts_too(host: Host, policy: str) -> None:
    one = serving(host)
    host.nginx.hold(one.port, 1)
    rollout = Rollout(host)
    last = rollout.drain(deadline=1.5, on_deadline=policy)
    if policy == "abort":
        assert (last.state, last.code) == ("ready", 1)
        assert host.gate()
    else:
        assert (last.state, last.code, last.cut) == ("drained", 0, 1)
    host.nginx.let_go()


def test_what_root_did_without_the_agent_is_noted(host: Host) -> None:
    serving(host)
    noted = host.ask(Audit(lines=1, note="share gpu01:tiny 10", holder="alice@laptop", rollout=ID))
    assert isinstance(noted, Audited)
    (line,) = noted.lines
    assert (line.verb, line.outcome) == ("share gpu01:tiny 10", "done")
    assert (line.holder, line.rollout, line.token) == ("alice@laptop", ID, None)
    assert [one["verb"] for one in audit(host)] == ["share gpu01:tiny 10"]
