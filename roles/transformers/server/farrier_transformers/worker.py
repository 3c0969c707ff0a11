"""The thread that loads the model and then does one job after the other."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from enum import Enum

from farrier_transformers.errors import ApiError, StartError
from farrier_transformers.jobs import Job, Line
from farrier_transformers.metrics import Meters
from farrier_transformers.models import Model

__all__ = ["State", "Worker"]

log = logging.getLogger(__name__)

LOADING_RETRY = 30
"""Seconds after which a client may ask again while the model loads."""


class State(Enum):
    """Of the worker. Only ``READY`` serves."""

    LOADING = "loading"
    READY = "ready"
    DEAD = "dead"


class Worker(threading.Thread):
    """Loads with *load*, proves that the model works, and serves *line*.

    *died* is called from this thread when it cannot go on; ``why`` says what happened.
    """

    def __init__(
        self, load: Callable[[], Model], line: Line, meters: Meters, died: Callable[[], None]
    ) -> None:
        super().__init__(name="generating", daemon=True)
        self._load = load
        self._line = line
        self._meters = meters
        self._died = died
        self._state = State.LOADING
        self.why = ""
        self.model: Model | None = None

    @property
    def state(self) -> State:
        """What it does; a thread that ended does nothing, whatever it said last."""
        return State.DEAD if self._state is State.READY and not self.is_alive() else self._state

    def ready(self) -> Model:
        """The model. Raises :class:`ApiError` while there is none, or none any more."""
        if self.model is None or self.state is not State.READY:
            what = "the model is loading" if self.state is State.LOADING else "the server ends"
            wait = LOADING_RETRY if self.state is State.LOADING else 1
            raise ApiError(503, f"{what}; ask again later", code="not_ready", retry_after=wait)
        return self.model

    def run(self) -> None:
        """Load, then work until the line ends or the device breaks."""
        try:
            model = self._load()
            model.prove()
            self.model, self._state = model, State.READY
            log.info("ready")
            while (job := self._line.next()) is not None:
                self._do(model, job)
        except StartError as error:
            self._end(str(error))
        # Whatever it was: nobody computes any more, and that has to be seen from outside.
        except BaseException as error:
            log.exception("the thread that computes ended")
            self._end(f"{type(error).__name__}: {error}")

    def _end(self, why: str) -> None:
        self.why, self._state = why, State.DEAD
        log.critical("%s", why)
        self._line.cut(ApiError(500, "the engine failed; it will be started again"))
        self._died()

    def _do(self, model: Model, job: Job) -> None:
        try:
            ended = job.work(model, job)
        except ApiError as error:
            self._meters.ended.labels("refused").inc()
            job.tell(error)
        except Exception as error:
            self._meters.ended.labels("failed").inc()
            log.exception("a request failed")
            if model.is_broken():
                raise
            job.tell(ApiError(500, f"the model failed: {type(error).__name__}: {error}"[:500]))
        else:
            self._meters.ended.labels("cancelled" if job.cancelled else ended.reason).inc()
            job.tell(ended)
