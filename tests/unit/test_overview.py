"""What ``farrier status`` makes of hosts' answers: rows, drift, gaps, lines."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from typing import Any

import pytest
from farrier_agent import status
from farrier_agent.status import Agent, Gpu, Gpus, Health, Reason, Replica, Status, Unit, Verdict
from rich.console import Console

from farrier.fleet import NoAgentError, ShellError, SudoError, UnreachableError
from farrier.fleet.places import Place
from farrier.fleet.shell import Done
from farrier.fleet.target import Login, ReplicaOf, Target
from farrier.overview.drift import with_drift
from farrier.overview.entries import entry
from farrier.overview.gap import gaps
from farrier.overview.look import Look, command, parsed
from farrier.overview.rows import HostRow, Memory, host_row
from farrier.overview.summary import summary
from farrier.overview.table import overview

GIB = 2**30


def replica(name: str = "a", **changes: Any) -> Replica:
    usual: dict[str, Any] = {
        "name": name,
        "model": "m",
        "engine": "vllm",
        "unit": f"engine-{name}.service",
        "port": 8101,
        "up": True,
        "gate": "open",
        "phase": "ready",
        "in_flight": 0,
        "restart_pending": False,
    }
    return Replica(**(usual | changes))


def said(host: str, *replicas: Replica, version: str = "1.0", **more: Any) -> Status:
    agent = Agent(version=version, python="3.11", pid=1, started_at=0.0)
    return Status(
        host=host, at=100.0, accelerator="cuda", agent=agent, ready=True, replicas=replicas, **more
    )


def target(name: str, *replicas: str) -> Target:
    served = tuple(ReplicaOf("m", one, f"engine-{one}.service", 8101) for one in replicas or "a")
    return Target(name, ("gpu",), name, Login(name, user="op"), served)


def row(name: str, *replicas: Replica, error: ShellError | None = None, **more: Any) -> HostRow:
    look = None if error else Look(said(name, *(replicas or (replica(),)), **more))
    return host_row(target(name), look, error)


DOWN = UnreachableError("gpu09", "cannot connect: no route", "ping gpu09")


def text(*rows: HostRow) -> str:
    out = io.StringIO()
    screen = Console(file=out, highlight=False, soft_wrap=True, width=80)
    for line in overview(rows):
        screen.print(line)
    return out.getvalue()


# answers


def test_a_status_over_loopback_with_the_engines_that_run() -> None:
    body = status.dumps(said("gpu01", replica())).decode()
    printed = (
        f"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n{body}\n-- engines\n"
        "engine-a.service /opt/farrier/vllm/0.32.0-5378c812/bin/python\n"
        "engine-b.service /usr/bin/llama\n"
    )
    look = parsed(Done(0, printed, ""), target("gpu01"))
    assert look.status.host == "gpu01"
    assert look.versions == {"engine-a.service": "0.32.0"}


def test_a_status_that_the_agent_had_to_be_asked_for() -> None:
    body = status.dumps(said("gpu01", replica())).decode()
    look = parsed(Done(0, f"{body}\n-- engines\n", ""), target("gpu01"))
    assert look.status.host == "gpu01"
    assert look.versions == {}


@pytest.mark.parametrize(
    ("done", "kind", "told"),
    [
        (Done(1, "", "sudo: a password is required\n"), SudoError, "sudo wants a password"),
        (
            Done(1, "", "sudo: farrier-agent: command not found\n"),
            NoAgentError,
            "it has no farrier-agent",
        ),
        (
            Done(1, "", "farrier-agent: it does not answer; next: systemctl status farrier-agent"),
            NoAgentError,
            "it does not answer",
        ),
        (
            Done(1, '{"kind":"failed","code":1,"error":"no socket","next":"look"}\n', ""),
            NoAgentError,
            "no socket",
        ),
        (Done(0, "-- engines\n", ""), NoAgentError, "it said nothing"),
        (Done(0, '{"schema":9}\n-- engines\n', ""), NoAgentError, "newer"),
    ],
)
def test_no_status(done: Done, kind: type[ShellError], told: str) -> None:
    with pytest.raises(kind, match=told) as error:
        parsed(done, target("gpu01"))
    assert kind is not NoAgentError or told == "newer" or "gpu01" in error.value.next


def test_root_needs_no_sudo() -> None:
    one = target("gpu01")
    assert "sudo -n farrier-agent" in command(one)
    assert "sudo" not in command(replace(one, login=replace(one.login, user="root")))


# rows


def test_memory_is_that_of_the_replicas_gpus() -> None:
    gpus = Gpus(
        count=2,
        devices=tuple(
            Gpu(
                uuid=f"GPU-{index}",
                index=index,
                up=True,
                memory_used_bytes=used,
                memory_total_bytes=80 * GIB,
            )
            for index, used in enumerate((70 * GIB, None))
        ),
    )
    both = replica("both", gpus=(0, 1))
    made = host_row(target("g"), Look(said("g", replica(gpus=(0,)), both, gpus=gpus)), None)
    assert [one.memory for one in made.replicas] == [
        Memory(70 * GIB, 80 * GIB),
        Memory(None, 160 * GIB),
    ]
    assert "70 of 80 GiB" in text(made)
    assert "? of 160 GiB" in text(made)


def test_a_replicas_reason_is_said_once_and_the_hosts_with_its_step() -> None:
    def reason(rule: str, **more: Any) -> Reason:
        return Reason(
            rule=rule, state="unhealthy", text="bad", next="reset it", since_at=0.0, **more
        )

    mine, hosts = reason("wedged", replica="a"), reason("disk", command="df")
    health = Health(
        host=Verdict(state="unhealthy", reasons=(mine, hosts)),
        replicas={"a": Verdict(state="unhealthy", reasons=(mine,))},
    )
    made = row("g", health=health)
    assert made.reasons == ("disk: bad; next: reset it: df",)
    assert made.replicas[0].reason == "wedged: bad; next: reset it"
    assert (made.verdict, made.replicas[0].verdict) == ("unhealthy", "unhealthy")


def test_units_of_the_host_that_do_not_run() -> None:
    def unit(name: str, state: str, load: str = "loaded") -> Unit:
        return Unit(name=name, load_state=load, active_state=state, sub_state="dead")

    units = (
        unit("nginx.service", "inactive"),
        unit("ok.service", "active"),
        unit("none.service", "inactive", "not-found"),
    )
    assert row("g", units=units).units == ("nginx.service is inactive (dead)",)


def test_a_rollout_is_told() -> None:
    leased = status.Rollout(rollout="r-1", holder="alice@laptop", token=3, expires_in=42.0)
    acting = status.Rollout(rollout="r-1", acting="reboot")
    assert "rollout r-1 of alice@laptop has the lease, for 42.0 s more" in text(
        row("g", rollout=leased)
    )
    assert "rollout r-1 is acting: reboot" in text(row("g", rollout=acting))
    assert row("g", rollout=status.Rollout(token=3)).rollout is None


def test_a_silent_host_is_a_row_with_its_step() -> None:
    shown = text(row("gpu01"), row("gpu09", error=DOWN))
    assert re.search(r"^gpu09 +no answer$", shown, re.MULTILINE)
    assert "    cannot connect: no route\n    next: ping gpu09\n" in shown
    assert shown.endswith("2 hosts: 1 ready, 1 without an answer; m 1 of 1 ready; 0 in flight\n")
    assert row("gpu09", error=DOWN).to_json()["error"] == {
        "kind": "UnreachableError",
        "what": "cannot connect: no route",
        "next": "ping gpu09",
    }


def test_nothing_that_a_host_says_moves_the_cursor() -> None:
    assert "\x1b" not in text(row("g", replica(model="m\x1b[2J", detail="\x1b]0;x", up=False)))


def test_the_summary_counts() -> None:
    rows = [
        row("a", replica(in_flight=3), replica("b", model="other", phase="drained", gate="closed")),
        row("b", replica(in_flight=None, restart_pending=True)),
    ]
    assert summary(rows) == (
        "2 hosts: 2 ready; m 2 of 2 ready; other 0 of 1 ready; 3 in flight; 1 restart pending"
    )


# drift


def drift(*rows: HostRow, targets: tuple[Target, ...] = ()) -> list[tuple[str, ...]]:
    return [one.drift for one in with_drift(rows, targets or [target(one.host) for one in rows])]


def test_an_agent_that_is_not_as_most_are() -> None:
    rows = (row("a"), row("b"), row("c", version="0.9"), row("d", error=DOWN))
    assert drift(*rows) == [(), (), ("agent 0.9, most others have 1.0",), ()]
    assert drift(row("a"), row("b", version="0.9")) == [(), ()], "halves have no majority"


def test_a_driver_that_is_not_as_most_are() -> None:
    def driven(name: str, version: str | None) -> HostRow:
        return row(name, gpus=Gpus(count=8, driver_version=version))

    rows = (driven("a", "580.1"), driven("b", "580.1"), driven("c", "580.2"), driven("d", None))
    assert drift(*rows) == [(), (), ("driver 580.2, most others have 580.1",), ()]
    assert summary(rows).startswith("4 hosts: 4 ready; driver 580.1, 580.2; m 4 of 4 ready")
    assert rows[0].to_json()["driver_version"] == "580.1"


def test_an_engine_that_is_not_as_most_are() -> None:
    def with_version(name: str, version: str) -> HostRow:
        one = row(name)
        return replace(one, replicas=(replace(one.replicas[0], engine_version=version),))

    rows = (with_version("a", "2"), with_version("b", "2"), with_version("c", "1"), row("d"))
    assert drift(*rows) == [(), (), ("a runs vllm 1, most others 2",), ()]


def test_a_host_that_is_not_as_the_inventory_says() -> None:
    there = row("a", replica(model="else"), replica("old"))
    assert drift(there, targets=(target("a", "a", "new"),)) == [
        (
            "a serves else, the inventory says m",
            "new is in the inventory and not on the host: not converged",
            "old is on the host and not in the inventory",
        )
    ]
    ((told,),) = drift(row("a", replica(put_back=True)))
    assert told == (
        "a was put back to the configuration before the inventory's, which the next converge"
        " brings again"
    )
    ((told,),) = drift(row("a", replica(put_back=True, restart_pending=True)))
    assert told.endswith(" brings again: restart pending")
    assert drift(row("a", replica(restart_pending=True))) == [
        ("a runs with an older configuration: restart pending",)
    ]


# gaps


def places(*names: str) -> list[Place]:
    return [Place(target(name), target(name).replicas) for name in names]


def test_the_last_ready_replica_of_a_model() -> None:
    closed = row("b", replica(phase="drained", gate="closed"))
    (gap,) = gaps(places("a"), [row("a"), closed, row("c", error=DOWN)])
    assert str(gap) == "a/a would be the end of m: b/a is drained; c did not answer"
    assert gaps(places("a"), [row("a"), row("b")]) == ()
    assert [gap.model for gap in gaps(places("a", "b"), [row("a"), row("b")])] == ["m"]


def test_nobody_serves_it_already() -> None:
    assert gaps(places("b"), [row("b", replica(phase="drained", gate="closed"))]) == ()


def test_only_the_replica_that_is_meant_counts() -> None:
    two = row("a", replica("x"), replica("y"))
    one = Place(target("a", "x", "y"), target("a", "x").replicas)
    assert gaps([one], [two]) == (), "y still serves it"
    whole = Place(target("a", "x"), target("a", "x").replicas)
    assert gaps([whole], [two])[0].last == ("a/x", "a/y"), "the whole host is drained"


# journals


def test_entries_of_a_journal() -> None:
    line = (
        '{"__REALTIME_TIMESTAMP":"1795309196710708","PRIORITY":"3","MESSAGE":"no\\u001b[2Jgood",'
        '"_SYSTEMD_UNIT":"init.scope","UNIT":"engine-a.service"}'
    )
    one = entry("gpu01", line)
    assert one is not None
    assert (one.unit, one.priority, one.at) == ("engine-a.service", 3, 1795309196.710708)
    assert one.shown(True).endswith(" gpu01 engine-a | no [2Jgood")
    assert " gpu01 " not in one.shown(False)
    bytes_of_it = '{"__REALTIME_TIMESTAMP":"1","MESSAGE":[104,105,255],"_SYSTEMD_UNIT":"u.service"}'
    other = entry("h", bytes_of_it)
    assert other is not None
    assert other.message == "hi�"
    assert entry("h", "-- No entries --") is None
    assert entry("h", "[]") is None
