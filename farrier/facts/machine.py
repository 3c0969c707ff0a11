"""The machine itself: memory, IOMMU, clock, firewall and disks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

__all__ = ["Firewall", "MachineFacts"]


@dataclass(frozen=True, slots=True)
class Firewall:
    """What is let in. *kind* is who configured it: ``ufw``, ``nftables``, ``iptables`` or "".

    *open_ports* are TCP ports that some rule accepts, from wherever; *trusted* are networks and
    interfaces (not the loopback) from which everything is accepted.
    """

    kind: Literal["ufw", "nftables", "iptables", ""] = ""
    drops_by_default: bool = False
    open_ports: frozenset[int] = frozenset()
    trusted: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class MachineFacts:
    """A host's machine.

    *iommu* is ``off`` (no groups), ``passthrough`` (identity mappings) or ``translated``, as the
    GPUs are mapped (all devices where there is no GPU), None if unknown. *acs* are the PCI bridges
    above GPUs that redirect peer-to-peer traffic to the root complex. *hugepages* are those
    reserved of the default size *hugepage_kb* (KiB), *memory_mb* is the total in MiB,
    *transparent_hugepages* is ``always``, ``madvise``, ``never`` or "". *host_time* is in seconds
    since 1970. *disks* maps each path that was asked about to the free MiB of its file system,
    *inodes* to its free inodes (absent on file systems without a fixed number of them).
    """

    iommu: Literal["off", "passthrough", "translated"] | None = None
    acs: tuple[str, ...] = ()
    hugepages: int | None = None
    hugepage_kb: int | None = None
    memory_mb: int | None = None
    transparent_hugepages: str = ""
    host_time: float | None = None
    clock_synchronized: bool | None = None
    firewall: Firewall = Firewall()
    disks: Mapping[str, int] = field(default_factory=dict)
    inodes: Mapping[str, int] = field(default_factory=dict)
