"""Role ``nvidia_container_toolkit``: GPUs for containers that run beside the engines."""

from __future__ import annotations

from pyinfra import host

from farrier.converge import Absent, Text, tree
from farrier.converge.apt_sources import AptSource, apt_source, no_apt_source
from farrier.converge.held import Family, held_packages, no_packages
from farrier.converge.typed import deploy
from farrier.defaults import Default, Defaults
from roles.nvidia_container_toolkit.operations import links, runtimes, specifications
from roles.nvidia_container_toolkit.state import OWN_SPEC

__all__ = ["DEFAULTS", "nvidia_container_toolkit", "remove"]

DEFAULTS = Defaults(
    "nvidia_container_toolkit",
    "NVIDIA's container toolkit from its own repository, held at one version, with a CDI"
    " specification of the loaded driver and links in `/dev/char`. Off unless asked for: only"
    " engines in images need it (they get their GPUs by CDI). A container engine is configured"
    " where the inventory names it, and never restarted.",
    (
        Default("nvidia_container_toolkit", False, "Whether the host has it."),
        Default(
            "nvidia_container_toolkit_version",
            None,
            "The version of its four packages, with or without a Debian revision (`1.18.0`). None:"
            " the newest at the first installation, afterwards the installed one.",
        ),
        Default(
            "nvidia_container_runtimes",
            [],
            "Container engines that are told of NVIDIA's runtime: `docker`, `containerd`, `crio`."
            " podman needs none, it reads the CDI specification.",
        ),
        Default(
            "nvidia_container_repo_url",
            "https://nvidia.github.io/libnvidia-container/stable/deb/{arch}",
            "The repository, or a mirror of it; `{arch}` is `amd64` or `arm64`.",
        ),
        Default(
            "nvidia_container_repo_key_url",
            "https://nvidia.github.io/libnvidia-container/gpgkey",
            "Where the repository's key is.",
        ),
        Default(
            "nvidia_container_repo_fingerprint",
            "C95B321B61E88C1809C4F759DDCAE044F796ECB0",
            "Fingerprint of that key; another one is refused.",
        ),
        Default(
            "nvidia_container_repo_proxy",
            None,
            "`http://host:port` through which apt reaches the repository.",
        ),
    ),
)

PACKAGES = (
    "nvidia-container-toolkit",
    "nvidia-container-toolkit-base",
    "libnvidia-container1",
    "libnvidia-container-tools",
)
_FAMILY = Family(
    PACKAGES,
    members=r"(lib)?nvidia-container.*",
    setting="nvidia_container_toolkit_version",
    title="nvidia-container-toolkit",
)

# NVIDIA's own remedy: https://github.com/NVIDIA/nvidia-container-toolkit/issues/48
_RULE = "/etc/udev/rules.d/71-farrier-nvidia-dev-char.rules"
_LINKS = """\
# Written by Farrier's role nvidia_container_toolkit.
ACTION=="add", DEVPATH=="/bus/pci/drivers/nvidia", \
RUN+="/usr/bin/nvidia-ctk system create-dev-char-symlinks --create-all"
"""


@deploy("Container toolkit")
def nvidia_container_toolkit(proc: str = "/proc") -> None:
    """Install it where the inventory asks for it; *proc* is the host's /proc.

    The links come before the packages, whose installation reloads systemd.
    """
    settings = DEFAULTS.read(host.data)
    if not settings["nvidia_container_toolkit"]:
        return
    links(proc, name="Links in /dev/char")
    apt_source(_source(), name="Repository")
    held_packages(
        _FAMILY, version=settings["nvidia_container_toolkit_version"], name="Packages, held"
    )
    tree(Text(_RULE, _LINKS), name="Links at each boot")
    specifications(proc, name="CDI specification")
    if settings["nvidia_container_runtimes"]:
        runtimes(list(settings["nvidia_container_runtimes"]), name="Container engines")


def _source() -> AptSource:
    settings = DEFAULTS.read(host.data)
    return AptSource(
        "nvidia-container",
        settings["nvidia_container_repo_url"],
        settings["nvidia_container_repo_key_url"],
        settings["nvidia_container_repo_fingerprint"],
        proxy=settings["nvidia_container_repo_proxy"],
    )


@deploy("Remove container toolkit")
def remove() -> None:
    """Purge the packages, the repository and its key, the CDI specification and the udev rule.

    What a container engine was told of NVIDIA's runtime stays: other things stand in its files.
    """
    no_packages(_FAMILY, name="Packages")
    no_apt_source(_source(), name="Repository")
    tree(Absent(_RULE), Absent(OWN_SPEC), Absent("/run/cdi/nvidia.yaml"), name="Files")
