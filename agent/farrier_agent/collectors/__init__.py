"""What the agent collects, one module per source. Parsing stands apart from reading."""

from __future__ import annotations

__all__ = ["CollectError"]


class CollectError(RuntimeError):
    """A source could not be read; the message says which and why.

    One subclass per source: :class:`~farrier_agent.units.state.UnitsError`,
    :class:`~farrier_agent.collectors.replicas.ReplicasError`,
    :class:`~farrier_agent.collectors.gpu.GpuError`.
    """
