"""What systemd says of units, and what a run does about it."""

from __future__ import annotations

import re
from typing import cast

import pytest

from farrier.converge.commands import Script
from farrier.converge.paths import mark
from farrier.converge.units import Unit, UnitState, _changes, drop_in, in_order, parse_units

SHOWN = f"""\
Id=nginx.service
LoadState=loaded
ActiveState=active
UnitFileState=enabled
NeedDaemonReload=no

Id=farrier-agent.service
LoadState=loaded
ActiveState=activating
UnitFileState=disabled
NeedDaemonReload=yes

Id=engine-tiny.service
LoadState=not-found
ActiveState=inactive
UnitFileState=
NeedDaemonReload=no
==
{mark("nginx.service")}
"""

GOOD = UnitState("loaded", "active", "enabled", stale=False, applied=True)
ABSENT = UnitState("not-found", "inactive", "", stale=False, applied=False)


def scripts(unit: Unit, now: UnitState) -> list[str]:
    return [cast("Script", command).get_raw_value() for command in _changes(unit, now)]


def test_parse_units() -> None:
    assert parse_units(SHOWN.splitlines()) == {
        "nginx.service": GOOD,
        "farrier-agent.service": UnitState(
            "loaded", "activating", "disabled", stale=True, applied=False
        ),
        "engine-tiny.service": ABSENT,
    }


@pytest.mark.parametrize(
    ("load", "there", "read", "stale"),
    [
        ("loaded", [drop_in("nginx.service")], "", True),  # what systemd 252 does not say itself
        ("loaded", [drop_in("nginx.service")], "/run/x.conf", True),
        ("loaded", [drop_in("nginx.service")], f"/run/x.conf {drop_in('nginx.service')}", False),
        ("loaded", [], "", False),
        ("loaded", [drop_in("haproxy.service")], "", False),
        ("masked", [drop_in("nginx.service")], "", False),
    ],
)
def test_systemd_has_to_read_our_drop_in(
    load: str, there: list[str], read: str, stale: bool
) -> None:
    shown = SHOWN.split("\n\n", maxsplit=1)[0].replace("=loaded", f"={load}")
    output = [*shown.splitlines(), f"DropInPaths={read}", "==", mark("nginx.service"), *there]
    (state,) = parse_units(output).values()
    assert state.stale == stale
    assert state.marks == {mark("nginx.service")}


@pytest.mark.parametrize("apply", ["reload", "restart", "never"])
def test_a_unit_that_is_right_is_left_alone(apply: str) -> None:
    assert scripts(Unit("nginx.service", apply=apply), GOOD) == []


@pytest.mark.parametrize("apply", ["reload", "restart"])
def test_changed_files_are_applied_and_only_then_marked(apply: str) -> None:
    now = UnitState("loaded", "active", "enabled", stale=False, applied=False)
    (script,) = scripts(Unit("nginx.service", apply=apply, check="nginx -t"), now)
    order = [script.index(word) for word in ("nginx -t", f"systemctl {apply}", "touch ")]
    assert order == sorted(order)


@pytest.mark.parametrize("active", ["active", "reloading", "activating"])
def test_an_engine_is_never_started_again_while_it_runs_or_loads(active: str) -> None:
    now = UnitState("loaded", active, "enabled", stale=True, applied=False)
    assert scripts(Unit("engine-tiny.service"), now) == []


@pytest.mark.parametrize("active", ["inactive", "failed", "deactivating"])
def test_what_does_not_run_is_started(active: str) -> None:
    now = UnitState("loaded", active, "enabled", stale=False, applied=False)
    (script,) = scripts(Unit("engine-tiny.service"), now)
    assert "systemctl start engine-tiny.service" in script
    assert "systemctl restart" not in script


def test_a_unit_is_enabled_for_the_next_boot() -> None:
    now = UnitState("loaded", "active", "disabled", stale=False, applied=True)
    (script,) = scripts(Unit("nginx.service", apply="reload"), now)
    assert "systemctl enable nginx.service" in script


def test_a_start_sets_the_mark_of_a_service_that_reads_files() -> None:
    now = UnitState("loaded", "failed", "enabled", stale=False, applied=False)
    start, marked = scripts(Unit("nginx.service", apply="reload"), now)
    assert "systemctl start" in start
    assert mark("nginx.service") in marked


BOTH = (
    Unit("prometheus.service", apply="restart"),
    Unit("prometheus.service", apply="reload", mark="prometheus-configuration"),
)


@pytest.mark.parametrize(
    ("marks", "done"),
    [
        ({"prometheus.service", "prometheus-configuration"}, []),
        ({"prometheus.service"}, ["reload"]),
        ({"prometheus-configuration"}, ["restart"]),
        (set(), ["restart"]),
    ],
)
def test_a_service_with_two_marks_is_reloaded_unless_it_was_restarted(
    marks: set[str], done: list[str]
) -> None:
    """A reload half a second after its start would end Alertmanager."""
    now = UnitState(
        "loaded",
        "active",
        "enabled",
        stale=False,
        applied="prometheus.service" in marks,
        marks=frozenset(map(mark, marks)),
    )
    told = "".join(
        cast("Script", command).get_raw_value() for command in in_order(BOTH, {BOTH[0].name: now})
    )
    assert re.findall(r"systemctl (\w+) prometheus", told) == done
    for missing in {"prometheus.service", "prometheus-configuration"} - marks:
        assert f"touch {mark(missing)}" in told


def test_stopping() -> None:
    stopped = Unit("nginx.service", stopped=True)
    assert ["systemctl disable --now nginx.service" in s for s in scripts(stopped, GOOD)] == [True]
    assert scripts(stopped, ABSENT) == []
    crashed = UnitState("loaded", "failed", "disabled", stale=False, applied=False)
    assert scripts(stopped, crashed) == []


def test_the_explanation_names_unit_cause_and_next_step() -> None:
    (command,) = _changes(
        Unit("nginx.service", apply="reload", check="nginx -t"),
        UnitState("loaded", "active", "enabled", stale=False, applied=False),
    )
    told = cast("Script", command).explain('nginx: [emerg] unknown directive "x"\n')
    assert "nginx.service" in told
    assert 'unknown directive "x"' in told
    assert "journalctl -u nginx.service" in told
