"""Broken hosts: a healthy one with one thing broken each, its verdict, the line that repairs it.

Hosts that are really broken, and really repaired by the line, are in
tests/lab/test_preflight_on_hosts.py.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from farrier.facts.machine import Firewall
from farrier.preflight.basics import ModelFound
from farrier.preflight.found import Case, Found
from farrier.preflight.judge import AREAS, CODES, judge
from farrier.preflight.page import PAGE, page
from farrier.preflight.reach import CODES as REACH
from farrier.preflight.verdict import Code, Reason, Verdict
from farrier.preflight.wanted import DriverWanted
from farrier.spec import HostSpec
from tests.unit.preflight_hosts import (
    BGE,
    HEALTHY,
    NOW,
    QWEN,
    ROLE,
    SPEC,
    bus,
    case,
    seen,
)
from tests.unit.preflight_rows import TABLE
from tests.unit.preflight_rows.parts import (
    BARE,
    NO_FABRIC,
    OLD,
    Row,
    listening,
)


def reasons(verdict: Verdict, code: str) -> list[Reason]:
    return [reason for reason in verdict.reasons if reason.code == code]


@pytest.mark.parametrize("row", TABLE.values(), ids=TABLE)
def test_the_verdict_and_the_line_that_repairs_it(row: Row) -> None:
    verdict = judge(row.broken)
    assert verdict.state == row.verdict, verdict
    (reason,) = reasons(verdict, row.code)
    assert reason.repair == row.repair
    assert reason.where == row.where
    # One line, told once.
    assert "\n" not in reason.repair
    assert len(set(verdict.reasons)) == len(verdict.reasons)


@pytest.mark.parametrize("driver", [DriverWanted(), ROLE], ids=["own driver", "the role's"])
def test_a_healthy_host_is_ready(driver: DriverWanted) -> None:
    verdict = judge(case(role=driver))
    assert verdict.reasons == ()
    assert verdict.state == "ready"


def test_a_host_without_gpus_has_nothing_to_do_with_nvidia() -> None:
    gone: dict[str, Any] = {"pci": bus(0, switches=0), "driver": BARE, "fabric": NO_FABRIC}
    gone |= {"machine": {"firewall": Firewall()}}
    monitor = HostSpec("gw01", groups=("monitor", "gateway"))
    assert judge(case(spec=monitor, **gone)).reasons == ()
    model = replace(BGE, gpus=())
    cpu = HostSpec("gpu02", groups=("gpu",), accelerator="cpu", models=(model,))
    assert judge(case(spec=cpu, **gone)).reasons == ()


def test_every_code_is_in_the_table() -> None:
    """Those of hosts that cannot be reached are in test_preflight_reach.py."""
    told = {row.code for row in TABLE.values()}
    assert told == CODES.keys() - {code.name for code in REACH}
    assert sum(len(codes) for codes in AREAS.values()) == len(CODES), "a name is used twice"
    assert len(TABLE) >= 40


@pytest.mark.parametrize("code", CODES.values(), ids=CODES)
def test_a_code_is_documented(code: Code) -> None:
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", code.name)
    assert code.meaning.endswith(".")


def test_both_versions_are_named() -> None:
    (old,) = reasons(
        judge(TABLE["a driver that is too old for the engine"].broken), "driver-too-old"
    )
    assert OLD in old.message
    assert "580.65.06" in old.message
    assert "CUDA 13.0" in old.message
    (missing,) = reasons(judge(TABLE["no driver, and nobody brings one"].broken), "driver-missing")
    assert "none" in missing.message
    assert "580.65.06" in missing.message


def test_a_deploy_is_silent_about_what_its_roles_repair() -> None:
    bare = judge(TABLE["no driver, and the role brings one"].broken)
    assert bare.within("llm").state == "ready"
    old = judge(TABLE["a driver that is too old, and a role for it"].broken)
    assert old.within("llm").state == "refused"
    assert old.within("driver").state == "ready", old.within("driver")


def test_what_was_not_asked_gives_no_reason() -> None:
    assert judge(Case(case().wanted, Found(HEALTHY.basics, looked_at=NOW))).reasons == ()


def test_a_firewall_that_trusts_the_site_is_no_reason() -> None:
    closed = Firewall("nftables", True, frozenset({22}), ("10.0.0.0/8",))
    assert judge(case(machine={"firewall": closed})).reasons == ()
    docker = replace(closed, trusted=("docker0",))
    assert judge(case(machine={"firewall": docker})).state == "attention"


def test_unknown_sizes_give_no_reason() -> None:
    shared = tuple(replace(one, memory_mb=None) for one in seen(bus()))
    assert judge(case(driver={"gpus": shared})).reasons == ()
    unmeasured = {path: ModelFound("ok") for path in HEALTHY.basics.models}
    assert judge(case(basics={"models": unmeasured})).reasons == ()


def test_quantised_while_loading_weights_may_be_larger_than_the_memory() -> None:
    fp8 = replace(QWEN, args={"quantization": "fp8"})
    large = {path: ModelFound("ok", 440_000) for path in HEALTHY.basics.models}
    verdict = judge(case(spec=replace(SPEC, models=(fp8,)), basics={"models": large}))
    assert verdict.reasons == ()


def test_every_reason_is_told_at_once_refusals_first() -> None:
    verdict = judge(
        case(
            basics={"system": "fedora 43", "time": NOW - 4_000, **listening(8080, "caddy.service")},
            driver={"library": "580.105.08"},
            updates={"reboot_required": True},
        )
    )
    assert verdict.state == "refused"
    assert [reason.code for reason in verdict.refusals] == [
        "os-unsupported",
        "port-taken",
        "library-mismatch",
    ]
    assert [reason.code for reason in verdict.warnings] == ["clock-skew", "reboot-required"]


def test_the_page_says_what_the_rules_say() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run: make docs"


@pytest.mark.parametrize("name", CODES)
def test_every_code_is_on_the_page(name: str) -> None:
    assert f"| `{name}` |" in page()
