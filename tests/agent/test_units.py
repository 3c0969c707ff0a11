"""What ``systemctl show`` printed on real hosts, and what the agent makes of it."""

from __future__ import annotations

import pytest
from farrier_agent.collectors.units import UnitsError, parse
from farrier_agent.status import Unit

# systemctl show --no-pager --property=… -- ssh.service nothere.service sshd.service (Debian 12)
BOOKWORM = """\
MainPID=36
Id=ssh.service
Names=ssh.service sshd.service
LoadState=loaded
ActiveState=active
SubState=running
InvocationID=0f9cee1e29a84f369c510a92504b08c6

MainPID=0
Id=nothere.service
Names=nothere.service
LoadState=not-found
ActiveState=inactive
SubState=dead
InvocationID=

MainPID=36
Id=ssh.service
Names=ssh.service sshd.service
LoadState=loaded
ActiveState=active
SubState=running
InvocationID=0f9cee1e29a84f369c510a92504b08c6
"""

# the same of Debian 13's systemd 257, for ssh.service alone
TRIXIE = """\
MainPID=64
Id=ssh.service
Names=ssh.service sshd.service
LoadState=loaded
ActiveState=active
SubState=running
InvocationID=0417fe93b85a4bf09d4cb4a5284c0216
"""


def test_units_come_in_the_order_asked_for_and_by_any_of_their_names() -> None:
    sshd, _, ssh = parse(BOOKWORM, ["sshd.service", "nothere.service", "ssh.service"])
    assert sshd == Unit(
        name="sshd.service",
        load_state="loaded",
        active_state="active",
        sub_state="running",
        invocation_id="0f9cee1e29a84f369c510a92504b08c6",
        main_pid=36,
    )
    assert ssh.name == "ssh.service"
    assert ssh.main_pid == 36
    assert ssh.active


def test_a_unit_that_never_ran_has_neither_invocation_nor_process() -> None:
    (unit,) = parse(BOOKWORM, ["nothere.service"])
    assert unit.load_state == "not-found"
    assert unit.invocation_id is None
    assert unit.main_pid is None
    assert not unit.active


def test_the_newer_systemd_prints_the_same() -> None:
    (unit,) = parse(TRIXIE, ["ssh.service"])
    assert unit.invocation_id == "0417fe93b85a4bf09d4cb4a5284c0216"


@pytest.mark.parametrize("state", ["activating", "deactivating", "reloading", "failed"])
def test_only_active_is_active(state: str) -> None:
    (unit,) = parse(TRIXIE.replace("=active", f"={state}"), ["ssh.service"])
    assert unit.active_state == state
    assert not unit.active


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "nothing about ssh.service"),
        (TRIXIE.replace("ActiveState=active\n", ""), "no ActiveState of ssh.service"),
        (TRIXIE.replace("MainPID=64", "MainPID=[not set]"), "MainPID of ssh.service"),
    ],
)
def test_what_is_missing_is_an_error_and_no_state(text: str, complaint: str) -> None:
    with pytest.raises(UnitsError, match=complaint):
        parse(text, ["ssh.service"])


def test_a_value_may_contain_the_equals_sign() -> None:
    (unit,) = parse(TRIXIE.replace("SubState=running", "SubState=a=b"), ["ssh.service"])
    assert unit.sub_state == "a=b"
