"""What the driver's packages are called: per source, system, branch and flavour. Pure data.

The set is *compute only*: kernel module, libcuda and NVML, nvidia-smi, persistence daemon; nothing
of X. What the named packages depend on (firmware, kernel module support) comes with them: its
names differ per release (``nvidia-firmware-580-server-580.178.04``).

Where the names are from:

- NVIDIA's repository, Ubuntu: "Ubuntu 590 package renames" in the driver installation guide's
  chapter "Recent Updates" (docs.nvidia.com/datacenter/tesla/driver-installation-guide), compute
  only: ``libnvidia-compute nvidia-dkms-open`` in its chapter "Ubuntu". Up to branch 580 the names
  end with the branch, from 590 on they do not, and the branch is chosen by version or by
  ``nvidia-driver-pinning-<branch>`` (chapter "Version locking").
- NVIDIA's repository, Debian: ``nvidia-driver-cuda nvidia-kernel-open-dkms`` in its chapter
  "Debian"; never with a suffix.
- Fabric manager in both: with the branch in its name up to 575, without from 580 on
  (``nvidia-fabricmanager-575_575.57.08-1``, ``nvidia-fabricmanager_580.65.06-1`` in the index).
- Ubuntu's archive: Packages of noble-updates and jammy-updates, restricted (driver) and multiverse
  (fabric manager), read on 2026-11-21; ``-server`` is the branch that is kept for data centers.
- Debian's archive: Packages of bookworm and trixie, non-free; one branch per release.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from farrier.nvidia import families
from farrier.nvidia.families import is_driver_package

if TYPE_CHECKING:
    from collections.abc import Collection

__all__ = [
    "DEBIAN_BRANCHES",
    "FAMILIES",
    "SYSTEMS",
    "NamesError",
    "PackageSet",
    "is_driver_package",
    "package_set",
    "successor",
    "superseded",
]

Source = Literal["nvidia", "ubuntu", "debian", "directory"]
Flavour = Literal["open", "proprietary"]

SYSTEMS = ("debian12", "debian13", "ubuntu2204", "ubuntu2404")
"""The systems there are names for, as NVIDIA's repository calls them."""

DEBIAN_BRANCHES = {"debian12": "535", "debian13": "550"}
"""The one branch that Debian's archive carries for each release."""

LAST_SUFFIXED = 580
"""NVIDIA's packages for Ubuntu carry the branch in their names up to this one."""
LAST_SUFFIXED_FABRIC = 575
"""The same of the fabric manager, on Debian as well."""

PERSISTENCED = "nvidia-persistenced"
MODPROBE = "nvidia-modprobe"
"""Nothing depends on a version of it: unless it is named it stays behind when the branch changes,
or runs ahead (NVIDIA/gpu-driver-container#899)."""


class NamesError(ValueError):
    """There are no such packages; says why and what to write into the inventory instead."""


