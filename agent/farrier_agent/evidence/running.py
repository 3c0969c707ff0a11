"""Runs a program and takes what it says, within a time and a size."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Sequence
from contextlib import suppress
from typing import Literal

__all__ = ["Cut", "RunError", "run"]

CHUNK = 65536
Cut = Literal["head", "tail"]
"""Which part is kept of what is too long: ``head`` or ``tail``."""


class RunError(Exception):
    """A program gave nothing to keep; the message says why."""


async def run(
    command: Sequence[str], *, deadline: float, limit: int, cut: Cut = "head"
) -> tuple[bytes, str | None]:
    """What *command* prints within *deadline* seconds, at most *limit* bytes, and what is amiss.

    A program that is slow is killed, and what it said so far is kept. It is waited for only a
    moment: one that hangs in the kernel cannot be killed. Raises RunError when it cannot be run.
    """
    environment = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"}
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )
    except OSError as error:
        raise RunError(f"{command[0]}: {error.strerror}") from error
    assert process.stdout is not None  # noqa: S101 - PIPE
    kept = bytearray()
    amiss: str | None = None
    end = asyncio.get_running_loop().time() + deadline
    try:
        while True:
            left = end - asyncio.get_running_loop().time()
            chunk = await asyncio.wait_for(process.stdout.read(CHUNK), left)
            if not chunk:
                break
            kept += chunk
            if len(kept) > limit:
                amiss = f"cut to {limit} bytes ({cut})"
                if cut == "head":
                    del kept[limit:]
                    break
                del kept[: len(kept) - limit]
        if amiss is None or cut == "tail":
            status = await asyncio.wait_for(process.wait(), 1)
            amiss = amiss or (f"exit status {status}" if status else None)
    except asyncio.TimeoutError:
        amiss = f"not done within {deadline:g} s"
    finally:
        await _end(process)
    return bytes(kept), amiss


async def _end(process: asyncio.subprocess.Process) -> None:
    """Kill *process* with its children, and read to the end what keeps its pipe open."""
    if process.returncode is None:  # else its number may belong to somebody else by now
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    with suppress(asyncio.TimeoutError):
        await asyncio.wait_for(_discard(process), 0.5)


async def _discard(process: asyncio.subprocess.Process) -> None:
    assert process.stdout is not None  # noqa: S101 - PIPE
    while await process.stdout.read(CHUNK):
        pass
    await process.wait()
