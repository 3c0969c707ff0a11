"""The pages, which need nothing but the last snapshot.

``/metrics``, ``/status`` and ``/readyz`` come from it; ``/livez`` says that the process runs. There
is nothing to change here: only GET and HEAD, and no body is read.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from farrier_agent import metrics, status
from farrier_agent.engines.passthrough import Family
from farrier_agent.web.exposition import Exposition, TooManySelectionsError
from farrier_agent.web.messages import JSON, Answer, Request, json_answer
from farrier_agent.web.negotiation import (
    KINDS,
    Format,
    SelectionError,
    form,
    selection,
    takes_gzip,
)

__all__ = ["COLLECTORS", "Pages"]

COLLECTORS = frozenset(
    {"engine", "gpu", "notices", "pci", "process", "replicas", "requests", "units", "xid"}
)
"""What ``collect[]`` and ``exclude[]`` of ``/metrics`` may name."""

NO_STORE = ("cache-control", "no-store")
READING = frozenset({"GET", "HEAD"})

Page = Callable[[Request], Answer]


class Pages:
    """The answers by path. :meth:`show` says what they are made from.

    A snapshot comes with every change of anything, several a second when much happens; a scrape
    every few seconds. So ``/status`` and ``/readyz`` are made when they are asked for, once for a
    snapshot, while ``/metrics``, the largest by far, is made by :meth:`render`, once per tick.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._snapshot: status.Status | None = None
        self._families: tuple[Family, ...] = ()
        self._pages: dict[str, Page] = {"/livez": lambda _: json_answer(200, {"alive": True})}
        self._made: dict[str, Answer] = {}
        self._exposition = Exposition(self._rendered, clock)

    @property
    def shown(self) -> bool:
        """A snapshot was shown."""
        return self._snapshot is not None

    def show(self, snapshot: status.Status, families: Iterable[Family] = ()) -> None:
        """From now on make every page from *snapshot*, and from the engines' *families*.

        ``/metrics`` follows with the next :meth:`render`.
        """
        self._snapshot = snapshot
        self._families = tuple(families)
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
        page = self._pages.get(request.path)
        if page is None:
            return json_answer(
                404, {"error": f"no such path: {request.path}", "paths": sorted(self._pages)}
            )
        if request.method not in READING:
            error = {"error": f"{request.method} is not allowed"}
            return json_answer(405, error, ("allow", "GET, HEAD"))
        answer = page(request)
        return answer._replace(headers=(*answer.headers, NO_STORE))

    def _once(self, path: str, make: Callable[[], Answer]) -> Page:
        def page(_: Request) -> Answer:
            if path not in self._made:
                self._made[path] = make()
            return self._made[path]

        return page

    def _metrics(self, request: Request) -> Answer:
        wanted = form(request.headers.get("accept"))
        packed = takes_gzip(request.headers.get("accept-encoding"))
        try:
            collectors = selection(request.query, COLLECTORS)
            body = self._exposition.get(wanted, collectors, packed=packed)
        except SelectionError as error:
            return json_answer(400, {"error": str(error), "collectors": sorted(COLLECTORS)})
        except TooManySelectionsError:
            said = {"error": "too many different selections of collectors at once"}
            return json_answer(503, said, ("retry-after", "5"))
        vary = ("vary", "accept, accept-encoding")
        packing = (("content-encoding", "gzip"),) if packed else ()
        return Answer(200, KINDS[wanted], body, (vary, *packing))

    def _rendered(self, form: Format, collectors: frozenset[str] | None) -> bytes:
        assert self._snapshot is not None  # noqa: S101 - else there is no page to ask for
        return _render(self._snapshot, self._families, form, collectors)


def _render(
    snapshot: status.Status,
    families: tuple[Family, ...],
    form: Format,
    collectors: frozenset[str] | None,
) -> bytes:
    return metrics.render(snapshot)


def _readiness(snapshot: status.Status) -> Answer:
    readiness = {"ready": snapshot.ready, "reasons": snapshot.reasons}
    return json_answer(200 if snapshot.ready else 503, readiness)
