"""What root does for a rollout: reboot, or run a command."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

__all__ = ["reboot", "run_command"]


def reboot(arguments: argparse.Namespace) -> int:
    """Mark, then reboot. Returns the exit code."""
    raise NotImplementedError


def run_command(arguments: argparse.Namespace, words: Sequence[str]) -> int:
    """Mark, then run *words*. Returns the exit code."""
    raise NotImplementedError
