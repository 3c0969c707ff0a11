"""pyinfra's two decorators with types that a checker can follow.

pyinfra 3.10 types what they return as taking its global arguments first, which refuses every
positional argument; here the call itself is not checked, but its result is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from pyinfra.api.deploy import deploy as _deploy
from pyinfra.api.operation import operation as _operation

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyinfra.api.operation import OperationMeta

    from farrier.converge.commands import Commands

__all__ = ["deploy", "operation"]


def operation(function: Callable[..., Commands]) -> Callable[..., OperationMeta]:
    """Make an operation of a generator of commands; takes ``name=`` besides its own arguments."""
    return cast("Callable[..., OperationMeta]", _operation()(function))


def deploy(name: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make a deploy of a function that calls operations: *name* stands before theirs."""

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        decorated: Any = _deploy(name)(function)
        return cast("Callable[..., None]", decorated)

    return decorate
