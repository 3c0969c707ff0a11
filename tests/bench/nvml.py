"""What NVML's calls take, one by one: :mod:`tests.bench.nvml_calls` in a process of its own.

With a driver's own library on a host with GPUs; without one the fake library answers, which shows
what the agent and the binding add, and nothing of a driver.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.bench import pages
from tests.bench.course import ROOT
from tests.fakes.nvml import build as fake_nvml

__all__ = ["nvml"]

GPUS = 8
TIMEOUT = 300.0


def nvml(say: Callable[[str], None], library: str | None = None) -> None:
    """Measure *library*, or the fake one, and write its section. Raises RuntimeError."""
    written = pages.written("make bench PART=nvml", f"NVML: {library or 'a stand-in'}")
    with tempfile.TemporaryDirectory(prefix="farrier-bench-") as scratch:
        if library is None:
            what = (
                "**A stand-in**: `tests/fakes/nvml`, no driver and no GPU. The times are those of"
                " the binding and of a lookup in a table; a real driver's are longer."
            )
            library = str(fake_nvml.build(Path(scratch)))
        else:
            what = f"`{library}`."
        state = Path(scratch, "state")
        state.write_text(f"count {GPUS}\n")
        said = _measured(library, state)
    pages.rewrite("nvml", "\n\n".join([written, what, said.strip(), pages.ended()]))
    say(said.partition("\n")[0])


def _measured(library: str, state: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench.nvml_calls", "--library", library],
        cwd=ROOT,
        env={**os.environ, "FAKE_NVML_STATE": str(state)},
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"NVML's calls cannot be measured: {done.stderr.strip()}")
    return done.stdout
