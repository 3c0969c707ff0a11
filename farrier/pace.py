"""What pyinfra 3.10 spends on the operator's side without need, spared.

Measured with ``python -m tests.bench --breakdown`` (docs/benchmarks.md); every part can be taken
out without a change in what a run does. Installed by :func:`farrier.inventory.install`.
"""

from __future__ import annotations

import atexit
import gc
import sys
from functools import cache
from importlib import import_module
from types import FrameType
from typing import Any

from pyinfra.api import arguments, util

__all__ = ["install", "operation_order"]


def install() -> None:
    """Make this process faster."""
    # pyinfra turns byte code off, so that our roles would be compiled anew in every run.
    sys.dont_write_bytecode = bool(sys.flags.dont_write_bytecode)
    # The interpreter's end visits every object to free memory that the system gets back anyway.
    atexit.register(gc.freeze)
    # The types of the global arguments, evaluated anew for every operation on every host.
    arguments.all_global_arguments = cache(arguments.all_global_arguments)
    # pyinfra.api.operation is the decorator of that name; import_module finds the module.
    operations: Any = import_module("pyinfra.api.operation")
    operations.get_operation_order_from_stack = operation_order


def operation_order(state: Any) -> list[int]:
    """The lines from the deploy file to the operation that is being added: its place in the order.

    As ``pyinfra.api.util.get_operation_order_from_stack``, which also looks for the source and the
    module of every frame: 2 ms for each operation on each host, two thirds of the time that a
    deploy file takes.
    """
    lines: list[int] = []
    whole = 0
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        file = frame.f_code.co_filename
        if not file.startswith(util.PYINFRA_INSTALL_DIR):
            lines.append(frame.f_lineno)
        if file == state.current_deploy_filename:
            whole = len(lines)  # its outermost frame counts: a function of it may call another
        frame = frame.f_back
    return [state.current_op_file_number, *reversed(lines[: whole or len(lines)])]
