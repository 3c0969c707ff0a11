"""What has to be done about a host's driver: decided from what was found and what is wanted.

Pure. Whether apt can do it is another question: :mod:`roles.nvidia_driver.simulation`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from farrier.nvidia.generations import generation_of, has_nvlink5, open_module
from farrier.nvidia.planned import upstream
from roles.nvidia_driver.names import NamesError, PackageSet, is_driver_package, package_set

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from farrier.facts.pci import NvidiaPci
    from roles.nvidia_driver.look import Look
    from roles.nvidia_driver.names import Flavour
    from roles.nvidia_driver.settings import Settings

__all__ = [
    "COMMAND",
    "Decision",
    "PlanError",
    "decide",
    "flavour_for",
    "module_of",
    "upstream",
    "wanted_set",
]

COMMAND = "pyinfra inventory deploys/driver.py"

OPEN_SINCE = 560
"""From this branch on NVIDIA's installers choose the open module where the GPU takes either."""


class PlanError(ValueError):
    """The wish contradicts itself or the host's hardware; says what to write instead."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What is to be done, and *words* that say why.

    ``install``: no driver is there. ``change``: another one is, and this run may change it.
    ``repair``: a transaction of ours was interrupted. ``keep``: the wanted driver is there.
    ``leave``: another one is, and this run may not touch it.
    """

    kind: Literal["install", "change", "repair", "keep", "leave"]
    words: str

    @property
    def acts(self) -> bool:
        """Whether packages are to be changed."""
        return self.kind in {"install", "change", "repair"}


def flavour_for(settings: Settings, pci: NvidiaPci) -> Flavour:
    """The kernel module's flavour. Raises :class:`PlanError` where the GPUs refuse it."""
    needs = {}
    for gpu in pci.gpus:
        generation, need = generation_of(gpu.device), open_module(gpu.device)
        if generation is not None and need is not None:
            needs[need] = generation.value
    if "required" in needs and "forbidden" in needs:
        raise PlanError(
            f"{needs['required']} works with the open kernel module only and {needs['forbidden']}"
            " with the proprietary one only: no driver serves both in one host"
        )
    if settings.flavour == "auto":
        if "required" in needs:
            return "open"
        if "forbidden" in needs or settings.source == "debian":
            return "proprietary"
        return "open" if int(settings.branch) >= OPEN_SINCE else "proprietary"
    against = "required" if settings.flavour == "proprietary" else "forbidden"
    if against in needs:
        other = "open" if settings.flavour == "proprietary" else "proprietary"
        raise PlanError(
            f'nvidia_driver_flavour = "{settings.flavour}", but {needs[against]} works with the'
            f' {other} kernel module only: say "{other}" or "auto"'
        )
    return settings.flavour


def wanted_set(settings: Settings, look: Look, offered: Collection[str] = ()) -> PackageSet:
    """The names of the wanted driver's packages. Raises :class:`PlanError`."""
    if settings.source == "none":
        raise PlanError('nvidia_driver_source = "none": the host\'s own driver is used')
    switches = bool(look.pci.nvswitches or look.pci.nvlink_managers)
    fabric = switches if settings.fabric is None else settings.fabric
    nvlink5 = fabric and (
        bool(look.pci.nvlink_managers) or any(has_nvlink5(gpu.device) for gpu in look.pci.gpus)
    )
    try:
        return package_set(
            settings.source,
            look.own.system.replace(".", ""),
            settings.branch,
            flavour_for(settings, look.pci),
            fabric=fabric,
            nvlink5=nvlink5,
            offered=offered,
        )
    except NamesError as error:
        raise PlanError(str(error)) from error


def module_of(installed: Mapping[str, str], wanted: PackageSet | None = None) -> str | None:
    """Which of *installed* is the kernel module's package: the wanted one, or any other's."""
    if wanted and wanted.module in installed:
        return wanted.module
    candidates = sorted(
        name
        for name in installed
        if is_driver_package(name)
        and ("dkms" in name or name.startswith(("linux-modules-nvidia", "nvidia-kernel-")))
        and not name.startswith(("nvidia-kernel-support", "nvidia-kernel-common"))
    )
    return next(iter(candidates), None)


def decide(settings: Settings, wanted: PackageSet, look: Look, *, may_change: bool) -> Decision:
    """What to do on a host that was found as *look*.

    *may_change*: whether an installed driver may be exchanged for the wanted one. Raises
    :class:`PlanError` where nothing may be done.
    """
    if look.own.phase is not None:
        words = f"a driver transaction was interrupted in its phase {look.own.phase!r}"
        target = look.own.target.get(wanted.module)
        if target and settings.met_by(target):
            return Decision("repair", words)
        # The way out of a version that cannot be built is another version in the inventory.
        return Decision("change", f"{words}; {_wish(settings, wanted)} is wanted by now")
    if look.driver.runfile:
        raise PlanError(
            "NVIDIA's own installer put a driver on this host, which no package may overwrite:"
            ' nvidia-uninstall --silent, or nvidia_driver_source = "none" to use it as it is'
        )
    installed = look.installed
    if not installed:
        return Decision("install", f"no driver is installed; {_wish(settings, wanted)} is wanted")
    there = module_of(installed, wanted)
    found = f"{there} {installed[there]}" if there else ", ".join(installed)
    missing = [name for name in wanted.names if name not in installed]
    if there == wanted.module and settings.met_by(installed[there]) and not missing:
        return Decision("keep", f"driver {found} is installed")
    why = f"driver {found} is installed, the inventory says {_wish(settings, wanted)}"
    if there == wanted.module and settings.met_by(installed[there]):
        why = f"driver {found} is installed without {', '.join(missing)}"
    if may_change:
        return Decision("change", why)
    return Decision("leave", f"{why}: {COMMAND} changes it")


def _wish(settings: Settings, wanted: PackageSet) -> str:
    return f"{settings.wanted}, {wanted.module} from source {settings.source}"
