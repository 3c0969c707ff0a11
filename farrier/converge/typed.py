"""pyinfra's two decorators with types that a checker can follow.

pyinfra 3.10 types what they return as taking its global arguments first, which refuses every
positional argument; here the call itself is not checked, but its result is.
"""

from __future__ import annotations

from functools import partial, wraps
from typing import TYPE_CHECKING, Any, cast, overload

from pyinfra.api.deploy import deploy as _deploy
from pyinfra.api.operation import operation as _operation

from farrier.converge.questions import changing, expect, working_on

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyinfra.api.operation import OperationMeta

    from farrier.converge.commands import Commands
    from farrier.converge.questions import Question

    Operation = Callable[..., OperationMeta]
    Asks = Callable[..., Question]

__all__ = ["deploy", "operation"]


@overload
def operation(function: Callable[..., Commands]) -> Operation: ...


@overload
def operation(*, asks: Asks) -> Callable[[Callable[..., Commands]], Operation]: ...


def operation(function: Callable[..., Commands] | None = None, *, asks: Asks | None = None) -> Any:
    """Make an operation of a generator of commands; takes ``name=`` besides its own arguments.

    *asks* makes of the operation's arguments the question whose :func:`.questions.answer` it
    reads, so that it can be asked together with those of all others.
    """
    if function is None:
        return partial(operation, asks=asks)

    @wraps(function)
    def commands(*args: Any, **kwargs: Any) -> Commands:
        working_on(asks(*args, **kwargs) if asks else None)
        for command in function(*args, **kwargs):
            changing()
            yield command

    added = cast("Operation", _operation()(commands))
    if asks is None:
        return added

    @wraps(function)
    def asking(*args: Any, **kwargs: Any) -> OperationMeta:
        meta = added(*args, **kwargs)
        expect(asks(*args, **{key: kwargs[key] for key in kwargs if not _is_pyinfras(key)}))
        return meta

    return asking


def _is_pyinfras(argument: str) -> bool:
    return argument == "name" or argument.startswith("_")


def deploy(name: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make a deploy of a function that calls operations: *name* stands before theirs."""

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        decorated: Any = _deploy(name)(function)
        return cast("Callable[..., None]", decorated)

    return decorate
