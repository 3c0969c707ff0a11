"""A load that runs in a thread of its own while something is done to what it is aimed at."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from types import TracebackType

from farrier.load.endpoint import Endpoint
from farrier.load.ledger import Ledger
from farrier.load.plan import Plan
from farrier.load.running import run

__all__ = ["Background"]


class Background:
    """A load from when the block is entered until :meth:`end` or the block's end.

    ``ledger`` may be read all the time.
    """

    def __init__(self, plan: Plan, endpoint: Endpoint) -> None:
        self.plan, self.endpoint = plan, endpoint
        self.ledger = Ledger()
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._problem: BaseException | None = None
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        load = run(self.plan, self.endpoint, stop=self._stop, ledger=self.ledger)
        try:
            self._loop.run_until_complete(load)
        except BaseException as error:  # raised where the load is ended
            self._problem = error
        finally:
            self._loop.close()

    def end(self) -> Ledger:
        """Begin nothing any more and wait for what runs; the ledger. Raises what the load did."""
        if self._thread.is_alive():
            # between the two the loop may have closed: then it is over anyway
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()
        if self._problem is not None:
            raise self._problem
        return self.ledger

    def __enter__(self) -> Background:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.end()
