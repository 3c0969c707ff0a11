"""What health is judged from: everything that the agent saw at one moment. Values only."""

from __future__ import annotations

from typing import Literal

import msgspec

from farrier_agent.gpus import Gpus, Nvml, UnitOnGpu, XidEvent
from farrier_agent.status import Replica, Unit

__all__ = ["FABRIC_MANAGER", "PERSISTENCED", "Observed"]

FABRIC_MANAGER = "nvidia-fabricmanager.service"
PERSISTENCED = "nvidia-persistenced.service"


class Observed(msgspec.Struct, frozen=True, kw_only=True):
    """One moment: ``at`` seconds since the epoch, ``monotonic`` seconds of that clock.

    ``boot_id`` is empty when it could not be read. ``gpus`` is None without fresh data; it has the
    remembered GPUs too, those that are missing with ``up`` false. ``read`` is when they were read
    (monotonic; None: just now): the same reading handed in twice is one look. ``xids`` are those
    of this boot that are kept, None when no source of them can be read. ``kernel_log_problem`` and
    ``pci_problem`` say what keeps the kernel log and the PCI bus from being read. ``units`` are by
    name; one that is not there is not known, one that is not installed says so itself. ``replicas``
    are as ``/status`` has them. ``fabric`` is the setting of agent.toml.
    """

    at: float
    monotonic: float
    boot_id: str
    accelerator: Literal["cuda", "cpu"] = "cuda"
    gpus: Gpus | None = None
    read: float | None = None
    nvml: Nvml | None = None
    xids: tuple[XidEvent, ...] | None = None
    kernel_log_problem: str | None = None
    pci_problem: str | None = None
    units: dict[str, Unit] = {}
    replicas: tuple[Replica, ...] = ()
    gpu_units: tuple[UnitOnGpu, ...] = ()
    fabric: Literal["required", "none", "auto"] = "auto"
