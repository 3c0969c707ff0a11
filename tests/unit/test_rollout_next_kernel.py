"""Does the kernel of the next boot have the driver? What a host answered, and what follows."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from farrier.rollout.next_kernel import question_of_kernels, why_not

OLD, NEW = "6.1.0-9-amd64", "6.1.0-40-amd64"


def answer(*lines: str, headers: str = "yes") -> str:
    kernels = (f"installed {OLD} yes yes", f"installed {NEW} {headers} yes")
    return "\n".join((f"kernel {OLD}", *kernels, *lines))


def built(*releases: str) -> tuple[str, ...]:
    return tuple(f"built {one}" for one in releases)


DKMS = f"dkms nvidia/580.95.05, {OLD}, x86_64: installed"


@pytest.mark.parametrize(
    "lines",
    [
        (),  # no driver
        (*built(OLD, NEW), DKMS, f"dkms nvidia/580.95.05, {NEW}, x86_64: installed"),
        built(OLD, NEW),  # the distribution's own modules
        (*built(OLD, NEW), "dkms zfs/2.1.11: added"),
    ],
)
def test_a_host_that_comes_back_with_its_driver_is_rebooted(lines: tuple[str, ...]) -> None:
    assert why_not(answer(*lines)) is None


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ((*built(OLD), DKMS), "not even added"),
        ((*built(OLD), DKMS, f"dkms nvidia/580.95.05, {NEW}, x86_64: added"), "580.95.05: added"),
        ((*built(OLD, NEW), DKMS, f"dkms nvidia/580.95.05, {NEW}, x86_64: built"), "built"),
        (("dkms nvidia-current/535.261.03: added",), "nvidia-current/535.261.03: added"),
        (built(OLD), "not even added"),
    ],
)
def test_one_that_would_not_is_refused_with_the_line_that_repairs_it(
    lines: tuple[str, ...], told: str
) -> None:
    found = why_not(answer(*lines))
    assert found is not None
    why, line = found
    assert why.startswith(f"the next boot brings kernel {NEW}, for which no driver is built")
    assert told in why
    assert line == f"dkms autoinstall -k {NEW}"


def test_without_headers_they_come_first() -> None:
    found = why_not(answer(*built(OLD), DKMS, headers="no"))
    assert found is not None
    assert found[1] == f"apt-get install -y linux-headers-{NEW}"


def test_a_host_without_kernels_of_its_own_is_anothers_to_boot() -> None:
    assert why_not(f"kernel {OLD}\ncontainer\nbuilt {OLD}") is None


def test_the_question_is_a_shells(tmp_path: Path) -> None:
    done = subprocess.run(
        ["sh", "-c", question_of_kernels()], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("kernel ")
    why_not(done.stdout)
