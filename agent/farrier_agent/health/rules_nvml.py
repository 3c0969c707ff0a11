"""Rules on what answers at all: the NVML worker, each GPU, and how fresh what they say is."""

from __future__ import annotations

from farrier_agent.gpus import Gpu, Nvml
from farrier_agent.health.rule import FINE, UNSEEN, Found, Look, Rule, Step
from farrier_agent.health.steps import REBOOT, RESET
from farrier_agent.health.view import View
from farrier_agent.status import Replica
from farrier_agent.wording import printable

__all__ = ["RULES"]

_LOOK_AT_AGENT = Step("see why the agent cannot read", "journalctl -u farrier-agent -n 50")
_ACQUIRE = Step("take NVML back when the work is done", "farrier-agent nvml acquire")
_FORGET = Step("forget it, if it was taken out", "farrier-agent ack gpu-missing {gpu}")
_UNREADABLE = {
    "no_library": (
        "NVML's library is not there",
        Step("install the driver's library (nvml_library names another place)", "ldconfig -p"),
    ),
    "no_permission": (
        "the agent may not open the GPUs",
        Step("let the agent open /dev/nvidia*", "ls -l /dev/nvidia*"),
    ),
    "not_loaded": ("the driver is not loaded", Step("load the driver", "modprobe nvidia")),
    "failed": ("NVML cannot be read", _LOOK_AT_AGENT),
}


_NOT_UP = ("gpu-missing", "gpu-lost", "gpu-hangs")
_ABSENT = {
    "gone": "neither NVML nor the PCI bus has it any more",
    "unseen": "it is on the PCI bus, but NVML does not have it",
}


def _detail(nvml: Nvml) -> str:
    return f": {printable(nvml.detail)[:200]}" if nvml.detail else ""


def _hangs(view: View) -> Look:
    nvml = view.now.nvml
    if nvml is None:
        return UNSEEN
    if nvml.kind == "hangs":
        stuck = "; not even SIGKILL ends the call" if nvml.stuck else ""
        return Found(f"a call of NVML does not return: {nvml.call or 'not known which'}{stuck}")
    return FINE if nvml.kind is None else UNSEEN


def _mismatch(view: View) -> Look:
    nvml = view.now.nvml
    if nvml is None:
        return UNSEEN
    if nvml.kind == "mismatch":
        return Found(f"the loaded driver and NVML's library differ in version{_detail(nvml)}")
    return FINE if nvml.kind is None else UNSEEN


def _unreadable(view: View) -> Look:
    nvml = view.now.nvml
    if nvml is None:
        return UNSEEN
    if nvml.kind in _UNREADABLE:
        text, step = _UNREADABLE[nvml.kind]
        return Found(f"{text}{_detail(nvml)}", step)
    return FINE


def _missing(gpu: Gpu, view: View) -> Look:
    if gpu.problem in _ABSENT:
        why = printable(gpu.problem_detail)[:200] if gpu.problem_detail else _ABSENT[gpu.problem]
        # a second look, for NVML may have been enumerating; but not where there was no first one
        first = view.before.read is None or gpu.uuid not in view.before.known
        return Found(f"GPU {gpu.index} is missing: {why}", now=first)
    return FINE if gpu.up else UNSEEN


def _missing_of_replica(replica: Replica, view: View) -> Look:
    if view.unread:
        return UNSEEN
    without = [str(index) for index in replica.gpus if view.uuid_of(index) is None]
    if without:
        return Found(
            f"replica {replica.name} is to use GPU {', '.join(without)}, which this host lacks"
        )
    return FINE


def _lost(gpu: Gpu, _view: View) -> Look:
    if gpu.problem == "lost":
        return Found(f"GPU {gpu.index} is lost: NVML says so")
    return FINE if gpu.up else UNSEEN


def _gpu_hangs(gpu: Gpu, _view: View) -> Look:
    if gpu.problem == "hangs":
        why = f": {printable(gpu.problem_detail)[:200]}" if gpu.problem_detail else ""
        return Found(f"a call on GPU {gpu.index} does not return{why}")
    return FINE if gpu.up else UNSEEN


def _stale(uuid: str | None, view: View) -> Look:
    if (uuid is None) == bool(view.known):
        return FINE  # said of each GPU; of the host only where none is known
    gpu = view.by_uuid.get(uuid or "")
    if gpu is not None:
        # what keeps a GPU from answering is said by a rule of its own, once that holds
        told = gpu.up or any(view.held(rule, uuid) for rule in _NOT_UP)
        return FINE if told else Found(f"GPU {gpu.index} does not answer")
    if not view.unread:
        if uuid is None:
            return FINE
        return Found(f"{view.label(uuid)} was here, and nothing is told of it", _FORGET)
    first = view.before.read is None
    nvml = view.now.nvml
    if nvml is not None and nvml.kind == "released":
        return Found(f"{_whose(uuid, view)}: NVML is released, nothing is read", _ACQUIRE)
    # before the first reading nothing is known; later, the last one is good for three ticks
    return Found(f"{_whose(uuid, view)}: no fresh reading", now=first)


def _whose(uuid: str | None, view: View) -> str:
    return "GPUs" if uuid is None else view.label(uuid)


def _stale_of_replica(replica: Replica, view: View) -> Look:
    if view.unread and any(view.uuid_of(index) is None for index in replica.gpus):
        return Found(f"which GPUs replica {replica.name} uses is not known", now=True)
    return FINE


RULES = (
    Rule(
        "nvml-hangs",
        "unhealthy",
        "a call of NVML does not return within its deadline",
        REBOOT,
        host=_hangs,
        clear_looks=3,
    ),
    Rule(
        "nvml-mismatch",
        "unhealthy",
        "driver and library differ: the driver was exchanged underneath; running engines go on, "
        "none can start",
        REBOOT,
        host=_mismatch,
    ),
    Rule(
        "nvml-unreadable",
        "unknown",
        "no library, no permission, no driver loaded, or NVML fails: nothing is seen of the GPUs",
        _LOOK_AT_AGENT,
        host=_unreadable,
        looks=2,
    ),
    Rule(
        "gpu-missing",
        "unhealthy",
        "a GPU that was here is gone, or on the PCI bus only; or a replica is to use one that is "
        "not there. `farrier-agent ack gpu-missing` forgets a GPU that was taken out",
        REBOOT,
        gpu=_missing,
        replica=_missing_of_replica,
        acts=True,
        ack=True,
        looks=2,
        clear_looks=3,
    ),
    Rule(
        "gpu-lost",
        "unhealthy",
        "NVML says that the GPU is lost",
        REBOOT,
        gpu=_lost,
        acts=True,
        latched=True,
    ),
    Rule(
        "gpu-hangs",
        "unhealthy",
        "a call on this GPU does not return, calls on others do",
        RESET,
        gpu=_gpu_hangs,
        acts=True,
        clear_looks=3,
    ),
    Rule(
        "data-stale",
        "unknown",
        "no reading of the GPU for three ticks; what held before still holds",
        _LOOK_AT_AGENT,
        known=_stale,
        replica=_stale_of_replica,
        looks=3,
        clear_looks=1,
    ),
)
