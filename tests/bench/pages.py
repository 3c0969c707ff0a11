"""docs/benchmarks.md: what `make bench` rewrites in it stands between markers."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

from tests.bench.course import ROOT

__all__ = ["ended", "machine", "rewrite", "written"]

PAGE = ROOT / "docs" / "benchmarks.md"


def rewrite(section: str, text: str, page: Path = PAGE) -> None:
    """Put *text* between the markers of *section*. Raises ValueError where there are none."""
    begin, end = f"<!-- make bench: {section} -->", f"<!-- end: {section} -->"
    before, marker, rest = page.read_text().partition(begin)
    _, closing, after = rest.partition(end)
    if not marker or not closing:
        raise ValueError(f"{page} has no markers {begin} … {end}")
    page.write_text(f"{before}{begin}\n\n{text.strip()}\n\n{end}{after}")


def written(command: str, versions: str = "") -> str:
    """When, by which *command*, from which commit, on what machine and with how much load on it.

    *versions* are those of what was measured; without them, those of the two converges.
    """
    argv = ["git", "describe", "--always", "--dirty"]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    today = datetime.datetime.now(datetime.UTC)
    return (
        f"Written by `{command}` on {today:%-d %B %Y} at commit {done.stdout.strip() or 'unknown'}."
        f" {machine(versions)}. Load average at the start: {os.getloadavg()[0]:.1f}."
    )


def ended() -> str:
    """How much load there was on the machine by the end."""
    return f"Load average at the end: {os.getloadavg()[0]:.1f}."


def machine(versions: str = "") -> str:
    """This machine and the *versions* of what was measured, in a sentence."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    versions = versions or (
        f"CPython {platform.python_version()}, pyinfra {version('pyinfra')}, paramiko"
        f" {version('paramiko')}, ansible-core {version('ansible-core')}"
    )
    kernel = platform.release()
    return f"{os.cpu_count()} cores ({model}), {memory:.0f} GiB, Linux {kernel}; {versions}"
