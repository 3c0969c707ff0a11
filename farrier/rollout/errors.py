"""What can go wrong with a rollout as a whole.

RolloutError            exit code 1
├── GateError           1: a host is not what it was before, so it must not serve
├── GatewaysError       1: some gateways did not do what they were asked (:mod:`.gateways`)
├── RefusedError        3: a safety check says no; nothing was changed by what was refused
│   └── FencedError     3: this process no longer holds the lease of a host
│       └── CutOffError 1: for it could not be reached any more
└── UsageError          2: asked for what makes no sense
"""

from __future__ import annotations

__all__ = [
    "CutOffError",
    "FencedError",
    "GateError",
    "RefusedError",
    "RolloutError",
    "UsageError",
]


class RolloutError(Exception):
    """What failed, where and why; ``next`` is the command to type."""

    code = 1

    def __init__(self, what: str, next: str | None = None) -> None:  # noqa: A002 - its name
        super().__init__(what)
        self.next = next

    def __str__(self) -> str:
        said = super().__str__()
        return f"{said}\n  next: {self.next}" if self.next else said

    @property
    def what(self) -> str:
        """The message without the next command."""
        return super().__str__()


class GateError(RolloutError):
    """A gate was not passed: the host is not what it was before."""


class RefusedError(RolloutError):
    """A safety check says no."""

    code = 3


class FencedError(RefusedError):
    """The host's lease is another process's, or ran out: nothing more is done there."""


class CutOffError(FencedError):
    """The host's lease ran out while the host could not be reached: it failed, nobody refused."""

    code = 1


class UsageError(RolloutError, ValueError):
    """Asked for what makes no sense."""

    code = 2
