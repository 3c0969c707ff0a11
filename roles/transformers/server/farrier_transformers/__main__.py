"""``python -m farrier_transformers``: listens at once, loads, serves, and ends in order.

SIGTERM and SIGINT: it stops listening, finishes what runs and waits within ``--shutdown-timeout``
seconds, cuts the rest with an error, and exits 0. Where the model cannot be loaded, or the thread
that computes is lost, everybody is told, and it exits 1: systemd starts it again.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvicorn
from fastapi import FastAPI

from farrier_transformers.app import Api
from farrier_transformers.errors import ApiError
from farrier_transformers.jobs import Line
from farrier_transformers.metrics import Meters
from farrier_transformers.models import Model
from farrier_transformers.options import Options, parse
from farrier_transformers.worker import Worker

log = logging.getLogger("farrier_transformers")

LAST_STEP = 10
"""Seconds for the step that is being computed when everything is over."""


class Service:
    """One run of the server. ``status`` is its exit code."""

    def __init__(self, options: Options) -> None:
        self.status = 0
        self._options = options
        self._line = Line(options.max_waiting)
        self._meters = Meters(self._line)
        self._worker = Worker(self._load, self._line, self._meters, self._died)
        self._ending = False
        api = Api(options.name, self._line, self._meters, self._worker)
        self._server = uvicorn.Server(
            uvicorn.Config(
                api.application(self._living),
                host=options.host,
                port=options.port,
                log_level="warning",
                access_log=False,
                ws="none",
                timeout_graceful_shutdown=int(options.shutdown_timeout) + LAST_STEP,
            )
        )

    async def run(self) -> None:
        """Serve until the end."""
        self._loop = asyncio.get_running_loop()
        await self._server.serve(sockets=[self._server.config.bind_socket()])
        self._line.close(_ENDS)
        await asyncio.to_thread(self._worker.join, LAST_STEP)

    @property
    def is_over(self) -> bool:
        """Whether the thread that computes has ended as well."""
        return not self._worker.is_alive()

    def _load(self) -> Model:
        # Here, in its thread: importing torch takes seconds, in which /health answers already.
        from farrier_transformers.loading import load  # noqa: PLC0415

        return load(self._options, self._meters)

    @asynccontextmanager
    async def _living(self, _: FastAPI) -> AsyncIterator[None]:
        # After uvicorn's own handlers, which would end the process by the signal once it is done.
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._finish)
        self._worker.start()
        yield

    def _finish(self) -> None:
        if self._ending:
            return
        self._ending = True
        log.warning(
            "ends: %d running and %d waiting requests have %g s",
            *(self._line.running, self._line.waiting, self._options.shutdown_timeout),
        )
        self._line.close(_ENDS)
        self._loop.call_later(self._options.shutdown_timeout, self._line.cut, _CUT)
        self._server.should_exit = True

    def _died(self) -> None:
        def end() -> None:
            self.status = 1
            self._server.should_exit = True

        self._loop.call_soon_threadsafe(end)


_ENDS = ApiError(503, "the server ends; ask again later", code="not_ready", retry_after=1)
_CUT = ApiError(503, "the server ended before the answer did", code="cut", retry_after=1)


def main() -> None:
    """Run it, and end the process."""
    options = parse()
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(levelname)s %(name)s: %(message)s"
    )
    service = Service(options)
    asyncio.run(service.run())
    logging.shutdown()
    if not service.is_over:
        # Python would wait for, or trip over, a thread in the middle of torch.
        os._exit(service.status)
    sys.exit(service.status)


if __name__ == "__main__":
    main()
