"""All rules, applied to one host."""

from __future__ import annotations

from typing import TYPE_CHECKING

from farrier.preflight.reach import CODES as REACH
from farrier.preflight.rules import (
    adapters,
    apt,
    containers,
    disks,
    driver,
    fabric,
    generations,
    gpus,
    kernel,
    machine,
    models,
    ports,
    quantisation,
    system,
    updates,
    weights,
)
from farrier.preflight.verdict import Code, Verdict, verdict_on

if TYPE_CHECKING:
    from farrier.preflight.found import Case

__all__ = ["AREAS", "CODES", "judge"]

_MODULES = {
    "System": system,
    "Disks": disks,
    "Ports and firewall": ports,
    "Models": models,
    "Models and their engines": weights,
    "LoRA adapters": adapters,
    "Quantised models": quantisation,
    "GPUs": gpus,
    "Driver": driver,
    "Generations": generations,
    "Kernel": kernel,
    "Fabric manager and persistence": fabric,
    "Containers": containers,
    "Machine": machine,
    "Unattended changes": updates,
    "apt": apt,
}

AREAS: dict[str, tuple[Code, ...]] = {"Reaching the host": REACH} | {
    area: module.CODES for area, module in _MODULES.items()
}
"""Every code, by the area that it is documented under."""

CODES: dict[str, Code] = {code.name: code for codes in AREAS.values() for code in codes}


def judge(case: Case) -> Verdict:
    """The verdict on *case*. A rule whose facts were not asked for has nothing to say."""
    reasons = (
        reason for module in _MODULES.values() for rule in module.RULES for reason in rule(case)
    )
    return verdict_on(case.host, reasons)
