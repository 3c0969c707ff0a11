"""kill -9 of the agent in each phase of a drain, and its next start: nothing is lost or moved."""

from __future__ import annotations

import signal
import time
from typing import Any

import pytest
from farrier_agent.control.errors import LostError, NoAgentError
from farrier_agent.control.protocol import Drain, Ready
from farrier_agent.draining.record import Phase

from tests.agent.host import PROMPT, Host, until
from tests.agent.replicas import UNIT, counts, needs_another_user, result, serving
from tests.agent.standin import Client

pytestmark = needs_another_user

DRAIN = Drain(replicas=("tiny",), wait=True, reason="a new driver")
READY = Ready(replicas=("tiny",), wait=True)


def killed(host: Host) -> None:
    """kill -9, and that it moved no gate."""
    before = host.gate()
    host.stop(signal.SIGKILL)
    assert host.gate() == before


def test_while_it_settles(host: Host) -> None:
    """It carries on where the first one was, by the first one's clock."""
    serving(host, settle_seconds=6.0)
    begun = time.monotonic()
    waiting = host.asking(DRAIN)
    until(lambda: host.record().phase is Phase.DRAINING)
    killed(host)
    with pytest.raises(LostError, match="what it began it carries on"):
        waiting.last_word()
    with pytest.raises(NoAgentError):
        host.ask(READY)
    host.start()
    until(lambda: host.phase() == "draining")
    assert host.gate()
    assert host.check() == "up drain\n"
    until(lambda: not host.gate())
    assert 5.9 <= time.monotonic() - begun < 6 + PROMPT
    until(lambda: host.phase() == "drained")


def test_while_it_settles_and_for_longer_than_that(host: Host) -> None:
    serving(host, settle_seconds=1.5)
    host.asking(DRAIN)
    until(lambda: host.record().phase is Phase.DRAINING)
    killed(host)
    drain = host.record().drain
    assert drain is not None
    until(lambda: time.clock_gettime(time.CLOCK_BOOTTIME) > drain.settle_ends)
    assert host.gate(), "nobody closes it but an agent"
    host.start()
    until(lambda: not host.gate())
    until(lambda: host.phase() == "drained")


def test_while_it_counts(host: Host) -> None:
    port = serving(host).port
    host.nginx.hold(port, 3)
    host.asking(DRAIN)
    until(lambda: counts(host, 3))
    before = host.record().drain
    assert before is not None
    killed(host)
    host.nginx.let_go(2)
    host.start()
    until(lambda: counts(host, 1))
    now = host.record().drain
    assert now is not None
    assert (now.begun, now.deadline, now.askers) == (before.begun, before.deadline, before.askers)
    assert now.in_flight_at_close == 3
    assert host.check() == "up drain\n"
    again = host.asking(DRAIN)
    host.nginx.let_go()
    assert result(again.last_word()).state == "drained"
    assert not result(again.last_word()).changed
    said = host.replica().drain
    assert said is not None
    assert (said.in_flight_at_close, said.forced, said.reasons) == (3, False, ("a new driver",))


def test_what_the_dead_one_saw_is_not_counted_on(host: Host) -> None:
    """Two looks without a request, then nobody looked for a while."""
    port = serving(host).port
    host.nginx.hold(port, 1)
    host.asking(DRAIN)
    until(lambda: counts(host, 1))
    host.nginx.let_go()
    until(lambda: getattr(host.record().drain, "quiet", 0) == 2)
    killed(host)
    host.nginx.hold(port, 2)
    host.start()
    until(lambda: counts(host, 2))
    assert host.phase() == "draining"
    host.nginx.let_go()
    until(lambda: host.phase() == "drained")


@pytest.mark.parametrize("policy", ["abort", "extend", "force"])
def test_while_its_deadline_passes(host: Host, policy: Any) -> None:
    port = serving(host).port
    host.nginx.hold(port, 2)
    host.asking(Drain(replicas=("tiny",), wait=True, deadline=2.5, on_deadline=policy))
    until(lambda: counts(host, 2))
    killed(host)
    drain = host.record().drain
    assert drain is not None
    until(lambda: time.clock_gettime(time.CLOCK_BOOTTIME) > drain.deadline)
    host.start()
    if policy == "abort":
        until(host.gate)
        until(lambda: host.phase() == "ready")
        assert host.log().count("warm after") == 1
    elif policy == "extend":
        until(lambda: "drain extended, 2 requests in flight" in host.log())
        assert host.phase() == "draining"
    else:
        until(lambda: host.phase() == "drained")
        until(lambda: getattr(host.replica().drain, "cut", None) == 2)


def test_when_it_is_drained(host: Host) -> None:
    serving(host)
    host.ask(DRAIN)
    killed(host)
    host.start()
    until(lambda: host.phase() == "drained")
    host.turns()
    assert not host.gate()
    assert host.check() == "up drain\n"
    assert any("a new driver" in reason for reason in host.reasons())
    assert result(host.ask(DRAIN)).changed is False
    assert result(host.ask(READY)).state == "ready"


def test_while_it_warms_up_after_ready(host: Host) -> None:
    port = serving(host).port
    host.ask(DRAIN)
    Client(port).manners(answers="500")
    host.asking(READY)
    until(lambda: host.record().phase is Phase.WARMING)
    killed(host)
    host.start()
    until(lambda: host.phase() == "warming")
    host.turns()
    assert not host.gate()
    Client(port).manners(answers="well")
    until(host.gate)


def test_while_a_drain_waits_for_the_next_run(host: Host) -> None:
    """The engine crashed while it drained: it stays closed, whoever sees it warm."""
    port = serving(host).port
    host.nginx.hold(port, 1)
    host.asking(DRAIN)
    until(lambda: counts(host, 1))
    host.nginx.let_go()
    Client(port).manners(answers="500")
    host.unit(UNIT, run=2)
    until(lambda: host.record().phase is Phase.WARMING)
    killed(host)
    host.start()
    until(lambda: host.phase() == "warming")
    Client(port).manners(answers="well")
    until(lambda: host.phase() == "drained")
    host.turns()
    assert not host.gate()
    assert "kept closed: a new driver" in host.log()


def test_while_another_run_began(host: Host) -> None:
    """Drained, then restarted by systemd without its ExecStop=, as after a crash."""
    serving(host)
    host.ask(DRAIN)
    killed(host)
    host.unit(UNIT, run=2)
    host.start()
    until(lambda: "warm, and kept closed: a new driver" in host.log())
    host.turns()
    assert not host.gate()
    assert host.phase() == "drained"


def test_again_and_again(host: Host) -> None:
    """At any moment, while a request goes on and people change their mind."""
    port = serving(host, settle_seconds=0.2).port
    host.nginx.hold(port, 1)
    for number in range(6):
        wish = READY if number % 3 == 2 else DRAIN
        host.asking(wish)
        until(lambda: host.record().phase in {Phase.DRAINING, Phase.WARMING, Phase.READY})
        time.sleep(0.122 * number)  # another moment each time: there is nothing to wait for
        killed(host)
        record = host.record()
        if record.phase in {Phase.DRAINED, Phase.WARMING, Phase.FAILED}:
            assert not host.gate()
        host.start()
    host.nginx.let_go()
    result(host.ask(READY))
    until(lambda: host.get("/readyz")[0] == 200)
    assert host.gate()
    assert result(host.ask(DRAIN)).state == "drained"
    assert not host.gate()
    assert "Traceback" not in host.log()
