"""What can be wrong with NVML as a whole."""

from __future__ import annotations

__all__ = ["NvmlError", "kind_of"]

_KINDS = {4: "no_permission", 9: "not_loaded", 12: "no_library", 18: "mismatch"}


def kind_of(code: int | None) -> str:
    """The ``kind`` of :class:`~farrier_agent.gpus.Nvml` for an ``nvmlReturn_t``."""
    return "failed" if code is None else _KINDS.get(code, "failed")


class NvmlError(RuntimeError):
    """NVML as a whole cannot be used; the message says why, and what to do.

    *kind* is as in :class:`~farrier_agent.gpus.Nvml`, *code* the ``nvmlReturn_t`` if there was
    one, *call* the function that gave it.
    """

    def __init__(
        self, words: str, *, kind: str = "failed", code: int | None = None, call: str = ""
    ) -> None:
        super().__init__(words)
        self.kind = kind
        self.code = code
        self.call = call
