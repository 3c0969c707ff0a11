"""The units of the replicas, read by one call of ``systemctl show``."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from contextlib import suppress

from farrier_agent.collectors import CollectError
from farrier_agent.status import Unit

__all__ = ["UnitsError", "parse", "read"]

PROPERTIES = ("Id", "Names", "LoadState", "ActiveState", "SubState", "InvocationID", "MainPID")


class UnitsError(CollectError):
    """The state of the units could not be read; the message says why."""


def parse(text: str, names: Sequence[str]) -> tuple[Unit, ...]:
    """The units *names*, in that order, from what ``systemctl show`` printed for them.

    Blocks of ``Key=value`` lines are divided by empty lines. A unit is found by any of its names,
    for ``Id`` is another one where the unit has an alias. Raises :class:`UnitsError` when a unit or
    one of its properties is missing.
    """
    found: dict[str, dict[str, str]] = {}
    for block in text.split("\n\n"):
        pairs = (line.partition("=") for line in block.splitlines() if "=" in line)
        properties = {key: value for key, _, value in pairs}
        for name in {properties.get("Id", ""), *properties.get("Names", "").split()}:
            found[name] = properties
    return tuple(_unit(name, found.get(name)) for name in names)


def _unit(name: str, properties: dict[str, str] | None) -> Unit:
    if properties is None:
        raise UnitsError(f"systemctl show says nothing about {name}")
    try:
        return Unit(
            name=name,
            load_state=properties["LoadState"],
            active_state=properties["ActiveState"],
            sub_state=properties["SubState"],
            invocation_id=properties.get("InvocationID") or None,
            main_pid=int(properties.get("MainPID", "0")) or None,
        )
    except KeyError as error:
        raise UnitsError(f"systemctl show has no {error.args[0]} of {name}") from None
    except ValueError:
        raise UnitsError(f"systemctl show: MainPID of {name} is no number") from None


async def read(names: Sequence[str], *, deadline: float) -> tuple[Unit, ...]:
    """Ask systemd for the units *names* within *deadline* seconds. Raises :class:`UnitsError`."""
    command = ("systemctl", "show", "--no-pager", f"--property={','.join(PROPERTIES)}", "--")
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            *names,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, "LC_ALL": "C"},
        )
    except OSError as error:
        raise UnitsError(f"systemctl cannot be run: {error.strerror}") from error
    try:
        out, err = await asyncio.wait_for(process.communicate(), deadline)
    except asyncio.TimeoutError:
        raise UnitsError(f"systemctl show did not answer within {deadline:g} s") from None
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
    if process.returncode != 0:
        said = " ".join(err.decode(errors="replace").split())[:200]
        raise UnitsError(f"systemctl show failed with status {process.returncode}: {said}")
    return parse(out.decode(errors="replace"), names)
