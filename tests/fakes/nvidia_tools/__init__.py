"""Stand-ins for NVIDIA's programs, which speak through the fake NVML's state file.

``nvidia-smi`` (``-q``, ``--gpu-reset``), ``nvidia-bug-report.sh`` and ``dcgmi diag``: as much
of each as Farrier calls, with the words that the real ones print. :func:`install` puts them into a
directory of PATH; without the state file there is no driver.
"""

from __future__ import annotations

import sys
from pathlib import Path

__all__ = ["PROGRAMS", "install"]

PROGRAMS = {
    "nvidia-smi": "smi.py",
    "nvidia-bug-report.sh": "bug_report.py",
    "dcgmi": "dcgmi.py",
}


def install(directory: Path, *names: str, state: Path | None = None) -> None:
    """Put the programs *names* (all, without one) into *directory*.

    *state* is the state file where $FAKE_NVML_STATE does not say it: who runs them may pass on no
    environment.
    """
    told = f"export FAKE_NVML_STATE=${{FAKE_NVML_STATE:-{state}}}\n" if state else ""
    for name in names or PROGRAMS:
        path = directory / name
        script = Path(__file__).with_name(PROGRAMS[name])
        path.write_text(f'#!/bin/sh\n{told}exec {sys.executable} -I {script} "$@"\n')
        path.chmod(0o755)
