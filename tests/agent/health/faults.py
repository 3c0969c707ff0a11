"""Every fault, one at a time, and what is concluded: this reads like docs/health.md.

The host has eight GPUs; replica a uses 0 and 1, b 2 and 3, c 4 and 5, d 6 and 7.
"""

from __future__ import annotations

from typing import NamedTuple

from farrier_agent.gpus import Fabric, GpuProcess, NvLink
from farrier_agent.health.observed import FABRIC_MANAGER, PERSISTENCED

from tests.agent.health.changes import (
    blind,
    fabric_manager,
    flapping,
    held_down,
    nvml,
    rows_of_memory,
    uncorrected,
)
from tests.agent.health.scene import Change, away, of, replica, set_to, uuid, xid

NOBODY: tuple[str, ...] = ()
RESET = "reset the GPU"
REBOOT = "reboot the host"


class Row(NamedTuple):
    """*fault*: on GPU *gpu* (None: of no GPU) it becomes *state* for *rule* within *ticks*."""

    fault: tuple[Change, ...]
    state: str
    rule: str
    next: str
    drained: tuple[str, ...] = NOBODY
    gpu: int | None = None
    command: str = ""
    ticks: int = 2
    replica: str | None = None
    beside: tuple[str, ...] = ()


def reset_command(index: int, unit: str) -> str:
    services = f"{unit} {PERSISTENCED}"
    return (
        f"systemctl stop {services} && farrier-agent nvml release && "
        f"nvidia-smi --gpu-reset -i {uuid(index)}; farrier-agent nvml acquire; "
        f"systemctl start {services}"
    )


