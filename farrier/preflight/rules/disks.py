"""Room on the disks: for packages and logs, and for the programs that will be installed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from farrier.preflight.verdict import Code, Reason

if TYPE_CHECKING:
    from collections.abc import Iterator

    from farrier.preflight.found import Case

__all__ = ["CODES", "MINIMUM_INODES", "MINIMUM_MB", "PROGRAM_INODES", "RULES"]

MINIMUM_MB = {"/": 500, "/var": 500}
"""Free MiB for packages and logs."""

MINIMUM_INODES = 5_000
"""For packages: a round number, with room to spare."""

PROGRAM_INODES = 80_000
"""For an environment of vLLM. The CPU build's has 38,255 files and directories (0.32.0, counted);
CUDA's has more, which nobody has counted: twice that is an estimate."""

DISK_FULL = Code(
    "disk-full",
    "refuse",
    "Less than 500 MB is free for packages and logs: an apt that runs out of it leaves dpkg half"
    " done.",
    "apt-get clean; journalctl --vacuum-size=200M",
)
DISK_TOO_SMALL = Code(
    "disk-too-small",
    "refuse",
    "A program that will be installed (an environment under /opt/farrier) does not fit.",
    "apt-get clean; journalctl --vacuum-size=200M; du -xsm /opt/* /opt/farrier/*/* | sort -n",
)
INODES_GONE = Code(
    "inodes-gone",
    "refuse",
    "The file system has space, but too few inodes for the files that will be installed.",
    "du -x --inodes {mount} | sort -n | tail -n 20",
)


def free_space(case: Case) -> Iterator[Reason]:
    """Enough for packages and logs."""
    for directory, minimum in MINIMUM_MB.items():
        disk = case.basics.disks.get(directory)
        if disk is not None and disk.free_mb < minimum:
            yield DISK_FULL.reason(
                f"{directory} has {disk.free_mb} MB free, {minimum} are needed (df -h {directory})"
            )


def room_for_programs(case: Case) -> Iterator[Reason]:
    """Enough for the environments that are not there yet."""
    disk = case.basics.disks.get("/opt")
    missing = [one for one in case.wanted.programs if one.path not in case.basics.complete]
    needed = sum(one.needs_mb for one in missing)
    if disk is not None and disk.free_mb < needed:
        names = ", ".join(one.name for one in missing)
        yield DISK_TOO_SMALL.reason(
            f"{names} takes {needed} MB below /opt, and {disk.mount} has {disk.free_mb} MB free"
        )


def free_inodes(case: Case) -> Iterator[Reason]:
    """Enough for the files."""
    to_come = any(one.path not in case.basics.complete for one in case.wanted.programs)
    wanted = {"/": MINIMUM_INODES, "/opt": PROGRAM_INODES if to_come else 0}
    told = set()
    for directory, minimum in wanted.items():
        disk = case.basics.disks.get(directory)
        if disk is None or disk.inodes is None or disk.inodes >= minimum or disk.mount in told:
            continue
        told.add(disk.mount)
        yield INODES_GONE.reason(
            f"{disk.mount} has {disk.inodes} inodes left, {minimum} files will be written"
            f" (df -i {disk.mount})",
            mount=disk.mount,
        )


CODES = (DISK_FULL, DISK_TOO_SMALL, INODES_GONE)
RULES = (free_space, room_for_programs, free_inodes)