@dataclass(frozen=True, slots=True)
class PackageSet:
    """The names of one driver.

    *module* is the DKMS package; its version is the driver's. *required* (the module among them)
    is installed, *if_offered* where the source has it: some releases merged it into another one.
    *fabric* has to have exactly the driver's upstream version (its Debian revision may differ:
    ``580.95.05-1`` beside ``580.95.05-0ubuntu1``). *nvlink5* has versions of its own. *pinning* is
    NVIDIA's package of apt preferences for the branch, where names alone do not tell the branch;
    whoever pins versions himself does not need it.
    """

    branch: str
    flavour: Flavour
    module: str
    required: tuple[str, ...]
    if_offered: tuple[str, ...] = ()
    fabric: tuple[str, ...] = ()
    nvlink5: tuple[str, ...] = ()
    pinning: str | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Everything that has to be installed."""
        return (*self.required, *self.fabric, *self.nvlink5)

    def of_branch(self, version: str) -> bool:
        """Whether a Debian *version* (``1:580.95.05-0ubuntu1``) belongs to the branch."""
        return version.partition(":")[2 if ":" in version else 0].startswith(f"{self.branch}.")


def package_set(
    source: Source,
    system: str,
    branch: str,
    flavour: Flavour,
    *,
    fabric: bool = False,
    nvlink5: bool = False,
    offered: Collection[str] = (),
) -> PackageSet:
    """The packages of *branch* in *flavour* from *source* for *system* (one of :data:`SYSTEMS`).

    *fabric*: the host has NVSwitches; *nvlink5*: they are NVLink 5's. *offered* are the names of
    the .deb files of a ``directory``, which may have come from NVIDIA or from a distribution.
    Raises :class:`NamesError`.
    """
    if system not in SYSTEMS:
        raise NamesError(
            f"no driver packages are known for {system}; known: {', '.join(SYSTEMS)}. With"
            ' nvidia_driver_source = "none" the driver that the host has is used'
        )
    if not re.fullmatch(r"[0-9]{3}", branch):
        raise NamesError(f'nvidia_driver_branch = "{branch}" is not a branch such as "580"')
    ubuntu = system.startswith("ubuntu")
    if source in {"ubuntu", "debian"} and not system.startswith(source):
        other = "ubuntu" if ubuntu else "debian"
        raise NamesError(
            f'nvidia_driver_source = "{source}" on a host with {system}: say "{other}" or "nvidia"'
        )
    if source == "directory":
        candidates: tuple[Source, ...] = ("nvidia", "ubuntu" if ubuntu else "debian")
        for candidate in candidates:
            found = _named(candidate, system, branch, flavour, fabric=fabric, nvlink5=nvlink5)
            if found.module in offered:
                return found
        source = "nvidia"
    if source == "debian":
        only = DEBIAN_BRANCHES[system]
        if branch != only:
            raise NamesError(
                f"Debian's archive has branch {only} for {system}, the inventory says {branch}:"
                f' nvidia_driver_branch = "{only}", or nvidia_driver_source = "nvidia"'
            )
        if fabric:
            raise NamesError(
                "Debian's archive has no fabric manager, which this host's NVSwitches need:"
                ' nvidia_driver_source = "nvidia"'
            )
    if source == "ubuntu" and nvlink5:
        raise NamesError(
            "Ubuntu's archive has no nvlsm, which this host's NVLink 5 switches need:"
            ' nvidia_driver_source = "nvidia"'
        )
    return _named(source, system, branch, flavour, fabric=fabric, nvlink5=nvlink5)


def _named(
    source: Source, system: str, branch: str, flavour: Flavour, *, fabric: bool, nvlink5: bool
) -> PackageSet:
    if source == "debian":
        return _debians_own(branch, flavour)
    if source == "ubuntu":
        return _ubuntus_own(branch, flavour, fabric=fabric)
    suffixed = int(branch) <= LAST_SUFFIXED_FABRIC
    manager = f"nvidia-fabricmanager-{branch}" if suffixed else "nvidia-fabricmanager"
    wanted = (manager,) if fabric else ()
    subnet = ("nvlsm",) if nvlink5 else ()
    if system.startswith("debian"):
        return _nvidias_for_debian(branch, flavour, wanted, subnet)
    return _nvidias_for_ubuntu(branch, flavour, wanted, subnet)


def _nvidias_for_debian(
    branch: str, flavour: Flavour, fabric: tuple[str, ...], nvlink5: tuple[str, ...]
) -> PackageSet:
    module = "nvidia-kernel-open-dkms" if flavour == "open" else "nvidia-kernel-dkms"
    return PackageSet(
        branch,
        flavour,
        module,
        # nvidia-smi is in nvidia-driver-cuda, which conflicts with Debian's package of that name.
        (module, "nvidia-driver-cuda", PERSISTENCED),
        if_offered=(MODPROBE,),
        fabric=fabric,
        nvlink5=nvlink5,
        pinning=f"nvidia-driver-pinning-{branch}",
    )


def _nvidias_for_ubuntu(
    branch: str, flavour: Flavour, fabric: tuple[str, ...], nvlink5: tuple[str, ...]
) -> PackageSet:
    suffix = f"-{branch}" if int(branch) <= LAST_SUFFIXED else ""
    module = f"nvidia-dkms{suffix}{'-open' if flavour == 'open' else ''}"
    return PackageSet(
        branch,
        flavour,
        module,
        (module, f"libnvidia-compute{suffix}", PERSISTENCED),
        # nvidia-smi: a package of its own in some releases of the suffixed branches.
        if_offered=(MODPROBE, f"nvidia-utils{suffix}") if suffix else (MODPROBE,),
        fabric=fabric,
        nvlink5=nvlink5,
        pinning=f"nvidia-driver-pinning-{branch}",
    )


def _ubuntus_own(branch: str, flavour: Flavour, *, fabric: bool) -> PackageSet:
    module = f"nvidia-dkms-{branch}-server{'-open' if flavour == 'open' else ''}"
    return PackageSet(
        branch,
        flavour,
        module,
        (
            module,
            f"libnvidia-compute-{branch}-server",
            f"nvidia-utils-{branch}-server",
            f"nvidia-compute-utils-{branch}-server",  # nvidia-persistenced
        ),
        fabric=(f"nvidia-fabricmanager-{branch}",) if fabric else (),
    )


def _debians_own(branch: str, flavour: Flavour) -> PackageSet:
    module = "nvidia-open-kernel-dkms" if flavour == "open" else "nvidia-kernel-dkms"
    return PackageSet(
        branch,
        flavour,
        module,
        (module, "libcuda1", "nvidia-smi", PERSISTENCED),
    )


FAMILIES = (
    *(pattern for pattern in families.FAMILIES if pattern != "libnvidia-*"),
    # Without libnvidia-container* and libnvidia-egl-*, which go their own way: apt's preferences
    # know no exceptions.
    "libnvidia-[!ce]*",
    "libnvidia-c[!o]*",
    "libnvidia-com*",
    "libnvidia-e[!g]*",
    "libnvidia-eglcore",
)
"""The driver's packages in every source, as glob patterns of apt's preferences (fnmatch)."""


_BRANCH = re.compile(r"(?<=-)[0-9]{3}(?=-|$)")


def successor(name: str, depends: str) -> str | None:
    """The package that *name* is an empty dependency on, None if it is a real one.

    *depends* is its Depends field. Ubuntu turns the packages of a branch that has ended into such
    ones: ``nvidia-dkms-570-server-open 570.211.01`` installs 580, whatever its version says
    (noble-updates, 2026). Follow it before a version is compared.
    """
    only = depends.strip()
    if "," in only or "|" in only or not only:
        return None
    target = only.split(" ", 1)[0].partition(":")[0]
    if target == name or not _BRANCH.search(name):
        return None
    same = _BRANCH.sub("*", target, count=1) == _BRANCH.sub("*", name, count=1)
    return target if same else None


_STEMS = (
    "libnvidia-(?:cfg1|common|compute|decode|encode|extra|fbc1|gl|gpucomp)",
    "nvidia-(?:compute-utils|dkms|driver|firmware|headless|headless-no-dkms)",
    "nvidia-(?:kernel-common|kernel-source|utils)",
    "xserver-xorg-video-nvidia",
)
_STYLED = re.compile(rf"(?:{'|'.join(_STEMS)})(?P<style>(?:-[0-9]{{3}})?(?:-server)?)(?:-.*)?")
_MODULES = re.compile(r"nvidia-(?:open-)?kernel-(?:open-)?dkms|nvidia-dkms.*")
_PAIRED = re.compile(r"(?:nvidia-fabricmanager|libnvidia-nscq|nvidia-imex)(?:-[0-9]{3})?")


def superseded(wanted: PackageSet, installed: Collection[str]) -> tuple[str, ...]:
    """Which of *installed* have to go for *wanted*: what is called differently there.

    The other flavour's module; on Ubuntu the packages of another branch, or with the other sort of
    names; a fabric manager that is called differently. They conflict with the wanted ones, but apt
    prefers to keep what is there, and held at that, unless it is told.
    """
    own = _STYLED.fullmatch(wanted.module)
    kept = {*wanted.names, *wanted.if_offered}
    gone = []
    for name in installed:
        styled = _STYLED.fullmatch(name)
        if name not in kept and (
            _MODULES.fullmatch(name)
            or (own and styled and styled["style"] != own["style"])
            or (_PAIRED.fullmatch(name) and wanted.fabric)
            or (name == "nvidia-smi" and "nvidia-driver-cuda" in kept)
            or (name == "nvidia-driver-cuda" and "nvidia-smi" in kept)
            # Ubuntu's archive has the one in another package, and no use for the other.
            or (own and own["style"].endswith("-server") and name in {MODPROBE, PERSISTENCED})
        ):
            gone.append(name)
    return tuple(sorted(gone))
