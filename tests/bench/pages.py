"""docs/benchmarks.md: what `make bench` rewrites in it stands between markers."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path

from tests.bench.course import ROOT

__all__ = ["machine", "rewrite"]

PAGE = ROOT / "docs" / "benchmarks.md"


def rewrite(section: str, text: str, page: Path = PAGE) -> None:
    """Put *text* between the markers of *section*. Raises ValueError where there are none."""
    begin, end = f"<!-- make bench: {section} -->", f"<!-- end: {section} -->"
    before, marker, rest = page.read_text().partition(begin)
    _, closing, after = rest.partition(end)
    if not marker or not closing:
        raise ValueError(f"{page} has no markers {begin} … {end}")
    page.write_text(f"{before}{begin}\n\n{text.strip()}\n\n{end}{after}")


def machine() -> str:
    """This machine and the versions of what was measured, in a sentence."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{os.cpu_count()} cores ({model}), {memory:.0f} GiB, Linux {platform.release()};"
        f" CPython {platform.python_version()}, pyinfra {version('pyinfra')}, paramiko"
        f" {version('paramiko')}, ansible-core {version('ansible-core')}"
    )
