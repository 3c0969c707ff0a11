"""The GPUs, through NVML in its thread."""

from __future__ import annotations

from farrier_agent.collectors import CollectError
from farrier_agent.nvml.session import NvmlError, Session
from farrier_agent.nvml.thread import BlockedError, Thread
from farrier_agent.status import Gpus

__all__ = ["GpuCollector", "GpuError"]


class GpuError(CollectError):
    """The GPUs could not be read; the message says why."""


class GpuCollector:
    """Reads all GPUs. *library* is as ``nvml_library`` in agent.toml."""

    def __init__(self, library: str | None) -> None:
        self._session = Session(library)
        self._thread = Thread("nvml", self._session.read)

    async def collect(self, *, deadline: float) -> Gpus:
        """The GPUs within *deadline* seconds. Raises :class:`GpuError`."""
        try:
            return await self._thread.run(deadline)
        except BlockedError as error:
            raise GpuError(f"NVML hangs in {self._session.calling}: {error}") from error
        except NvmlError as error:
            raise GpuError(str(error)) from error
