"""What a host has of a family of packages, which version it is to have, and what is refused."""

from __future__ import annotations

import pytest

from farrier.converge.held import (
    Family,
    FamilyState,
    Step,
    objection,
    parse_family,
    parse_simulation,
    wanted_version,
)

TOOLKIT = Family(
    ("cuda-toolkit-13-0",),
    r".+-13-0|cuda-toolkit-.+",
    "cuda_toolkit_version",
    "the CUDA toolkit",
)

STATES = """\
package ii |gcc|4:12.2.0-3
package hi |cuda-toolkit-13-0|13.0.1-1
package iU |cuda-nvcc-13-0|13.0.88-1
package rc |cuda-toolkit-12-9|12.9.1-1
held cuda-toolkit-13-0
held libc6:amd64
offered 13.0.2-1
offered 13.0.1-1
offered 13.0.1-1
"""

# apt 2.6.1 on Debian 12
SIMULATED = """\
NOTE: This is only a simulation!
Reading package lists...
The following packages will be REMOVED:
  nginx-light
Remv nginx-light [1.22.1-9+deb12u2]
Purg tree [2.1.0-1]
Inst libcuda1 (535.261.03-1 Debian:12.15/oldstable [amd64]) []
Inst gcc-12-base [12.2.0-13] (12.2.0-14+deb12u1 Debian:12.15/oldstable [amd64])
Inst cuda-toolkit-13-0 (13.0.2-1 NVIDIA:12.0/stable, Other:1/x [amd64])
Inst libc6-dev:i386 (2.36-9 Debian:12.15/oldstable [i386])
Conf cuda-toolkit-13-0 (13.0.2-1 NVIDIA:12.0/stable [amd64])
"""


def test_what_a_host_has() -> None:
    now = parse_family(STATES.splitlines())
    assert now.installed == {
        "gcc": "4:12.2.0-3",
        "cuda-toolkit-13-0": "13.0.1-1",
        "cuda-nvcc-13-0": "13.0.88-1",
    }
    assert now.held == {"cuda-toolkit-13-0", "libc6"}
    assert now.offered == ("13.0.2-1", "13.0.1-1")
    assert now.unfinished == ("cuda-nvcc-13-0",)


@pytest.mark.parametrize(
    ("asked", "installed", "wanted"),
    [
        (None, None, "13.0.2-1"),
        (None, "13.0.1-1", "13.0.1-1"),
        ("13.0.1", None, "13.0.1-1"),
        ("13.0", None, "13.0.2-1"),
        ("13.0", "13.0.1-1", "13.0.1-1"),
        ("13.0.1-1", "13.0.2-1", "13.0.1-1"),
        ("12.9.9", "12.9.9-1", "12.9.9-1"),  # there, though no longer on offer
    ],
)
def test_the_wanted_version(asked: str | None, installed: str | None, wanted: str) -> None:
    has = {"cuda-toolkit-13-0": installed} if installed else {}
    now = FamilyState(installed=has, offered=("13.0.2-1", "13.0.1-1"))
    assert wanted_version(TOOLKIT, asked, now) == wanted


@pytest.mark.parametrize(
    ("asked", "offered", "told"),
    [
        ("13.0.9", ("13.0.2-1", "13.0.1-1"), "apt offers 13.0.2-1, 13.0.1-1"),
        (None, (), "apt offers no version of it"),
    ],
)
def test_a_version_that_there_is_not(
    asked: str | None, offered: tuple[str, ...], told: str
) -> None:
    with pytest.raises(LookupError, match=told):
        wanted_version(TOOLKIT, asked, FamilyState(offered=offered))


def test_a_simulation_is_read() -> None:
    assert parse_simulation(SIMULATED.splitlines()) == (
        Step("Remv", "nginx-light", "1.22.1-9+deb12u2"),
        Step("Purg", "tree", "2.1.0-1"),
        Step("Inst", "libcuda1", "", "535.261.03-1"),
        Step("Inst", "gcc-12-base", "12.2.0-13", "12.2.0-14+deb12u1"),
        Step("Inst", "cuda-toolkit-13-0", "", "13.0.2-1"),
        Step("Inst", "libc6-dev", "", "2.36-9"),
    )


@pytest.mark.parametrize(
    ("step", "told"),
    [
        (Step("Inst", "gcc", "", "12"), ""),
        (Step("Inst", "cuda-nvcc-13-0", "13.0.1", "13.0.2"), ""),
        (Step("Remv", "cuda-nvcc-13-0", "13.0.1"), ""),
        (Step("Remv", "nginx", "1.22"), "nginx 1.22 would be removed"),
        (Step("Purg", "nginx", "1.22"), "nginx 1.22 would be removed"),
        (Step("Inst", "gcc", "11", "12"), "gcc would be changed from 11 to 12"),
        (Step("Inst", "libcuda1", "", "535"), "libcuda1 535 would come along"),
    ],
)
def test_what_a_transaction_may_do(step: Step, told: str) -> None:
    assert objection(TOOLKIT, [step]).startswith(told)
    assert bool(objection(TOOLKIT, [step])) == bool(told)
