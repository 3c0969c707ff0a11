"""Rules on PCIe, NVLink and the NVSwitch fabric."""

from __future__ import annotations

from farrier_agent.gpus import Gpu
from farrier_agent.health.observed import FABRIC_MANAGER
from farrier_agent.health.rule import FINE, UNSEEN, Found, Look, Rule, Step
from farrier_agent.health.steps import CHECK_LINKS, CHECK_SLOT
from farrier_agent.health.view import View
from farrier_agent.units.state import UnitState

__all__ = ["RULES"]

CRC_RATE = 100.0
"""CRC errors a second on the links of one GPU that are too many."""
FLAPS = 3
"""Restarts of the fabric manager within an hour that are too many."""
_HOUR = 3600.0
_RESTART_FM = Step("restart the fabric manager", f"systemctl restart {FABRIC_MANAGER}")
_INSTALL_FM = Step(
    "install the fabric manager of the driver's version", "apt-cache policy nvidia-fabricmanager"
)
_READ_FM = Step("read what the fabric manager says", f"journalctl -u {FABRIC_MANAGER} -n 100")


def _pcie(gpu: Gpu, view: View) -> Look:
    if not view.busy(gpu):
        return UNSEEN
    pairs = [
        (now, most, word)
        for now, most, word in (
            (gpu.pcie_generation, gpu.pcie_max_generation, "generation"),
            (gpu.pcie_width, gpu.pcie_max_width, "width"),
        )
        if now is not None and most is not None
    ]
    low = [f"{word} {now} of {most}" for now, most, word in pairs if now < most]
    if low:
        return Found(f"GPU {gpu.index}: PCIe at {' and '.join(low)} while it works")
    return FINE if pairs else UNSEEN


def _nvlink(gpu: Gpu, view: View) -> Look:
    links = [link for link in gpu.nvlinks if link.up is not None]
    if not links:
        return UNSEEN
    up = sum(1 for link in links if link.up)
    were = view.links.get(gpu.uuid, ())
    down = [link.link for link in links if not link.up and link.link in were]
    if down:
        numbers = ", ".join(map(str, down))
        return Found(f"GPU {gpu.index}: NVLink {numbers} down, of {len(links)}")
    if view.acknowledged("nvlink-down", gpu.uuid):
        return FINE
    # at the first look nothing is remembered: its likes on this host say how many there should be
    most = max(
        sum(1 for link in other.nvlinks if link.up)
        for other in view.by_uuid.values()
        if other.name == gpu.name
    )
    if up < most and (up or gpu.fabric is not None):
        return Found(f"GPU {gpu.index}: {up} NVLinks up, its likes on this host have {most}")
    return FINE


def _nvlink_errors(gpu: Gpu, view: View) -> Look:
    was, now = view.before.trails.get(gpu.uuid), view.trails.get(gpu.uuid)
    if was is None or now is None or now.monotonic <= was.monotonic:
        return UNSEEN
    seen = False
    if was.link_recoveries is not None and now.link_recoveries is not None:
        seen = True
        if now.link_recoveries > was.link_recoveries:
            return Found(f"GPU {gpu.index}: an NVLink failed and was brought up again")
    if was.link_crc is not None and now.link_crc is not None:
        seen = True
        if now.link_crc - was.link_crc >= CRC_RATE * (now.monotonic - was.monotonic):
            return Found(f"GPU {gpu.index}: more than {CRC_RATE:.0f} CRC errors/s on NVLinks")
    return FINE if seen else UNSEEN


def _fabric(gpu: Gpu, view: View) -> Look:
    if view.now.fabric == "none":
        return FINE
    fabric = gpu.fabric
    if fabric is None:
        return UNSEEN
    if fabric.state == "not_supported":
        return FINE
    if fabric.state != "completed":
        return Found(f"GPU {gpu.index} is not registered with the fabric: {fabric.state}")
    if fabric.status != 0:
        return Found(f"GPU {gpu.index} was refused by the fabric: status {fabric.status}")
    return FINE


def _fabric_problem(gpu: Gpu, view: View) -> Look:
    if gpu.fabric is None:
        return UNSEEN
    if gpu.fabric.problems and view.now.fabric != "none":
        words = ", ".join(sorted(gpu.fabric.problems)).replace("_", " ")
        return Found(f"GPU {gpu.index}: the fabric has problems: {words}")
    return FINE


def _fabric_manager(view: View) -> Look:
    if view.now.fabric == "none":
        return FINE
    unit = view.now.units.get(FABRIC_MANAGER)
    if unit is None or not (view.fabric_needed or unit.active):
        return UNSEEN
    if unit.load_state == "not-found":
        # on a rack with its switches elsewhere there is none on the host
        declared = view.now.fabric == "required"
        return Found("the fabric manager is not installed", _INSTALL_FM) if declared else FINE
    if unit.active_state in {"failed", "inactive"}:
        return Found(f"the fabric manager does not run: {unit.active_state}")
    if isinstance(unit, UnitState) and _flaps(unit, view.now.at):
        return Found(f"the fabric manager was restarted {FLAPS} times or more lately", _READ_FM)
    return FINE if unit.active else UNSEEN


def _flaps(unit: UnitState, now: float) -> bool:
    """By its starts; where the agent has not seen them, by systemd's count, which may be reset."""
    starts = sum(1 for start in unit.starts if start.automatic and now - start.at < _HOUR)
    fresh = unit.started_at is not None and now - unit.started_at < _HOUR
    return starts >= FLAPS or (fresh and unit.restarts >= FLAPS)


RULES = (
    Rule(
        "fabric-not-ready",
        "unhealthy",
        "the fabric is needed (declared, or the GPU says that it has one), and the GPU is not "
        "registered with it, or was refused",
        _RESTART_FM,
        gpu=_fabric,
        acts=True,
        looks=2,
    ),
    Rule(
        "fabric-problem",
        "degraded",
        "the GPU is registered, and its fabric reports degraded bandwidth or faulty routes",
        _READ_FM,
        gpu=_fabric_problem,
        looks=2,
        clear_seconds=30.0,
    ),
    Rule(
        "fabric-manager",
        "degraded",
        f"the fabric is needed, and its manager does not run, or was restarted {FLAPS} times "
        "within an hour; GPUs stay registered, so that nothing else shows it",
        _RESTART_FM,
        host=_fabric_manager,
        looks=2,
        clear_seconds=30.0,
    ),
    Rule(
        "nvlink-down",
        "degraded",
        "an NVLink that was up is down, or fewer are up than on the same GPUs beside it; "
        "`farrier-agent ack` takes what is up now as what should be",
        CHECK_LINKS,
        gpu=_nvlink,
        ack=True,
        looks=2,
        clear_looks=3,
    ),
    Rule(
        "nvlink-errors",
        "degraded",
        f"an NVLink failed and was brought up again, or more than {CRC_RATE:.0f} CRC errors a "
        "second",
        CHECK_LINKS,
        gpu=_nvlink_errors,
        clear_seconds=600.0,
    ),
    Rule(
        "pcie-degraded",
        "degraded",
        "PCIe is below what GPU and slot can, while the GPU works (at rest it saves power), for a "
        "minute",
        CHECK_SLOT,
        gpu=_pcie,
        looks=3,
        seconds=60.0,
        clear_looks=3,
        clear_seconds=30.0,
    ),
)
