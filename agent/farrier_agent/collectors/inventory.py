"""The GPUs that this host is known to have, so that one that is lost is said to be lost.

Kept in a file, over restarts and reboots; what is said of them is :mod:`.known`'s.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path

import msgspec

from farrier_agent.collectors.blocking import BlockedError, Blocking
from farrier_agent.collectors.known import Known, merged
from farrier_agent.collectors.memory import Memory, decoder, load
from farrier_agent.gpus import Gpus

__all__ = ["Inventory"]

_replace = msgspec.structs.replace
_known = decoder(list[Known])


class Inventory:
    """Remembers the GPUs of this host in the file *path*. *wanted* is as in :func:`merged`.

    Nothing here waits for the disk. Until the file is read, nothing is said to be missing.
    """

    def __init__(
        self,
        path: Path,
        wanted: Mapping[str, Sequence[int]] | None = None,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._path = path
        self._wanted = dict(wanted or {})
        self._clock = clock
        self._known: dict[str, Known] | None = None
        self._here: frozenset[str] = frozenset()
        self.forgotten: tuple[str, ...] = ()
        """The GPUs that the last :meth:`merge` has forgotten by itself."""
        self._memory: Memory[list[Known]] = Memory(path, every=1.0)
        self._thread = Blocking("inventory")
        self._problem = f"{path} is not read yet"

    @property
    def known(self) -> tuple[Known, ...]:
        """What is remembered; nothing before :meth:`read`."""
        return tuple((self._known or {}).values())

    @property
    def problem(self) -> str | None:
        """Why it is not known which GPUs there were; None when it is."""
        return self._problem if self._known is None else None

    async def read(self, deadline: float) -> None:
        """Read what was remembered, if that was not done yet. Never raises; :meth:`merge` says."""
        if self._known is not None:
            return
        try:
            found = await self._thread.run(partial(load, self._path, _known), deadline)
        except BlockedError as error:
            self._problem = f"{self._path} cannot be read: the disk hangs: {error}"
        except OSError as error:
            self._problem = f"{self._path} cannot be read: {error.strerror}"
        else:
            self._known = {one.uuid: one for one in found or ()}

    def merge(self, gpus: Gpus | None, functions: Collection[str] | None) -> Gpus | None:
        """:func:`merged`, remembered."""
        self.forgotten = ()
        if self._known is None:
            if gpus is None:
                return None
            told = f"{self._problem}; a GPU that is missing cannot be told"
            return _replace(gpus, problems=(*gpus.problems, told))
        found = merged(self._known, gpus, functions, wanted=self._wanted, now=self._clock())
        self.forgotten = found.forgotten
        if gpus is not None:
            self._here = frozenset(gpu.uuid for gpu in gpus.devices)
        elif found.gpus is not None:
            self._here -= {gpu.uuid for gpu in found.gpus.devices}  # they have left the bus
        if found.known != self._known:
            self._known = found.known
            self._memory.keep(list(found.known.values()))
        self._memory.go_on()
        return found.gpus

    def forget(self, uuid: str) -> bool:
        """Forget a GPU that is not here any more. False when it is, or was never known."""
        if self._known is None or uuid not in self._known or uuid in self._here:
            return False
        del self._known[uuid]
        self._memory.keep(list(self._known.values()))
        return True

    async def close(self) -> None:
        """Write what is not written yet."""
        await self._memory.close()
