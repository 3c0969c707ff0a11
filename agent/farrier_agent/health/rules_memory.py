"""Rules on memory, and on what the driver itself wants done."""

from __future__ import annotations

from farrier_agent.gpus import Gpu
from farrier_agent.health.rule import FINE, UNSEEN, Found, Look, Rule, Step
from farrier_agent.health.steps import REBOOT, RESET, RETURN
from farrier_agent.health.view import View
from farrier_agent.health.xids import ANNOUNCEMENT

__all__ = ["RULES"]

_IMEX = Step("restart the IMEX domain's service", "systemctl restart nvidia-imex")
_WANTED: dict[str, tuple[str, Step]] = {
    "gpu_reset": ("a reset of it", RESET),
    "drain_and_reset": ("its work drained and a reset of it", RESET),
    "bus_reset": ("a reset of its bus", REBOOT),
    "node_reboot": ("a reboot", REBOOT),
    "system_reboot": ("a reboot", REBOOT),
    "imex_domain": ("its IMEX domain recovered", _IMEX),
}
_ADVICE = {
    "drain_p2p": "peer-to-peer traffic drained, then another look",
    "unknown": "something that this agent does not know",
}


def _wanted(uuid: str | None, view: View) -> Look:
    gpu = view.by_uuid.get(uuid) if uuid else None
    action = gpu.recovery_action if gpu is not None and gpu.up else None
    if action in _WANTED:
        words, step = _WANTED[action]
        return Found(f"the driver wants for {view.label(uuid or '')} {words}", step, by="reading")
    mark = view.held("gpu-recovery-action", uuid)
    if mark is not None and mark.by == "reading":
        # the reading says what it said before, or no longer: XIDs of then do not count again
        return UNSEEN if action is None else FINE
    events = view.events("gpu-recovery-action", uuid)
    told = [event for event in events or () if event.xid == ANNOUNCEMENT and event.recovery_action]
    if told and (wanted := _WANTED.get(told[-1].recovery_action or "")):
        words, step = wanted
        whose = view.label(uuid) if uuid else "a GPU that is not known"
        text = f"the driver announced (XID {ANNOUNCEMENT}) that {whose} needs {words}"
        return Found(text, step, at=told[-1].at, by="announcement")
    if mark is None:
        return FINE if action == "none" else UNSEEN
    # where the announcement is no longer kept, something has to show that it was followed
    return FINE if view.confirmed(mark) and view.sound(uuid) else UNSEEN


def _advice(gpu: Gpu, _view: View) -> Look:
    if gpu.recovery_action in _ADVICE:
        return Found(f"the driver wants for GPU {gpu.index} {_ADVICE[gpu.recovery_action]}")
    return UNSEEN if gpu.recovery_action is None else FINE


def _remap_failed(gpu: Gpu, _view: View) -> Look:
    if gpu.remapped_rows is None:
        return UNSEEN
    if gpu.remapped_rows.failed:
        return Found(f"GPU {gpu.index}: a broken row of memory could not be exchanged")
    return FINE


def _remap_pending(gpu: Gpu, _view: View) -> Look:
    rows = gpu.remapped_rows
    if rows is not None and rows.pending:
        return Found(f"GPU {gpu.index}: rows of memory are exchanged at its next reset")
    if gpu.retired_pages_pending:
        return Found(f"GPU {gpu.index}: pages of memory are retired at its next reset")
    return UNSEEN if rows is None and gpu.retired_pages_pending is None else FINE


def _sram(gpu: Gpu, _view: View) -> Look:
    if gpu.sram_threshold_exceeded:
        return Found(f"GPU {gpu.index}: more errors in its SRAM than NVIDIA allows")
    return UNSEEN if gpu.sram_threshold_exceeded is None else FINE


def _uncorrected(gpu: Gpu, view: View) -> Look:
    counts = [
        one.count
        for one in gpu.ecc_errors
        if one.kind == "uncorrected" and one.scope == "volatile" and one.memory != "all"
    ] or [
        one.count for one in gpu.ecc_errors if one.kind == "uncorrected" and one.scope == "volatile"
    ]
    if not counts:
        return UNSEEN
    if not any(counts):
        return FINE
    rows = gpu.remapped_rows
    contained = (
        gpu.recovery_action is not None
        or (rows is not None and rows.pending)
        or any(event.xid in {63, 94} for event in view.all_events(gpu.uuid))
    )
    if contained:
        return FINE  # the recovery action, the pending row or the engine's end says what follows
    return Found(f"GPU {gpu.index}: uncorrected memory errors since its last reset")


RULES = (
    Rule(
        "gpu-recovery-action",
        "unhealthy",
        "the driver wants a reset or reboot: its recovery action, or XID 154. An announcement "
        "holds until a reset or reboot was seen, or `farrier-agent ack`",
        RESET,
        known=_wanted,
        acts=True,
        ack=True,
    ),
    Rule(
        "gpu-recovery-advice",
        "degraded",
        "the driver wants peer-to-peer traffic drained, or an action this agent does not know",
        Step("see what the driver wants", "nvidia-smi -q -i {gpu}"),
        gpu=_advice,
    ),
    Rule(
        "row-remap-failed",
        "unhealthy",
        "a broken row of memory could not be exchanged for a spare one",
        RETURN,
        gpu=_remap_failed,
        acts=True,
    ),
    Rule(
        "row-remap-pending",
        "degraded",
        "rows (before Ampere: pages) of memory are exchanged at the next reset; work goes on",
        RESET,
        gpu=_remap_pending,
    ),
    Rule(
        "sram-threshold",
        "unhealthy",
        "uncorrected errors in SRAM are beyond NVIDIA's threshold",
        RETURN,
        gpu=_sram,
        acts=True,
    ),
    Rule(
        "ecc-uncorrected",
        "unhealthy",
        "uncorrected memory errors since the last reset, and nothing says that they were contained "
        "(a recovery action that is read, a pending row, XID 63 or 94)",
        RESET,
        gpu=_uncorrected,
        acts=True,
    ),
)
