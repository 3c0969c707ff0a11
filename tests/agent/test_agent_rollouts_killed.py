"""kill -9 of the agent, a lost file and another boot at any step of a rollout's half on a host."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from typing import Any

from farrier_agent.control.protocol import Act, Drain, Failed, Lease, Leased, Request, Restart
from farrier_agent.draining.record import Phase

from tests.agent.host import Host, until
from tests.agent.replicas import UNIT, counts, needs_another_user, result, run_by_its_unit, serving
from tests.agent.rollouts import ID, Rollout, audit, kept
from tests.agent.standin import Client

pytestmark = needs_another_user


def killed(host: Host) -> None:
    before = host.gate()
    host.stop(signal.SIGKILL)
    assert host.gate() == before


def edit(host: Host, **changes: Any) -> None:
    """Change the lease on the disk, as a reboot or a fault would."""
    path: Path = host.rollout / "lease.json"
    state = json.loads(path.read_text())
    for key, value in changes.items():
        place, _, name = key.rpartition("__")
        (state[place] if place else state)[name] = value
    path.write_text(json.dumps(state))


def test_a_lease_outlives_the_agent(host: Host) -> None:
    serving(host)
    rollout = Rollout(host)
    rollout.drain()
    killed(host)
    host.start()
    host.turns()
    assert not host.gate()
    assert host.check() == "up drain\n"
    assert rollout.ready().state == "ready"


def test_a_lease_that_ran_out_while_no_agent_was_there(host: Host) -> None:
    one = serving(host)
    host.nginx.hold(one.port, 1)
    rollout = Rollout(host)
    host.asking(Drain(replicas=("tiny",), token=rollout.token))
    until(lambda: counts(host, 1))
    rollout.falls_asleep()
    killed(host)
    expires = kept(host)["lease"]["expires"]
    until(lambda: time.clock_gettime(time.CLOCK_BOOTTIME) > expires)
    host.start()
    until(host.gate)
    assert host.phase() == "ready"
    host.nginx.let_go()


def test_another_boot_ends_a_lease_and_not_what_was_being_done(host: Host) -> None:
    serving(host)
    rollout = Rollout(host, seconds=3600)
    rollout.drain()
    killed(host)
    edit(host, lease__boot_id="0" * 32)
    host.start()
    until(host.gate)

    rollout = Rollout(host, seconds=3600)
    rollout.drain()
    rollout.act("converge")
    killed(host)
    edit(host, lease__boot_id="0" * 32)
    host.start()
    until(lambda: "left this host half done (acting: converge)" in host.log())
    host.turns(3)
    assert not host.gate()
    final = host.ask(Act(action="restart", token=rollout.token, replicas=("tiny",)))
    assert isinstance(final, Failed)
    assert "ran out at" in final.error
    again = Rollout(host)
    assert again.token > rollout.token
    assert again.ready().state == "ready"


def test_a_mark_that_no_deed_followed(host: Host) -> None:
    """Power was cut between the mark and the deed."""
    run_by_its_unit(host)
    rollout = Rollout(host)
    rollout.drain()
    killed(host)
    mark = {"deed": "restart", "since_at": 1.0, "rollout": ID, "holder": "x", "token": 1}
    edit(host, acting=mark)
    host.start()
    host.turns(3)
    assert not host.gate()
    shown = host.snapshot().rollout
    assert shown is not None
    assert shown.acting == "restart"
    before = host.systemd.now(UNIT)["InvocationID"]
    assert result(rollout.act("restart", "tiny")).code == 0
    assert host.systemd.now(UNIT)["InvocationID"] != before
    assert not host.gate()
    assert rollout.ready().state == "ready"


def test_an_agent_that_dies_over_an_act_restarts_nothing_twice(host: Host) -> None:
    one = run_by_its_unit(host)
    rollout = Rollout(host)
    rollout.drain()
    host.engine_unit(one, "--start-delay=3")
    going = host.begin("act", "restart", "tiny", f"--token={rollout.token}", "--json")
    until(lambda: host.record().phase is Phase.WARMING)
    killed(host)
    host.start()
    said, complaints = going.communicate(timeout=60)
    assert going.returncode == 0, complaints
    (last,) = json.loads(said.splitlines()[-1])["results"]
    assert (last["state"], last["code"]) == ("drained", 0)
    assert len(host.systemd.calls("RestartUnit")) == 1
    assert not host.gate()
    assert "asking again" in complaints
    assert rollout.ready().state == "ready"


def test_an_agent_that_dies_over_its_own_restart_leaves_it_closed(host: Host) -> None:
    one = run_by_its_unit(host)
    rollout = Rollout(host)
    host.engine_unit(one, "--start-delay=3")
    host.ask(Restart(replicas=("tiny",), token=rollout.token))
    until(lambda: host.record().phase is Phase.WARMING)
    assert kept(host)["acting"]["alone"] == ["tiny"]
    rollout.falls_asleep()
    killed(host)
    host.start()
    until(lambda: host.phase() == "drained")
    until(lambda: "left this host half done (acting: restart)" in host.log())
    host.turns()
    assert not host.gate()
    again = Rollout(host)
    assert again.ready().state == "ready"
    assert isinstance(again.act("done"), Leased)


def test_an_asker_that_dies_over_the_agents_own_restart_harms_nothing(host: Host) -> None:
    one = run_by_its_unit(host)
    rollout = Rollout(host)
    host.engine_unit(one, "--start-delay=3")
    going = host.begin("restart", "tiny", f"--token={rollout.token}", "--wait")
    until(lambda: host.record().phase is Phase.WARMING)
    going.kill()
    rollout.falls_asleep()
    until(host.gate)
    until(lambda: kept(host)["acting"] is None)
    assert len(host.systemd.calls("RestartUnit")) == 1


def test_a_lease_that_is_garbage_closes_what_rollouts_drained_until_somebody_looks(
    host: Host,
) -> None:
    serving(host)
    rollout = Rollout(host)
    rollout.drain()
    killed(host)
    (host.rollout / "lease.json").write_text("{")
    host.start()
    until(lambda: "the lease of this host is lost" in host.log())
    host.turns(3)
    assert not host.gate()
    shown = host.snapshot().rollout
    assert shown is not None
    assert shown.acting == "unknown"
    assert "acting (unknown)" in host.command("status", f"--config={host.config_path}").stdout
    taken = host.ask(Lease(action="take", rollout=ID, holder="alice@laptop"))
    assert isinstance(taken, Failed)
    assert taken.code == 3
    again = Rollout(host, takeover=True)
    assert again.token > rollout.token
    assert again.ready().state == "ready"
    assert isinstance(again.act("done"), Leased)


def test_a_newer_agents_lease_is_not_used(host: Host) -> None:
    serving(host)
    rollout = Rollout(host)
    rollout.drain()
    killed(host)
    edit(host, schema=2)
    host.start()
    final = host.ask(Lease(action="show"))
    assert isinstance(final, Failed)
    assert "is newer than this agent's" in final.error
    host.turns(3)
    assert not host.gate()
    assert json.loads((host.rollout / "lease.json").read_text())["schema"] == 2


def test_a_mark_that_cannot_be_kept_is_not_followed_by_a_deed(host: Host) -> None:
    run_by_its_unit(host)
    rollout = Rollout(host)
    rollout.drain()
    # a directory in its place: no file can be renamed over it
    (host.rollout / "lease.new").mkdir()
    final = rollout.act("restart", "tiny")
    assert isinstance(final, Failed)
    assert "nothing was done" in final.error
    assert "cannot be written" in final.error
    assert host.systemd.calls("RestartUnit") == []
    (host.rollout / "lease.new").rmdir()
    assert rollout.ready().state == "ready"


def test_again_and_again(host: Host) -> None:
    """At any moment of a rollout that goes on as soon as there is an agent again."""
    one = run_by_its_unit(host)
    rollout = Rollout(host, seconds=600)
    steps: tuple[Request, ...] = (
        Drain(replicas=("tiny",), token=rollout.token),
        Act(action="restart", token=rollout.token, replicas=("tiny",)),
        Restart(replicas=("tiny",), token=rollout.token),
    )
    for number, step in enumerate(steps):
        host.asking(step)
        time.sleep(0.3 + 0.371 * number)  # another moment each time: nothing to wait for
        killed(host)
        if kept(host)["acting"] is not None:
            assert not host.gate() or host.record().phase in {Phase.READY, Phase.DRAINING}
        host.start()
    rollout.drain()
    assert not host.gate()
    last = rollout.act("restart", "tiny")
    assert not isinstance(last, Failed), last
    assert rollout.ready().state == "ready"
    rollout.act("done")
    assert Client(one.port).ask("GET", "/health")[0] == 200
    assert kept(host)["acting"] is None
    assert [line["token"] for line in audit(host)] == [rollout.token] * len(audit(host))
    assert "Traceback" not in host.log()
