"""Role ``nvidia_driver``: NVIDIA's driver from bare host to built, held and guarded.

``nvidia_driver`` installs where no driver is and keeps what Farrier installed; another driver it
leaves and says so. ``change`` exchanges it (deploys/driver.py).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyinfra import host

from farrier.converge import Absent, Text, tree
from farrier.converge.typed import deploy
from farrier.defaults import Default, Defaults
from roles.nvidia_driver.guard import (
    MODULES_LOAD,
    NOUVEAU,
    NOUVEAU_TEXT,
    OPTIONS,
    module_options,
)
from roles.nvidia_driver.look import STATE
from roles.nvidia_driver.operations import decided, planned, removed, transacted
from roles.nvidia_driver.settings import SettingsError, read_settings
from roles.nvidia_driver.settling import settled
from roles.nvidia_driver.sources import absent, apt_source

if TYPE_CHECKING:
    from collections.abc import Mapping

    from farrier.converge.paths import Entry
    from farrier.spec import HostSpec

__all__ = ["DEFAULTS", "change", "nvidia_driver", "remove"]

DEFAULTS = Defaults(
    "nvidia_driver",
    "NVIDIA's driver, compute only: kernel module by DKMS for every installed kernel, libcuda and"
    " NVML, nvidia-smi, the persistence daemon, and fabric manager on NVSwitch hosts; held against"
    " every upgrade but `deploys/driver.py`. For hosts with accelerator `cuda`.",
    (
        Default(
            "nvidia_driver_source",
            "nvidia",
            "Where the packages come from: `nvidia` (NVIDIA's CUDA repository), `ubuntu`, `debian`"
            " (the archives), `directory` (.deb files on the operator's machine), or `none`: the"
            " driver that the host has is used.",
        ),
        Default("nvidia_driver_branch", "580", "The release branch; vLLM 0.32.0 needs 580."),
        Default(
            "nvidia_driver_version",
            None,
            "A version, or its beginning: `580.95.05`, `535.261.03-1`. Without it the branch's"
            " newest at the first installation, and afterwards the one that is installed.",
        ),
        Default(
            "nvidia_driver_flavour",
            "auto",
            "`open` or `proprietary` kernel module; `auto` is what the GPUs need, else what"
            " NVIDIA's installers choose.",
        ),
        Default(
            "nvidia_driver_directory",
            None,
            "For source `directory`: a directory of .deb files on the operator's machine.",
        ),
        Default(
            "nvidia_fabric",
            "auto",
            "Whether the host needs the fabric manager; `auto` looks for NVSwitches.",
        ),
        Default(
            "nvidia_module_options",
            {},
            "Options of the kernel modules, `option` or `module.option`:"
            ' `{"NVreg_EnableGpuFirmware": 1}`. They count from the next load of the module.',
        ),
        Default(
            "nvidia_repo_url",
            None,
            "NVIDIA's repository, or a mirror of it; `{distro}` and `{arch}` are filled in.",
        ),
        Default("nvidia_repo_key_url", None, "Where its key is, if not beside it."),
        Default(
            "nvidia_repo_fingerprint", None, "The key's fingerprint, if not NVIDIA's: 40 digits."
        ),
        Default("nvidia_repo_proxy", None, "`http://host:port` through which apt reaches it."),
    ),
)


@deploy("NVIDIA driver")
def nvidia_driver(spec: HostSpec) -> None:
    """Install the driver where there is none; keep ours as it is; tell of any other."""
    _driver(spec, may_change=False)


@deploy("NVIDIA driver")
def change(spec: HostSpec) -> None:
    """Bring the driver that the inventory names, whichever is installed. Refused while engines run.

    Nothing is rebooted: what takes effect at the next boot only is said in the run's last lines.
    """
    _driver(spec, may_change=True)


def _driver(spec: HostSpec, *, may_change: bool) -> None:
    values = DEFAULTS.read(host.data)
    if "gpu" not in spec.groups or spec.accelerator != "cuda":
        return
    if values["nvidia_driver_source"] == "none":
        return
    planned(values, _offered(values), may_change, spec.roots, name="Plan")
    apt_source(
        values["nvidia_driver_source"],
        url=values["nvidia_repo_url"],
        key_url=values["nvidia_repo_key_url"],
        fingerprint=values["nvidia_repo_fingerprint"],
        proxy=values["nvidia_repo_proxy"],
        directory=values["nvidia_driver_directory"],
        name="Source of packages",
        # The source of a driver that stays away must not offer upgrades of the one that is there.
        _if=lambda: not decided("leave"),
    )
    transacted(spec.roots, name="Packages and kernel modules")
    tree(*_files(values), name="Module options", _if=lambda: not decided("leave"))
    settled(bool(spec.carried) and not may_change, spec.roots, name="Boot images and daemons")


def _offered(values: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of the packages in the directory that is the source."""
    directory = values["nvidia_driver_directory"]
    if values["nvidia_driver_source"] != "directory" or not directory:
        return ()
    return tuple(
        sorted(file.name.partition("_")[0] for file in Path(directory).expanduser().glob("*.deb"))
    )


def _files(values: Mapping[str, Any]) -> tuple[Entry, ...]:
    try:
        options = module_options(read_settings(values))
    except SettingsError:  # the plan refuses it, with the reason
        options = None
    return (
        Text(NOUVEAU, NOUVEAU_TEXT),
        Text(OPTIONS, options) if options else Absent(OPTIONS),
    )


@deploy("Remove NVIDIA driver")
def remove() -> None:
    """Take away the packages that this role installed, their guards, sources and modules.

    A driver that somebody else had installed stays; so does a kernel that came with headers.
    """
    removed(name="Packages and kernel modules")
    tree(
        Absent(NOUVEAU),
        Absent(OPTIONS),
        Absent(MODULES_LOAD),
        *absent(),
        Absent(STATE),
        name="Files",
    )
