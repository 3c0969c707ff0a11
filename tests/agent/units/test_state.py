"""A unit from systemd's properties, and the starts that are remembered of it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from farrier_agent.units.state import (
    MAX_STARTS,
    Properties,
    Start,
    UnitsError,
    UnitState,
    parse,
    with_starts,
)
from hypothesis import given
from hypothesis import strategies as st

# GetAll("") for ssh.service on Debian 12 (systemd 252), of 290 properties those that are read
SSH: dict[str, tuple[str, Any]] = {
    "Id": ("s", "ssh.service"),
    "LoadState": ("s", "loaded"),
    "ActiveState": ("s", "active"),
    "SubState": ("s", "running"),
    "InvocationID": ("ay", bytes.fromhex("0f9cee1e29a84f369c510a92504b08c6")),
    "MainPID": ("u", 36),
    "NRestarts": ("u", 2),
    "ExecMainStartTimestamp": ("t", 1_795_274_880_500_000),
    "ExecMainExitTimestamp": ("t", 0),
    "StateChangeTimestamp": ("t", 1_795_274_881_000_000),
    "Result": ("s", "success"),
    "Job": ("(uo)", (0, "/")),
    "NeedDaemonReload": ("b", False),
}


def test_a_running_unit() -> None:
    assert parse("sshd.service", SSH) == UnitState(
        name="sshd.service",
        load_state="loaded",
        active_state="active",
        sub_state="running",
        invocation_id="0f9cee1e29a84f369c510a92504b08c6",
        main_pid=36,
        restarts=2,
        started_at=1_795_274_880.5,
        changed_at=1_795_274_881.0,
        result="success",
    )


def test_a_unit_that_was_not_found_has_no_service_properties() -> None:
    keys = ("LoadState", "ActiveState", "SubState", "InvocationID", "Job")
    found = {key: SSH[key] for key in keys}
    found |= {"LoadState": ("s", "not-found"), "ActiveState": ("s", "inactive")}
    found |= {"InvocationID": ("ay", b"")}
    unit = parse("nothere.service", found)
    assert (unit.invocation_id, unit.main_pid, unit.restarts) == (None, None, 0)
    assert (unit.started_at, unit.result, unit.job) == (None, None, None)


def test_a_job_that_waits_or_runs_is_known_by_its_id() -> None:
    job = ("(uo)", (4711, "/org/freedesktop/systemd1/job/4711"))
    assert parse("ssh.service", {**SSH, "Job": job}).job == 4711


@pytest.mark.parametrize("key", ["LoadState", "ActiveState", "SubState"])
def test_what_every_unit_has_must_be_there(key: str) -> None:
    found = {name: value for name, value in SSH.items() if name != key}
    with pytest.raises(UnitsError, match=f"nothing about {key} of ssh.service"):
        parse("ssh.service", found)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("ActiveState", ("u", 1)),
        ("MainPID", ("s", "36")),
        ("MainPID", ("as", ["36"])),
        ("InvocationID", ("s", "abc")),
        ("Job", ("s", "none")),
        ("Job", ("()", ())),
        ("NeedDaemonReload", ("s", "yes")),
        ("ExecMainStartTimestamp", ("s", "now")),
    ],
)
def test_a_property_of_another_type_is_refused_by_name(key: str, value: tuple[str, Any]) -> None:
    with pytest.raises(UnitsError, match=f"{key} of ssh.service"):
        parse("ssh.service", {**SSH, key: value})


anything: st.SearchStrategy[object] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(0, 2**64 - 1),
    st.text(),
    st.binary(),
    st.lists(st.text()),
    st.lists(st.integers()),
    st.tuples(st.integers(0, 2**32 - 1), st.text()),
)


@given(st.dictionaries(st.sampled_from(sorted(SSH)), st.tuples(st.text(max_size=3), anything)))
def test_whatever_the_bus_says_is_a_unit_or_an_error_of_ours(changes: Properties) -> None:
    try:
        unit = parse("ssh.service", {**SSH, **changes})
    except UnitsError:
        return
    # and what was let through can be spoken and read back
    assert msgspec.json.decode(msgspec.json.encode(unit), type=UnitState) == unit


def at(start: float, restarts: int = 0, run: int = 1, **fields: Any) -> UnitState:
    unit = parse("ssh.service", SSH)
    values = {"started_at": start, "restarts": restarts, "invocation_id": f"{run:032x}"}
    return msgspec.structs.replace(unit, **(values | fields))


def test_the_first_look_is_no_start() -> None:
    assert with_starts(None, at(5.0)).starts == ()


def test_a_start_is_automatic_when_systemd_counts_it() -> None:
    one = with_starts(None, at(5.0))
    two = with_starts(one, at(7.0, restarts=1, run=2))
    three = with_starts(two, at(9.0, restarts=0, run=3))
    same = with_starts(three, at(9.0, restarts=0, run=3, active_state="deactivating"))
    assert same.starts == (
        Start(at=7.0, invocation_id=f"{2:032x}", automatic=True),
        Start(at=9.0, invocation_id=f"{3:032x}", automatic=False),
    )


def test_a_unit_on_its_way_up_has_not_started_yet() -> None:
    """Between a crash and the restart the new invocation has the old main process' times."""
    one = with_starts(None, at(5.0))
    between = with_starts(one, at(5.0, restarts=1, run=2, active_state="activating"))
    assert between.starts == ()
    up = with_starts(between, at(7.0, restarts=1, run=2))
    assert [(start.at, start.automatic) for start in up.starts] == [(7.0, True)]


@given(st.lists(st.tuples(st.integers(1, 50), st.integers(0, 3)), max_size=60))
def test_starts_are_bounded_and_in_order_of_being_seen(looks: list[tuple[int, int]]) -> None:
    known: UnitState | None = None
    seen = []
    for number, restarts in looks:
        now = at(float(number), restarts, number)
        if known is not None and known.started_at != now.started_at:
            seen.append(now.started_at)
        known = with_starts(known, now)
        assert [start.at for start in known.starts] == seen[-MAX_STARTS:]
