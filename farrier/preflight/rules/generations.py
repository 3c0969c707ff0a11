"""Which driver, which kernel module and which CUDA a generation of GPUs takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from farrier.nvidia.generations import Generation, generation_of, open_module
from farrier.preflight.rules.driver import CHANGE
from farrier.preflight.verdict import Code, Reason

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from farrier.preflight.found import Case

__all__ = ["CODES", "CUDA_13_DROPPED", "RULES"]

CUDA_13_DROPPED = frozenset(
    {Generation.KEPLER, Generation.MAXWELL, Generation.PASCAL, Generation.VOLTA}
)
"""CUDA 13.0 compiles for Turing and newer only (CUDA Toolkit 13.0 Release Notes, "deprecated or
dropped features": offline compilation and library support for Maxwell, Pascal and Volta)."""

FLAVOUR_WRONG = Code(
    "flavour-wrong",
    "refuse",
    "The installed kernel module is of the flavour that the GPUs do not take: Blackwell and newer"
    " run with the open module only, GPUs before Turing with the proprietary one only.",
    "{repair}",
    "operator",
    shown="pyinfra --limit HOST inventory deploys/driver.py",
)
PLAN_FLAVOUR_WRONG = Code(
    "plan-flavour-wrong",
    "refuse",
    "nvidia_driver_flavour asks for the flavour that the GPUs do not take.",
    'nvidia_driver_flavour = "auto"',
    "inventory",
)
GENERATION_DROPPED = Code(
    "generation-dropped",
    "refuse",
    "The driver's branch does not support the GPUs any more: 580 is the last for Maxwell, Pascal"
    " and Volta.",
    'nvidia_driver_branch = "{branch}", nvidia_driver_version = None; then: pyinfra --limit {host}'
    " inventory deploys/driver.py",
    "inventory",
)
GENERATION_CUDA = Code(
    "generation-cuda",
    "refuse",
    "The engine is built with CUDA 13, which has no code for GPUs before Turing.",
    'models: engine="custom" with a program built for these GPUs, on {host}',
    "inventory",
)


def _names(generations: Iterable[Generation]) -> str:
    return ", ".join(sorted({one.value for one in generations}))


def flavour(case: Case) -> Iterator[Reason]:
    """The flavour of the module that these GPUs take, as it is and as it is wanted."""
    if not case.wanted.cuda or case.found.pci is None:
        return
    wanted, brings = case.wanted.driver, case.wanted.driver.brings
    takes = {gpu.device: open_module(gpu.device) for gpu in case.found.pci.gpus}
    for need, wrong, right in (
        ("required", "proprietary", "open"),
        ("forbidden", "open", "proprietary"),
    ):
        needing = [device for device, flavour in takes.items() if flavour == need]
        if not needing:
            continue
        names = _names(one for device in needing if (one := generation_of(device)))
        why = f"{names} runs with the {right} one only"
        if brings and wanted.flavour == wrong:
            yield PLAN_FLAVOUR_WRONG.reason(
                f"the inventory wants the {wrong} kernel module, and {why}"
            )
        if case.flavour == wrong:
            deploy = f"pyinfra --limit {case.host} inventory deploys/driver.py"
            yield FLAVOUR_WRONG.reason(
                f"the {wrong} kernel module is installed, and {why}",
                where="operator" if brings else "inventory",
                deploys=CHANGE if brings else (),
                repair=deploy if brings else f'nvidia_driver_source = "nvidia"; then: {deploy}',
            )


def supported_by_branch(case: Case) -> Iterator[Reason]:
    """A branch that still drives them."""
    last = [(one.last_branch, one) for one in case.generations if one.last_branch is not None]
    if not last or not case.wanted.cuda:
        return
    branch = min(number for number, _ in last)
    for what, release in (("installed", case.driver), ("wanted", case.wanted.driver.release)):
        dropped = {one for number, one in last if release and release.branch > number}
        if release and dropped:
            yield GENERATION_DROPPED.reason(
                f"driver {release} is {what}, and {branch} is the last branch for"
                f" {_names(dropped)}",
                branch=branch,
                host=case.host,
            )
            return


def supported_by_cuda(case: Case) -> Iterator[Reason]:
    """GPUs that the engine has code for."""
    need = case.wanted.engine_need
    old = case.generations & CUDA_13_DROPPED
    if need and old and int(need[1].split(".")[0]) >= 13:
        yield GENERATION_CUDA.reason(
            f"{need[0]} is built with CUDA {need[1]}, which has no code for {_names(old)}",
            host=case.host,
        )


CODES = (FLAVOUR_WRONG, PLAN_FLAVOUR_WRONG, GENERATION_DROPPED, GENERATION_CUDA)
RULES = (flavour, supported_by_branch, supported_by_cuda)
