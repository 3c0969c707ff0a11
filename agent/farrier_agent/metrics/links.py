"""The families about a GPU's links: NVLink, and the NVSwitch fabric."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from farrier_agent.gpus import Fabric, Gpu, NvLink
from farrier_agent.metrics.family import Family, Sample, family, one_hot

__all__ = ["FABRIC_PROBLEMS", "FABRIC_STATES", "FAMILIES", "samples"]

FABRIC_STATES = ("not_started", "in_progress", "completed")
"""``farrier_gpu_fabric_state`` is one-hot over them; in a rarer one all of them are 0."""
FABRIC_PROBLEMS = (
    "degraded_bandwidth",
    "route_recovery",
    "route_unhealthy",
    "access_timeout",
    "partition_not_assigned",
    "fabric_manager_disconnected",
)
"""They always have a sample; a wrong configuration, which is rarer, has one while it holds."""

UP = family("farrier_gpu_nvlink_up", "uuid link", "Whether the NVLink is active (1).", "gpu")
ERRORS = family(
    "farrier_gpu_nvlink_errors_total",
    "uuid link kind",
    "Errors of an NVLink since the driver was loaded. replay: packets sent again, recovery: the "
    "link was trained again, crc: broken packets; from Blackwell on effective: errors that were "
    "not corrected on the way, symbol: all of them, most of which were.",
    "gpu",
)
STATE = family(
    "farrier_gpu_fabric_state",
    "uuid state",
    "How far the GPU's registration with the NVSwitch fabric is: 1 for its state.",
    "gpu",
)
STATUS = family(
    "farrier_gpu_fabric_status",
    "uuid",
    "NVML's code (nvmlReturn_t) of the registration with the fabric; 0 is success.",
    "gpu",
)
PROBLEM = family(
    "farrier_gpu_fabric_problem",
    "uuid problem",
    "Whether (1) the fabric's health mask of the GPU names this problem.",
    "gpu",
)

FAMILIES: tuple[Family, ...] = (UP, ERRORS, STATE, STATUS, PROBLEM)


def samples(devices: Sequence[Gpu]) -> Iterator[tuple[Family, list[Sample]]]:
    """What there is of the links of *devices*, by family."""
    links = [(gpu.uuid, str(one.link), one) for gpu in devices for one in gpu.nvlinks]
    yield UP, [((uuid, link), one.up) for uuid, link, one in links]
    yield ERRORS, [sample for uuid, link, one in links for sample in _errors(uuid, link, one)]
    fabrics = [((gpu.uuid,), gpu.fabric) for gpu in devices if gpu.fabric]
    yield (
        STATE,
        [sample for key, fabric in fabrics for sample in one_hot(key, FABRIC_STATES, fabric.state)],
    )
    yield STATUS, [(key, fabric.status) for key, fabric in fabrics]
    yield (
        PROBLEM,
        [
            ((*key, problem), problem in fabric.problems)
            for key, fabric in fabrics
            for problem in _problems(fabric)
        ],
    )


def _errors(uuid: str, link: str, one: NvLink) -> list[Sample]:
    return [
        ((uuid, link, "replay"), one.replay_errors_total),
        ((uuid, link, "recovery"), one.recovery_errors_total),
        ((uuid, link, "crc"), one.crc_errors_total),
        ((uuid, link, "effective"), one.effective_errors_total),
        ((uuid, link, "symbol"), one.symbol_errors_total),
    ]


def _problems(fabric: Fabric) -> list[str]:
    return [*FABRIC_PROBLEMS, *sorted(set(fabric.problems).difference(FABRIC_PROBLEMS))]
