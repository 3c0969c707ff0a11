"""How containers on this host would get at its GPUs."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["CdiSpec", "ContainerFacts"]


@dataclass(frozen=True, slots=True)
class CdiSpec:
    """A CDI specification of NVIDIA devices.

    *driver_version* is the one whose libraries it mounts, None if it names none. After a change of
    driver the file is stale: its containers do not start.
    """

    path: str
    driver_version: str | None = None


@dataclass(frozen=True, slots=True)
class ContainerFacts:
    """The container toolkit and those who use it.

    *toolkit* is nvidia-ctk's version, None if absent. *runtimes* are the container engines that
    are installed (``docker``, ``containerd``, ``podman``, ``crio``), *configured* those of them
    whose configuration names NVIDIA's runtime. *dev_char_missing* are NVIDIA's device nodes
    without a link in /dev/char: ``systemctl daemon-reload`` takes them away from running
    containers (NVIDIA/nvidia-container-toolkit issue 48).
    """

    toolkit: str | None = None
    runtimes: tuple[str, ...] = ()
    configured: tuple[str, ...] = ()
    cdi: tuple[CdiSpec, ...] = ()
    dev_char_missing: tuple[str, ...] = ()
