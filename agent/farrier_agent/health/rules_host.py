"""Rules on how the host is set up, on what the agent can see of it, and on its replicas."""

from __future__ import annotations

from farrier_agent.gpus import Gpu
from farrier_agent.health.rule import FINE, UNSEEN, Found, Look, Rule, Step
from farrier_agent.health.steps import RESTART_REPLICA
from farrier_agent.health.view import View
from farrier_agent.status import Replica
from farrier_agent.wording import counted, printable

__all__ = ["RULES"]

_NAMED = 3
"""Processes that a reason names."""


def _persistence(gpu: Gpu, _view: View) -> Look:
    if gpu.persistence_mode is False:
        return Found(f"GPU {gpu.index}: persistence mode is off")
    return UNSEEN if gpu.persistence_mode is None else FINE


def _ecc(gpu: Gpu, _view: View) -> Look:
    if gpu.ecc_enabled is False:
        return Found(f"GPU {gpu.index}: ECC is off")
    return UNSEEN if gpu.ecc_enabled is None else FINE


def _unmanaged(gpu: Gpu, view: View) -> Look:
    if gpu.uuid not in view.users:
        return FINE
    if gpu.processes is None:
        return UNSEEN
    strangers = [process for process in gpu.processes if process.managed is False]
    if strangers:
        named = ", ".join(
            f"{process.pid} ({printable(process.unit or process.command or '?')[:60]})"
            for process in strangers[:_NAMED]
        )
        more = ", …" if len(strangers) > _NAMED else ""
        what = "process" if len(strangers) == 1 else "processes"
        return Found(
            f"GPU {gpu.index} is a replica's, and held by {len(strangers)} {what} of others: "
            f"{named}{more}"
        )
    return UNSEEN if any(process.managed is None for process in gpu.processes) else FINE


def _kernel_log(view: View) -> Look:
    why = view.now.kernel_log_problem
    if why is None:
        return FINE
    return Found(f"the kernel log cannot be read, and some XIDs are only there: {printable(why)}")


def _pci(view: View) -> Look:
    why = view.now.pci_problem
    if why is None:
        return FINE
    return Found(f"the PCI bus cannot be read, and shows GPUs that NVML lacks: {printable(why)}")


def _wedged(replica: Replica, _view: View) -> Look:
    if replica.health == "wedged":
        return Found(f"replica {replica.name} has requests and does not get on")
    return UNSEEN if replica.health == "unknown" else FINE


def _failed(replica: Replica, _view: View) -> Look:
    if replica.phase == "failed":
        why = f": {printable(replica.reason)[:200]}" if replica.reason else ""
        return Found(f"replica {replica.name} failed{why}")
    return UNSEEN if replica.phase is None else FINE


def _given_up(replica: Replica, _view: View) -> Look:
    if replica.health_restarts > 1:
        times = counted(replica.health_restarts, "time")
        return Found(f"replica {replica.name} was restarted for its health {times} within an hour")
    return FINE


def _replica_unseen(replica: Replica, _view: View) -> Look:
    if replica.up is None:
        return Found(f"replica {replica.name}: no fresh look at its unit and engine")
    return FINE


RULES = (
    Rule(
        "persistence-off",
        "degraded",
        "persistence mode is off: the driver lets go of an idle GPU, and touching it takes seconds",
        Step("switch persistence mode on", "nvidia-smi -i {gpu} -pm 1"),
        gpu=_persistence,
        looks=2,
    ),
    Rule(
        "ecc-off",
        "degraded",
        "a GPU that has ECC runs without",
        Step("switch ECC on, then reset the GPU", "nvidia-smi -i {gpu} -e 1"),
        gpu=_ecc,
        looks=2,
    ),
    Rule(
        "unmanaged-process",
        "degraded",
        "a process that is no replica's holds a GPU that a replica uses, for 30 seconds",
        Step("end the process, or move it to another GPU", "nvidia-smi -i {gpu}"),
        gpu=_unmanaged,
        looks=3,
        seconds=30.0,
    ),
    Rule(
        "kernel-log-unreadable",
        "degraded",
        "the kernel log cannot be read: XIDs 79, 119 and 120 would not be seen",
        Step("let the agent read the kernel log", "journalctl -u farrier-agent -n 50"),
        host=_kernel_log,
        looks=2,
    ),
    Rule(
        "pci-unreadable",
        "degraded",
        "the PCI bus cannot be read: a GPU that only NVML lacks would count as gone",
        Step("let the agent read /sys/bus/pci", "journalctl -u farrier-agent -n 50"),
        host=_pci,
        looks=2,
    ),
    Rule(
        "replica-wedged",
        "unhealthy",
        "a replica has requests and makes no progress; the agent restarts it by itself, three "
        "times an hour",
        RESTART_REPLICA,
        replica=_wedged,
        clear_looks=1,
        anywhere=True,
    ),
    Rule(
        "replica-failed",
        "unhealthy",
        "a replica's unit failed, or its warm-up did",
        RESTART_REPLICA,
        replica=_failed,
        clear_looks=1,
        anywhere=True,
    ),
    Rule(
        "replica-restarting",
        "degraded",
        "a replica was restarted for its health more than once within an hour",
        Step("see what it hung in", "ls -t /var/lib/farrier/evidence"),
        replica=_given_up,
        anywhere=True,
    ),
    Rule(
        "replica-unseen",
        "unknown",
        "no fresh look at a replica's unit and engine",
        Step("see why the agent cannot read", "journalctl -u farrier-agent -n 50"),
        replica=_replica_unseen,
        clear_looks=1,
        anywhere=True,
    ),
)
