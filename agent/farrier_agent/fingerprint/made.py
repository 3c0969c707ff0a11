"""The fingerprint of a host, made of what the agent knows of it. Pure.

Units are those of :mod:`farrier_agent.gpus`. ``None`` means *could not be read*, and is never
compared. What changes from one moment to the next (temperatures, present clocks, the PCIe
generation of an idle GPU) is no part of it.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from farrier_agent.gpus import Gpu
from farrier_agent.status import Status

__all__ = ["SCHEMA", "Fingerprint", "GpuPrint", "Speed", "make"]

SCHEMA = 1
"""Version of the file. Within one, fields are only added."""


class GpuPrint(msgspec.Struct, frozen=True, kw_only=True):
    """One GPU. ``nvlinks_up`` of its ``nvlinks`` were up."""

    uuid: str
    index: int
    name: str | None = None
    serial: str | None = None
    vbios_version: str | None = None
    inforom_version: str | None = None
    pci_bus_id: str | None = None
    memory_total_bytes: int | None = None
    pcie_width: int | None = None
    pcie_max_width: int | None = None
    pcie_max_generation: int | None = None
    nvlinks: int = 0
    nvlinks_up: int = 0
    power_limit_watts: float | None = None
    sm_max_clock_hertz: int | None = None
    memory_max_clock_hertz: int | None = None
    ecc_enabled: bool | None = None
    mig_enabled: bool | None = None
    compute_mode: str | None = None


class Speed(msgspec.Struct, frozen=True, kw_only=True):
    """How fast a replica generated for one client, asked on its own port.

    ``tokens_per_second`` are those of a stream after its first token, ``first_token_seconds`` the
    median until then, over ``requests`` within ``seconds``. ``others``: so many requests of others
    were in work at the same time, at the most; with any the number says little.
    """

    replica: str
    model: str
    engine: str
    tokens_per_second: float
    first_token_seconds: float
    requests: int
    seconds: float
    others: int = 0

    @property
    def quiet(self) -> bool:
        """Nobody else was served meanwhile."""
        return self.others == 0


class Fingerprint(msgspec.Struct, frozen=True, kw_only=True):
    """One host at one moment. ``gpus`` is None where NVML did not answer (no GPU: empty)."""

    schema: int = SCHEMA
    host: str
    at: float
    agent: str
    boot_id: str | None = None
    kernel: str | None = None
    driver_version: str | None = None
    cuda_version: str | None = None
    gpus: tuple[GpuPrint, ...] | None = None
    speeds: tuple[Speed, ...] = ()


def make(
    status: Status, *, kernel: str | None, boot_id: str | None, speeds: Iterable[Speed] = ()
) -> Fingerprint:
    """The fingerprint of the host that *status* is of."""
    gpus = status.gpus
    there: tuple[GpuPrint, ...] | None = ()
    if status.accelerator == "cuda":
        there = None
        if gpus is not None and gpus.count is not None:
            there = tuple(_gpu(one) for one in gpus.devices if one.up)
    return Fingerprint(
        host=status.host,
        at=status.at,
        agent=status.agent.version,
        boot_id=boot_id,
        kernel=kernel,
        driver_version=gpus.driver_version if gpus else None,
        cuda_version=gpus.cuda_version if gpus else None,
        gpus=there,
        speeds=tuple(speeds),
    )


def _gpu(one: Gpu) -> GpuPrint:
    same = {
        name: getattr(one, name)
        for name in GpuPrint.__struct_fields__
        if name not in {"nvlinks", "nvlinks_up"}
    }
    up = sum(link.up is True for link in one.nvlinks)
    return GpuPrint(**same, nvlinks=len(one.nvlinks), nvlinks_up=up)
