"""The GPUs, through NVML in its worker process."""

from __future__ import annotations

from typing import TYPE_CHECKING

from farrier_agent.collectors import CollectError

if TYPE_CHECKING:
    from farrier_agent.gpus import Gpus, Nvml

__all__ = ["GpuCollector", "GpuError"]


class GpuError(CollectError):
    """The GPUs could not be read; the message says why.

    *kind* is as in :class:`~farrier_agent.gpus.Nvml`, *call* the NVML call that hangs.
    """

    def __init__(self, words: str, *, kind: str = "failed", call: str | None = None) -> None:
        super().__init__(words)
        self.kind = kind
        self.call = call


class GpuCollector:
    """Reads all GPUs. *library* is as ``nvml_library`` in agent.toml."""

    def __init__(self, library: str | None, *, tick: float = 5.0) -> None:
        from farrier_agent.nvml.keeper import NvmlWorker  # noqa: PLC0415 - only with a GPU

        self.worker = NvmlWorker(library, tick=tick)

    async def collect(self, *, deadline: float) -> Gpus:
        """The GPUs within *deadline* seconds. Raises :class:`GpuError`."""
        return await self.worker.read(deadline)

    @property
    def nvml(self) -> Nvml:
        """How the worker fares."""
        return self.worker.nvml

    async def close(self) -> None:
        """End the worker."""
        await self.worker.close()
