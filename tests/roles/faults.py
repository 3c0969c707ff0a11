"""Faults of GPUs, put on a real host one at a time: by the fake NVML, the kernel's log, sysfs.

The table reads like docs/health.md: what happens to GPU ``{g}``, what is concluded, who is drained.
All three are stand-ins for the hardware; the agent, its unit, nginx and systemd are real.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from tests.agent.host import pci_address
from tests.roles.fleet import GPU_STATE, GPU_TREE, Fleet, until

__all__ = ["DRAINS", "FAULTS", "KMSG", "TICKS", "Fault", "Site"]

TICKS = 2
"""Looks within which a verdict has to be there, for rules that need no longer to be sure."""
KMSG = f"{GPU_TREE}/dev/kmsg"


class Fault(NamedTuple):
    """*nvml* are lines of the fake NVML's state, *log* is a line of the kernel's log.

    *gone*: the GPU leaves the PCI bus. ``{g}`` is its number, ``{pci}`` its address. *rule* then
    says *state* and *next* within *ticks*; *drains*: the replicas that use the GPU are drained.
    """

    rule: str
    state: str
    next: str
    nvml: tuple[str, ...] = ()
    log: str = ""
    gone: bool = False
    drains: bool = False
    host: bool = False
    ticks: int = TICKS


RESET, REBOOT = "reset the GPU", "reboot the host"
XID = "NVRM: Xid (PCI:{pci}): %d, pid=4711, name=python3, a line of the driver's"

FAULTS: dict[str, Fault] = {
    # what answers at all
    "a call on one GPU hangs": Fault(
        "gpu-hangs", "unhealthy", RESET, ("hang.nvmlDeviceGetUtilizationRates.{g} 600000",),
        drains=True, ticks=4,
    ),
    "any call hangs": Fault(
        "nvml-hangs", "unhealthy", REBOOT, ("hang.* 600000",), host=True, ticks=8,
    ),
    "driver and library differ": Fault(
        "nvml-mismatch", "unhealthy", REBOOT, ("err.* 18",), host=True, ticks=4,
    ),
    "the driver is not loaded": Fault(
        "nvml-unreadable", "unknown", "load the driver", ("err.* 9",), host=True, ticks=4,
    ),
    "no permission": Fault(
        "nvml-unreadable", "unknown", "let the agent open /dev/nvidia*",
        ("err.nvmlInit 4", "err.nvmlDeviceGetCount 1"), host=True, ticks=8,
    ),
    "a GPU is lost": Fault("gpu-lost", "unhealthy", REBOOT, ("{g}.lost 1",), drains=True),
    "a GPU is gone": Fault(
        "gpu-missing", "unhealthy", REBOOT, ("{g}.gone 1",), gone=True, drains=True
    ),
    "a GPU is on the bus, and not in NVML": Fault(
        "gpu-missing", "unhealthy", REBOOT, ("{g}.gone 1",), drains=True
    ),
    # what the driver wants
    "the driver wants a reset": Fault(
        "gpu-recovery-action", "unhealthy", RESET, ("{g}.recovery 1",), drains=True
    ),
    "the driver wants a reboot": Fault(
        "gpu-recovery-action", "unhealthy", REBOOT, ("{g}.recovery 2",), drains=True
    ),
    # memory
    "a row could not be exchanged": Fault(
        "row-remap-failed", "unhealthy", "return the board", ("{g}.remapped.failed 1",), drains=True
    ),
    "a row waits for a reset": Fault(
        "row-remap-pending", "degraded", RESET, ("{g}.remapped.pending 1",)
    ),
    "SRAM errors beyond the threshold": Fault(
        "sram-threshold", "unhealthy", "return the board", ("{g}.sram.threshold 1",), drains=True
    ),
    "uncorrected errors, nothing says contained": Fault(
        "ecc-uncorrected", "unhealthy", RESET,
        ("{g}.recovery N/A", "{g}.ecc.uncorrected.volatile.dram 2"), drains=True, ticks=4,
    ),
    # the kernel's log
    "XID 79, off the bus": Fault(
        "xid-reboot", "unhealthy", REBOOT, log=XID % 79, drains=True
    ),
    "off the bus without an XID": Fault(
        "xid-reboot", "unhealthy", REBOOT,
        log="NVRM: GPU {pci}: GPU has fallen off the bus.", drains=True,
    ),
    "XID 119, GSP timeout": Fault("xid-reset", "unhealthy", RESET, log=XID % 119, drains=True),
    "XID 95, uncontained": Fault("xid-reset", "unhealthy", RESET, log=XID % 95, drains=True),
    "XID 54, power": Fault(
        "xid-power", "unhealthy", "check the power cables", log=XID % 54, drains=True
    ),
    "XID 74, NVLink": Fault("xid-link", "degraded", "check the cables", log=XID % 74),
    "XID 78, software": Fault("xid-software", "degraded", "update the driver", log=XID % 78),
    "an XID from NVML alone": Fault(
        "xid-reset", "unhealthy", RESET, ("xid.1 {g} 62",), drains=True, ticks=4
    ),
    # links, fabric, set-up
    "the fabric is not ready": Fault(
        "fabric-not-ready", "unhealthy", "restart the fabric manager",
        ("{g}.fabric.state 2",), drains=True, ticks=6,
    ),
    "persistence mode is off": Fault(
        "persistence-off", "degraded", "switch persistence mode on", ("{g}.persistence 0",)
    ),
    # read once a minute: it changes with a reset only
    "ECC is off": Fault("ecc-off", "degraded", "switch ECC on", ("{g}.ecc.mode 0",), ticks=75),
}  # fmt: skip

DRAINS = tuple(name for name, fault in FAULTS.items() if fault.drains)


class Site:
    """A host of *fleet* with a fake NVML of *count* GPUs, and the agent's view of it."""

    def __init__(self, fleet: Fleet, host: str, count: int) -> None:
        self.fleet = fleet
        self.host = host
        self.count = count

    def well(self) -> None:
        """Everything as it should be, with nothing remembered; the agent is started anew."""
        fleet, host = self.fleet, self.host
        fleet.root(host, "systemctl stop farrier-agent; rm -f /var/lib/farrier/agent/*")
        fleet.put(host, KMSG, "")
        self.state()
        self.bus(range(self.count))
        fleet.root(host, "systemctl start farrier-agent")
        until(lambda: self.status().get("gpus"), 30, "the GPUs are read")
        until(lambda: not self.reasons(), 30, f"no reason holds: {self.reasons()}")
        fleet.root(host, "farrier-agent ready --all --wait")
        until(lambda: fleet.ready(host), 60, "the host is ready")

    def state(self, *lines: str) -> None:
        """Replace the fake NVML's state."""
        text = "".join(f"{line}\n" for line in (f"count {self.count}", *lines))
        self.fleet.put(self.host, GPU_STATE, text)

    def bus(self, gpus: Collection[int]) -> None:
        """Have the PCI bus know the GPUs of these numbers and no others."""
        devices = f"{GPU_TREE}/sys/bus/pci/devices"
        script = [f"rm -rf {devices}", f"mkdir -p {devices}"]
        for index in gpus:
            at = f"{devices}/{pci_address(index)}"
            script += [
                f"mkdir {at}",
                *(
                    f"echo {value} > {at}/{name}"
                    for name, value in {
                        "vendor": "0x10de",
                        "device": "0x2330",
                        "class": "0x030200",
                    }.items()
                ),
                f"ln -s ../../../../bus/pci/drivers/nvidia {at}/driver",
            ]
        self.fleet.root(self.host, " && ".join(script))

    def inject(self, fault: Fault, *gpus: int) -> None:
        """Let *fault* happen to *gpus*."""
        lines: list[str] = []
        for gpu in gpus:
            words = {"g": gpu, "pci": pci_address(gpu)}
            lines += [line.format(**words) for line in fault.nvml]
            if fault.log:
                line = fault.log.format(**words)
                self.fleet.root(self.host, f'echo "{line}" >> {KMSG}')
        if fault.gone:
            self.bus(set(range(self.count)) - set(gpus))
        if lines:
            self.state(*lines)

    @contextmanager
    def scraped(self) -> Iterator[None]:
        """``/metrics`` is asked for all the time, and answers within a second each time."""
        failures: list[str] = []
        over = threading.Event()

        def ask() -> None:
            while not over.wait(0.2):
                try:
                    answer = self.fleet.request(self.host, "/metrics", port=9810, timeout=1)
                    if answer.status != 200 or b"farrier_agent_build_info" not in answer.body:
                        failures.append(f"{answer.status}: {answer.text[:200]}")
                except OSError as error:
                    failures.append(repr(error))

        thread = threading.Thread(target=ask)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
        assert not failures, failures

    def status(self) -> Any:
        """The agent's ``/status``."""
        return self.fleet.status(self.host)

    def reasons(self) -> Sequence[Any]:
        """All that is held against the host, its GPUs and its replicas."""
        health = self.status().get("health")
        return health["host"]["reasons"] if health else []

    def found(self, rule: str, gpu: int | None = None) -> Any:
        """The reason of *rule* against *gpu*, if it holds."""
        devices = (self.status()["gpus"] or {}).get("devices", ())
        indices = {one["uuid"]: one["index"] for one in devices}
        for reason in self.reasons():
            if reason["rule"] == rule and gpu in {None, indices.get(reason["gpu"])}:
                return reason
        return None

    def phases(self) -> dict[str, str]:
        """The phase of each replica."""
        return {one["name"]: one["phase"] for one in self.status()["replicas"]}
