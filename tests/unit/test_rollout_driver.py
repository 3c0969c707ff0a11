"""A driver's change: what is planned, refused, asked of a host and shown. No host, no pyinfra."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from rich.console import Console

from farrier.nvidia.planned import DriverPlan, read_plans, tell, upstream
from farrier.rollout.deploying import Deploy, Driver, said_last
from farrier.rollout.driver_asked import on_host, question_of_driver, why_reboot
from farrier.rollout.driver_pages import driver_lines, end_lines, gates_tables
from farrier.rollout.driver_plan import check_version, has_way_back, note_plan, refuse, settled
from farrier.rollout.errors import RefusedError, UsageError
from farrier.rollout.ledger import (
    GateRecord,
    HostRecord,
    Ledger,
    Operator,
    Options,
    ReplicaRecord,
    decode,
    encode,
)
from farrier.rollout.plan import Wanted, make_plan
from farrier.rollout.seen import HostSeen
from roles.nvidia_driver import DEFAULTS
from roles.nvidia_driver.settings import read_settings
from tests.unit.test_rollout_plan import replica


def plan(**fields: Any) -> DriverPlan:
    found: dict[str, Any] = {
        "host": "gpu01",
        "kind": "change",
        "words": "driver 580.95.05-1 is installed, the inventory says 590.48.01",
        "branch": "590",
        "source": "nvidia",
        "flavour": "open",
        "module": "nvidia-kernel-open-dkms",
        "version": "590.48.01-1",
        "offers": ("590.48.01-1", "580.95.05-1"),
        "steps": ("nvidia-kernel-open-dkms 580.95.05-1 -> 590.48.01-1",),
        "module_before": "nvidia-kernel-open-dkms",
        "version_before": "580.95.05-1",
        "back_on_offer": True,
        "inventory": "580.95.05",
    }
    return DriverPlan(**(found | fields))


# -- what the role tells


def test_a_plan_is_handed_over_by_a_file(tmp_path: Any, monkeypatch: Any) -> None:
    told = tmp_path / "plans"
    tell(plan())  # nobody asked
    monkeypatch.setenv("FARRIER_DRIVER_PLANS", str(told))
    tell(plan(kind="keep"))
    tell(plan(host="gpu02"))
    tell(plan())
    found = read_plans(told.read_bytes().splitlines())
    assert {name: one.kind for name, one in found.items()} == {"gpu01": "change", "gpu02": "change"}


@pytest.mark.parametrize(
    ("version", "found"),
    [
        ("580.95.05", "580.95.05"),
        ("1:580.95.05-0ubuntu1", "580.95.05"),
        ("535.261.03-1", "535.261.03"),
    ],
)
def test_the_upstream_part_of_a_version(version: str, found: str) -> None:
    assert upstream(version) == found


# -- how it is asked for


@pytest.mark.parametrize("version", ["590.48.01", "580.95", "535.309.01-1~deb12u1"])
def test_the_version_asked_for_wins_over_the_inventorys(version: str) -> None:
    """As the role reads its data."""
    options = Driver(version, "open").data
    assert options[::2] == ("--data",) * 3
    given = dict(one.split("=", 1) for one in options[1::2])
    # of another branch: with the inventory's branch the role would refuse it
    inventory = DEFAULTS.data() | {
        "nvidia_driver_branch": "570",
        "nvidia_driver_version": "570.1.2",
    }
    # to pyinfra what is JSON is that, so a branch stays a text
    settings = read_settings(inventory | {name: json.loads(one) for name, one in given.items()})
    assert (settings.version, settings.branch, settings.flavour) == (version, version[:3], "open")


def test_without_a_version_the_inventory_is_asked(tmp_path: Any) -> None:
    assert Driver().data == ()
    words = Deploy(["gpu01", "gpu02"], "inv.py", Driver(), tmp_path / "log", dry=True).words
    assert words == ["--dry", "--limit", "gpu01", "--limit", "gpu02", "inv.py", "deploys/driver.py"]
    assert Deploy(["gpu01"], "inv.py", Driver("590.48.01"), tmp_path / "log").words[0] == "-y"


@pytest.mark.parametrize("version", ["580", "newest", "580.95.05; reboot", "5800.1.2", "--dry"])
def test_what_is_no_version_is_wrong_usage(version: str) -> None:
    with pytest.raises(UsageError, match="--to"):
        check_version(version)


@pytest.mark.parametrize(
    ("log", "said"),
    [
        ("a\nb\n", "a\nb"),
        (
            "--> x\nFailed:\n  gpu01: it could not be built\n      Error 1\n",
            "gpu01: it could not be built\nError 1",
        ),
        ("Failed:\nold\nFailed:\n  gpu01: why\n" + "more\n" * 40, "gpu01: why\n" + "more\n" * 11),
    ],
)
def test_what_a_failed_deploy_said(log: str, said: str) -> None:
    assert said_last(log) == said.rstrip()


# -- what is planned


@pytest.mark.parametrize(
    ("one", "loaded", "why"),
    [
        (None, "580.95.05", "no NVIDIA driver is wanted there"),
        (plan(kind="keep"), "580.95.05", "driver 580.95.05 is there already"),
        (plan(kind="keep", loaded="580.95.05"), None, "driver 580.95.05 is there already"),
        # another rollout let go of it, and came no further
        (plan(kind="keep"), "acting", None),
        # it waits for a boot
        (plan(kind="keep"), "570.1.2", None),
        (plan(kind="keep"), None, None),
        (plan(), "580.95.05", None),
    ],
)
def test_where_nothing_is_to_be_done(
    one: DriverPlan | None, loaded: str | None, why: str | None
) -> None:
    acting = "driver" if loaded == "acting" else None
    now = HostSeen(host="gpu01", driver="580.95.05" if acting else loaded, acting=acting)
    assert settled(one, now) == why


def test_hosts_with_nothing_to_do_are_left_out() -> None:
    fleet = {
        "gpu01": HostSeen(host="gpu01", replicas=(replica(),), settled="driver 1 is there already"),
        "gpu02": HostSeen(host="gpu02", replicas=(replica(), replica("b"))),
    }
    found = make_plan(Wanted("driver", models=("tiny",)), fleet)
    assert [one.host for one in found.hosts] == ["gpu02"]
    # the whole host is drained, whatever was named
    assert [one.name for one in found.hosts[0].replicas] == ["tiny", "b"]
    assert [(one.what, one.why) for one in found.left_out] == [
        ("gpu01", "driver 1 is there already")
    ]


@pytest.mark.parametrize(
    ("fields", "why", "next_command"),
    [
        (
            {"refusals": ("590.99 is not on offer from source nvidia, which has 1, 2",)},
            "not on offer",
            "farrier exec gpu01 -- apt-get update; then farrier rollout driver --limit gpu01 --dry",
        ),
        ({"kind": "refused", "offers": ()}, "580.95.05-1 is installed", "--dry"),
        ({"version": None}, "does not know source nvidia yet", "deploys/llm.py"),
        ({"back_on_offer": False}, "is no longer on offer", "--no-way-back"),
        ({"back_on_offer": None}, "is not known", "--no-way-back"),
        (
            {"kind": "install", "version_before": None, "module_before": None},
            "no driver to go back to",
            "--no-way-back",
        ),
    ],
)
def test_refused_before_anything_is_drained(
    fields: dict[str, Any], why: str, next_command: str
) -> None:
    with pytest.raises(RefusedError) as found:
        refuse(plan(**fields), no_way_back=False)
    assert "nothing was drained" in found.value.what
    assert why in found.value.what
    assert next_command in (found.value.next or "")


def test_without_a_way_back_it_goes_on_where_that_may_be() -> None:
    refuse(plan(), no_way_back=False)
    assert has_way_back(plan())
    gone = plan(back_on_offer=False)
    refuse(gone, no_way_back=True)
    assert not has_way_back(gone)
    # a reboot alone takes nothing away
    refuse(plan(kind="keep", back_on_offer=False), no_way_back=False)
    with pytest.raises(RefusedError):
        refuse(plan(refusals=("no",)), no_way_back=True)


# -- what a host says

ANSWER = """\
package installed nvidia-kernel-open-dkms 590.48.01-1
package deinstall nvidia-kernel-dkms 570.1.2-1
loaded NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.95.05  Release Build
half
"""


def test_which_driver_is_on_a_host() -> None:
    found = on_host(ANSWER)
    assert dict(found.installed) == {"nvidia-kernel-open-dkms": "590.48.01-1"}
    assert (found.loaded, found.half, found.nouveau) == ("580.95.05", True, False)
    assert on_host("nouveau\n").nouveau
    assert on_host("").loaded is None
    assert "dpkg-query" not in question_of_driver([None])
    assert "'a b'" in question_of_driver(["a b", None])


@pytest.mark.parametrize(
    ("answer", "told", "why"),
    [
        ("", "580.95.05", "driver 580.95.05 was loaded, 590.48.01 is installed"),
        ("", None, "driver not known was loaded, 590.48.01 is installed"),
        ("", "590.48.01", None),
        (ANSWER, "590.48.01", "driver 580.95.05 is loaded, 590.48.01 is installed"),
        (ANSWER.replace("580.95.05", "590.48.01"), "580.95.05", None),
        ("nouveau", "590.48.01", "nouveau has the GPUs until the next boot"),
    ],
)
def test_when_a_host_has_to_reboot(answer: str, told: str | None, why: str | None) -> None:
    assert why_reboot(on_host(answer), "590.48.01-1", told=told) == why


def test_a_host_without_a_driver_needs_no_reboot_for_it() -> None:
    assert why_reboot(on_host(""), None, told="580.95.05") is None


# -- what is kept and shown


def ledger(**fields: Any) -> Ledger:
    planned = fields.pop("driver", None) or plan()
    host = HostRecord(
        host="gpu01",
        batch=0,
        replicas=[ReplicaRecord(name="tiny", model="tiny")],
        **({"state": "done"} | fields),
    )
    note_plan(host, planned)
    return Ledger(
        id="r-1",
        kind="driver",
        options=Options(driver="590.48.01"),
        operators=[Operator(holder="alice", since_at=0)],
        hosts=[host],
        planned_at=0,
    )


def text(*shown: Any) -> str:
    console = Console(width=200, file=io.StringIO())
    with console.capture() as captured:
        for one in shown:
            console.print(one)
    return captured.get()


def test_a_ledger_with_its_gates_is_written_read_and_shown() -> None:
    bad = GateRecord(name="pcie-width", expected="GPU 1: x16", seen="GPU 1 (u): x8", ok=False)
    unknown = GateRecord(name="speed", expected="-", seen="-", ok=None, note="not measured")
    again = decode(encode(ledger(gates=[bad, unknown])))
    assert again.hosts[0].gates == [bad, unknown]
    assert (again.hosts[0].driver_before, again.hosts[0].driver_wanted) == (
        "580.95.05",
        "590.48.01",
    )
    said = text(*gates_tables(again))
    for word in ("gpu01  gates", "pcie-width", "GPU 1: x16", "GPU 1 (u): x8", "FAILED"):
        assert word in said
    assert "- (not measured)" in said
    assert "not judged" in said
    planned = text(*driver_lines(again))
    assert "driver 580.95.05-1 → 590.48.01-1" in planned
    assert "way back: 580.95.05-1 is on offer" in planned


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, 'nvidia_driver_version = "590.48.01", nvidia_driver_branch = "590"'),
        ({"driver": plan(inventory="590.48.01")}, ""),
        ({"driver": plan(inventory="590.48")}, ""),
        ({"driver": plan(inventory=None)}, "write into the inventory of gpu01"),
        ({"state": "put back"}, ""),
    ],
)
def test_what_to_write_into_the_inventory(fields: dict[str, Any], said: str) -> None:
    found = text(*end_lines(ledger(**fields)))
    assert said in found
    assert bool(said) == bool(found.strip())


def test_a_host_that_turns_back_counts_what_was_cut_once() -> None:
    host = ledger().hosts[0]
    host.replicas[0].cut = 3
    host.reboots_for = "another one is loaded"
    host.turn_back("gate gpus: 1 GPU, expected 2 GPUs")
    assert (host.doing("driver"), host.cut) == ("driver-back", 3)
    assert host.reboots_for != "another one is loaded"
    host.replicas[0].cut = 1
    assert host.cut == 4
    assert json.loads(encode(ledger()))["schema"] == 1