STALE = ("data-stale",)
TABLE: dict[str, Row] = {
    # What answers at all.
    "a call of NVML hangs": Row(
        (nvml("hangs", call="nvmlDeviceGetTemperature"),),
        "unhealthy", "nvml-hangs", REBOOT, command="systemctl reboot", beside=STALE, ticks=3,
    ),
    "driver exchanged underneath": Row(
        (nvml("mismatch"),), "unhealthy", "nvml-mismatch", REBOOT, beside=STALE, ticks=3
    ),
    "no library": Row(
        (nvml("no_library"),), "unknown", "nvml-unreadable",
        "install the driver's library (nvml_library names another place)", beside=STALE, ticks=3,
    ),
    "no permission": Row(
        (nvml("no_permission"),), "unknown", "nvml-unreadable", "let the agent open /dev/nvidia*",
        beside=STALE, ticks=3,
    ),
    "driver not loaded": Row(
        (nvml("not_loaded"),), "unknown", "nvml-unreadable", "load the driver",
        command="modprobe nvidia", beside=STALE, ticks=3,
    ),
    "NVML fails": Row(
        (nvml("failed", detail="Unknown Error"),), "unknown", "nvml-unreadable",
        "see why the agent cannot read", beside=STALE, ticks=3,
    ),
    "data are stale": Row(
        (set_to(gpus=None),), "unknown", "data-stale", "see why the agent cannot read",
        gpu=3, ticks=3,
    ),
    "NVML is released": Row(
        (nvml("released"),), "unknown", "data-stale", "take NVML back when the work is done",
        gpu=0, command="farrier-agent nvml acquire", ticks=3,
    ),
    "GPU gone": Row((away(2, "gone"),), "unhealthy", "gpu-missing", REBOOT, ("b",), 2),
    "GPU on the PCI bus only": Row(
        (away(5, "unseen"),), "unhealthy", "gpu-missing", REBOOT, ("c",), 5
    ),
    "GPU lost": Row((away(7, "lost"),), "unhealthy", "gpu-lost", REBOOT, ("d",), 7),
    "GPU hangs": Row(
        (away(1, "hangs"),), "unhealthy", "gpu-hangs", RESET, ("a",), 1,
        reset_command(1, "engine-a.service"),
    ),
    "4 of 8 GPUs gone": Row(
        tuple(away(index, "gone") for index in (4, 5, 6, 7)),
        "unhealthy", "gpu-missing", REBOOT, ("c", "d"), 4,
    ),
    "a replica is to use a GPU that is not there": Row(
        (set_to(replicas=(replica("a", 0, 1), replica("e", 8))),),
        "unhealthy", "gpu-missing", REBOOT, ("e",), replica="e",
    ),
    # What the driver wants.
    "recovery: reset": Row(
        (of(0, recovery_action="gpu_reset"),), "unhealthy", "gpu-recovery-action", RESET, ("a",), 0,
        reset_command(0, "engine-a.service"),
    ),
    "recovery: reboot": Row(
        (of(0, recovery_action="node_reboot"),),
        "unhealthy", "gpu-recovery-action", REBOOT, ("a",), 0, "systemctl reboot",
    ),
    "recovery: drain and reset": Row(
        (of(6, recovery_action="drain_and_reset"),),
        "unhealthy", "gpu-recovery-action", RESET, ("d",), 6,
    ),
    "recovery: bus reset": Row(
        (of(6, recovery_action="bus_reset"),), "unhealthy", "gpu-recovery-action", REBOOT, ("d",), 6
    ),
    "recovery: IMEX domain": Row(
        (of(6, recovery_action="imex_domain"),),
        "unhealthy", "gpu-recovery-action", "restart the IMEX domain's service", ("d",), 6,
        "systemctl restart nvidia-imex",
    ),
    "recovery: peer-to-peer": Row(
        (of(6, recovery_action="drain_p2p"),),
        "degraded", "gpu-recovery-advice", "see what the driver wants", gpu=6,
    ),
    "recovery: something newer": Row(
        (of(6, recovery_action="unknown"),),
        "degraded", "gpu-recovery-advice", "see what the driver wants", gpu=6,
    ),
    "XID 154 announces a reset": Row(
        (xid(3, 154, recovery_action="gpu_reset"),),
        "unhealthy", "gpu-recovery-action", RESET, ("b",), 3,
    ),
    "XID 154 announces a reboot": Row(
        (xid(3, 154, recovery_action="node_reboot"),),
        "unhealthy", "gpu-recovery-action", REBOOT, ("b",), 3,
    ),
    # Memory.
    "row remap failed": Row(
        (of(0, remapped_rows=rows_of_memory(failed=True)),),
        "unhealthy", "row-remap-failed", "return the board", ("a",), 0, "nvidia-bug-report.sh",
    ),
    "row remap pending": Row(
        (of(0, remapped_rows=rows_of_memory(pending=True)),),
        "degraded", "row-remap-pending", RESET, gpu=0,
    ),
    "page retirement pending": Row(
        (of(0, remapped_rows=None, retired_pages_pending=True),),
        "degraded", "row-remap-pending", RESET, gpu=0,
    ),
    "SRAM threshold": Row(
        (of(4, sram_threshold_exceeded=True),),
        "unhealthy", "sram-threshold", "return the board", ("c",), 4,
    ),
    "uncorrected errors, nothing says contained": Row(
        (blind(4), uncorrected(4)), "unhealthy", "ecc-uncorrected", RESET, ("c",), 4
    ),
    # XIDs.
    "XID 79": Row((xid(2, 79),), "unhealthy", "xid-reboot", REBOOT, ("b",), 2),
    "XID 151": Row((xid(2, 151),), "unhealthy", "xid-reboot", REBOOT, ("b",), 2),
    "XID 119": Row((xid(2, 119),), "unhealthy", "xid-reset", RESET, ("b",), 2),
    "XID 109, as the catalog has it": Row(
        (xid(2, 109),), "unhealthy", "xid-reset", RESET, ("b",), 2
    ),
    "XID 95": Row((xid(2, 95),), "unhealthy", "xid-reset", RESET, ("b",), 2),
    "XID 48 alone, no recovery action told": Row(
        (blind(2), xid(2, 48)), "unhealthy", "xid-reset", RESET, ("b",), 2
    ),
    "XID 149, fatal": Row(
        (xid(2, 149, text="NETIR_LINK_EVT Fatal XC0 i0 Link 08"),),
        "unhealthy", "xid-reset", RESET, ("b",), 2,
    ),
    "XID 149, not fatal": Row(
        (xid(2, 149, text="NETIR_LINK_EVT Nonfatal XC0 i0 Link 08"),),
        "degraded", "xid-link", "check the cables and bridges", gpu=2,
    ),
    "XID 74": Row(
        (xid(2, 74),), "degraded", "xid-link", "check the cables and bridges", gpu=2,
        command=f"nvidia-smi nvlink --status -i {uuid(2)}",
    ),
    "XID 54": Row((xid(2, 54),), "unhealthy", "xid-power", "check the power cables", ("b",), 2),
    "XID 78": Row(
        (xid(2, 78),), "degraded", "xid-software", "update the driver (docs/driver.md)", gpu=2
    ),
    "XID 31 four times within an hour": Row(
        tuple(xid(2, 31, ago) for ago in (2400, 1800, 1200, 600)),
        "degraded", "xid-app-repeated", "restart the replica", gpu=2,
        command="farrier-agent restart b",
    ),
    "five fatal XIDs within 24 hours": Row(
        tuple(xid(2, 119, ago) for ago in (80000, 60000, 40000, 20000, 600)),
        "unhealthy", "xid-contact", "have the hardware inspected, then return the board", ("b",), 2,
        beside=("xid-reset",),
    ),
    "XID 79 of a GPU that nobody knows": Row(
        (xid(None, 79),), "unhealthy", "xid-reboot", REBOOT
    ),
    "XID 79 while NVML hangs": Row(
        (nvml("hangs"), xid(2, 79)), "unhealthy", "xid-reboot", REBOOT, ("b",), 2,
        beside=("nvml-hangs",),
    ),
    # Links.
    "fabric not ready": Row(
        (of(3, fabric=Fabric(state="in_progress", status=0)),),
        "unhealthy", "fabric-not-ready", "restart the fabric manager", ("b",), 3,
        f"systemctl restart {FABRIC_MANAGER}",
    ),
    "fabric refused": Row(
        (of(3, fabric=Fabric(state="completed", status=26)),),
        "unhealthy", "fabric-not-ready", "restart the fabric manager", ("b",), 3,
    ),
    "fabric with degraded bandwidth": Row(
        (of(3, fabric=Fabric(state="completed", status=0, problems=("degraded_bandwidth",))),),
        "degraded", "fabric-problem", "read what the fabric manager says", gpu=3,
    ),
    "fabric manager dead, GPUs still registered": Row(
        (fabric_manager("failed"),), "degraded", "fabric-manager", "restart the fabric manager"
    ),
    "fabric manager flapping": Row(
        (flapping(),), "degraded", "fabric-manager", "read what the fabric manager says"
    ),
    "fabric declared, no manager installed": Row(
        (set_to(fabric="required"), fabric_manager("inactive", load_state="not-found")),
        "degraded", "fabric-manager", "install the fabric manager of the driver's version",
    ),
    "NVLink down": Row(
        (of(3, nvlinks=tuple(NvLink(link=link, up=link != 5) for link in range(18))),),
        "degraded", "nvlink-down", "check the cables and bridges", gpu=3,
    ),
    "NVLink brought up again": Row(
        (of(3, nvlinks=(NvLink(link=0, up=True, recovery_errors_total=1),)),),
        "degraded", "nvlink-errors", "check the cables and bridges", gpu=3, ticks=1,
    ),
    "PCIe at half its width while busy": Row(
        (of(3, pcie_width=8),), "degraded", "pcie-degraded", "check slot, riser and cables", gpu=3,
        ticks=14,
    ),
    "PCIe at generation 1 while busy": Row(
        (of(3, pcie_generation=1),), "degraded", "pcie-degraded", "check slot, riser and cables",
        gpu=3, ticks=14,
    ),
    # Heat and power.
    "slowed down by heat": Row(
        (held_down(3, "hw_thermal"),), "degraded", "thermal-slowdown",
        "check fans, filters and inlet air", gpu=3, ticks=62,
    ),
    "slowed down by heat, an older part": Row(
        (held_down(3, "hw_slowdown"),), "degraded", "thermal-slowdown",
        "check fans, filters and inlet air", gpu=3, ticks=62,
    ),
    "power brake": Row(
        (held_down(3, "hw_power_brake"),), "degraded", "power-brake", "check the power cables",
        gpu=3, ticks=62,
    ),
    "no margin of temperature": Row(
        (of(3, temperature_margin_celsius=2.0),), "degraded", "temperature-margin",
        "check fans, filters and inlet air", gpu=3, ticks=14,
    ),
    "no margin, by the threshold": Row(
        (
            of(
                3,
                temperature_margin_celsius=None,
                temperature_celsius=86.0,
                temperature_slowdown_celsius=89.0,
            ),
        ),
        "degraded", "temperature-margin", "check fans, filters and inlet air", gpu=3, ticks=14,
    ),
    # How it is set up.
    "persistence off": Row(
        (of(3, persistence_mode=False),), "degraded", "persistence-off",
        "switch persistence mode on", gpu=3, command=f"nvidia-smi -i {uuid(3)} -pm 1",
    ),
    "ECC off": Row(
        (of(3, ecc_enabled=False),), "degraded", "ecc-off", "switch ECC on, then reset the GPU",
        gpu=3,
    ),
    "a stranger on a replica's GPU": Row(
        (of(3, processes=(GpuProcess(pid=77, unit="user@1000", managed=False),)),),
        "degraded", "unmanaged-process", "end the process, or move it to another GPU", gpu=3,
        ticks=8,
    ),
    # What the agent sees.
    "kernel log unreadable": Row(
        (set_to(xids=None, kernel_log_problem="/dev/kmsg: Permission denied"),),
        "degraded", "kernel-log-unreadable", "let the agent read the kernel log",
    ),
    "PCI bus unreadable": Row(
        (set_to(pci_problem="/sys/bus/pci/devices: No such file or directory"),),
        "degraded", "pci-unreadable", "let the agent read /sys/bus/pci",
    ),
    # Replicas. serving/healing.py drains and restarts these.
    "wedged": Row(
        (set_to(replicas=(replica("a", 0, health="wedged"),)),),
        "unhealthy", "replica-wedged", "restart the replica", command="farrier-agent restart a",
        replica="a", ticks=1,
    ),
    "failed": Row(
        (set_to(replicas=(replica("a", 0, phase="failed", reason="exit-code"),)),),
        "unhealthy", "replica-failed", "restart the replica", replica="a", ticks=1,
    ),
    "restarted again and again": Row(
        (set_to(replicas=(replica("a", 0, health_restarts=2),)),),
        "degraded", "replica-restarting", "see what it hung in", replica="a",
    ),
    "a replica out of sight": Row(
        (set_to(replicas=(replica("a", 0, up=None),)),),
        "unknown", "replica-unseen", "see why the agent cannot read", replica="a", ticks=1,
    ),
}  # fmt: skip
