"""Mounts of the lab: one overlay per host over its base tree, and removing trees safely."""

from __future__ import annotations

import shutil
from pathlib import Path

from farrier.lab.commands import run
from farrier.lab.state import HostFiles

__all__ = ["is_mounted", "mount_overlay", "mounts_below", "remove_tree", "unmount_below"]


def mounts_below(path: Path, mountinfo: Path = Path("/proc/self/mountinfo")) -> list[Path]:
    """Mount points at or below *path*, deepest first (proc(5): the fifth field, octal escapes)."""
    points = []
    for line in mountinfo.read_text(encoding="utf-8", errors="surrogateescape").splitlines():
        point = Path(line.split(" ")[4].replace(r"\040", " "))
        if point == path or path in point.parents:
            points.append(point)
    return points[::-1]


def is_mounted(host: HostFiles) -> bool:
    """Whether *host*'s overlay is mounted."""
    return host.merged in mounts_below(host.merged)


def mount_overlay(host: HostFiles, base: Path) -> None:
    """Mount *host*'s disk over *base*, unless it is mounted."""
    if is_mounted(host):
        return
    for directory in (host.upper, host.work, host.merged):
        directory.mkdir(parents=True, exist_ok=True)
    host.upper.chmod(0o755)  # it becomes the mode of the host's own /
    layers = f"lowerdir={base},upperdir={host.upper},workdir={host.work}"
    run(["mount", "-t", "overlay", "farrier-lab", "-o", layers, host.merged])


def unmount_below(path: Path) -> None:
    """Unmount all at or below *path*; what is busy is detached and ends with its last user."""
    for point in mounts_below(path):
        run(["umount", "--lazy", point])


def remove_tree(path: Path) -> None:
    """Remove *path* and all below it, but never what is mounted there."""
    unmount_below(path)
    if path.exists():
        shutil.rmtree(path)
