"""What changes packages, or restarts services, while nobody looks."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["UpdateFacts"]


@dataclass(frozen=True, slots=True)
class UpdateFacts:
    """unattended-upgrades, needrestart, and whether a restart of the host is asked for.

    *touchable* are installed packages of the driver that are neither held nor in
    unattended-upgrades' Package-Blacklist, whether or not it is enabled. *needrestart* is its mode
    (``l`` lists, ``i`` asks, ``a`` restarts by itself), None if it is not installed;
    *needrestart_spares* says whether its configuration keeps it from engines, nginx and the agent
    (True where it is not installed). *reboot_because* are the packages that asked for a reboot.
    """

    unattended_enabled: bool = False
    touchable: tuple[str, ...] = ()
    needrestart: str | None = None
    needrestart_spares: bool = True
    reboot_required: bool = False
    reboot_because: tuple[str, ...] = ()
