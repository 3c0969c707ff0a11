"""The pages, which need nothing but the last snapshot.

``/metrics``, ``/status`` and ``/readyz`` come from it; ``/livez`` says that the process runs. There
is nothing to change here: only GET and HEAD, and no body is read.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from farrier_agent import status
from farrier_agent.metrics import page
from farrier_agent.web.exposition import Exposition, TooManySelectionsError
from farrier_agent.web.messages import JSON, Answer, Request, json_answer
from farrier_agent.web.negotiation import SelectionError, form, selection, takes_gzip

__all__ = ["Pages"]

NO_STORE = ("cache-control", "no-store")
READING = frozenset({"GET", "HEAD"})

_Make = Callable[[Request], Answer]


class Pages:
    """The answers by path. :meth:`show` says what they are made from.

    A snapshot comes with every change of anything, several a second when much happens; a scrape
    every few seconds. So ``/status`` and ``/readyz`` are made when they are asked for, once for a
    snapshot, while ``/metrics``, the largest by far, is made by :meth:`render`, once per tick.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._snapshot: status.Status | None = None
        self._extra = page.NOTHING
        self._pages: dict[str, _Make] = {"/livez": lambda _: json_answer(200, {"alive": True})}
        self._made: dict[str, Answer] = {}
        self._exposition = Exposition(self._gathered, clock)

    @property
    def shown(self) -> bool:
        """A snapshot was shown."""
        return self._snapshot is not None

    def show(self, snapshot: status.Status, extra: page.Extra = page.NOTHING) -> None:
        """From now on make every page from *snapshot*.

        ``/metrics``, with the *extra* too, follows with the next :meth:`render`.
        """
        self._snapshot = snapshot
        self._extra = extra
        self._made.clear()
        self._pages |= {
            "/metrics": self._metrics,
            "/readyz": self._once("/readyz", lambda: _readiness(snapshot)),
            "/status": self._once(
                "/status", lambda: Answer(200, JSON, status.dumps(snapshot) + b"\n")
            ),
        }

    def render(self) -> None:
        """Make ``/metrics`` from what was shown last, in the forms that are in demand."""
        if self._snapshot is not None:
            self._exposition.renew()

    def answer(self, request: Request) -> Answer:
        """The answer to *request*."""
        make = self._pages.get(request.path)
        if make is None:
            return json_answer(
                404, {"error": f"no such path: {request.path}", "paths": sorted(self._pages)}
            )
        if request.method not in READING:
            error = {"error": f"{request.method} is not allowed"}
            return json_answer(405, error, ("allow", "GET, HEAD"))
        answer = make(request)
        return answer._replace(headers=(*answer.headers, NO_STORE))

    def _once(self, path: str, make: Callable[[], Answer]) -> _Make:
        def made(_: Request) -> Answer:
            if path not in self._made:
                self._made[path] = make()
            return self._made[path]

        return made

    def _metrics(self, request: Request) -> Answer:
        wanted = form(request.headers.get("accept"))
        packed = takes_gzip(request.headers.get("accept-encoding"))
        try:
            collectors = selection(request.query, page.COLLECTORS)
            body = self._exposition.get(wanted, collectors, packed=packed)
        except SelectionError as error:
            return json_answer(400, {"error": str(error), "collectors": sorted(page.COLLECTORS)})
        except TooManySelectionsError:
            said = {"error": "too many different selections of collectors at once"}
            return json_answer(503, said, ("retry-after", "5"))
        vary = ("vary", "accept, accept-encoding")
        packing = (("content-encoding", "gzip"),) if packed else ()
        return Answer(200, page.CONTENT_TYPES[wanted], body, (vary, *packing))

    def _gathered(self) -> page.Page:
        assert self._snapshot is not None  # noqa: S101 - else there is no page to ask for
        return page.gather(self._snapshot, self._extra)


def _readiness(snapshot: status.Status) -> Answer:
    readiness = {"ready": snapshot.ready, "reasons": snapshot.reasons}
    return json_answer(200 if snapshot.ready else 503, readiness)
