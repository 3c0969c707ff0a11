"""The families about requests as nginx saw them, whatever the engine: ``llm_…``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from farrier_agent.collectors.requests import RequestCounts
from farrier_agent.metrics.family import Family, Sample, family
from farrier_agent.metrics.histogram import histogram_lines
from farrier_agent.status import Replica

__all__ = ["FAMILIES", "in_flight", "samples", "written_histograms"]

REQUESTS = family(
    "llm_requests_total",
    "model replica code",
    "Requests by the HTTP status that the client got, refused ones too.",
    "requests",
)
DURATION = family(
    "llm_request_duration_seconds",
    "model replica",
    "How long requests took that were passed to the engine, from nginx's first byte to its last, "
    "in seconds.",
    "requests",
    "histogram",
)
FIRST_BYTE = family(
    "llm_time_to_first_byte_seconds",
    "model replica",
    "How long the engine took until its answer began, in seconds.",
    "requests",
    "histogram",
)
INCOMPLETE = family(
    "llm_incomplete_responses_total",
    "model replica by",
    "Answers that did not come to their end. by: client (it left) or engine (it broke off).",
    "requests",
)
IN_FLIGHT = family(
    "llm_requests_in_flight", "model replica", "Requests in flight.", "requests replicas"
)
LOG_LINES = family(
    "farrier_requests_log_lines_total",
    "result",
    "Lines of nginx's log. counted: a replica's request, other: of no replica, refused: the sender "
    "was not nginx, garbled: not to be understood.",
    "requests",
)
OVERFLOWS = family(
    "farrier_requests_log_overflows_total",
    "",
    "How often more lines of nginx's log were waiting than the kernel keeps: some may be lost.",
    "requests",
)

FAMILIES: tuple[Family, ...] = (
    REQUESTS,
    DURATION,
    FIRST_BYTE,
    INCOMPLETE,
    IN_FLIGHT,
    LOG_LINES,
    OVERFLOWS,
)


def samples(counts: RequestCounts) -> Iterator[tuple[Family, list[Sample]]]:
    """What there is of *counts* by family, without the histograms."""
    keys = [((one.model, one.replica), one) for one in counts.replicas]
    yield (
        REQUESTS,
        [((*key, code), count) for key, one in keys for code, count in one.codes.items()],
    )
    yield (
        INCOMPLETE,
        [((*key, by), count) for key, one in keys for by, count in one.incomplete.items()],
    )
    yield LOG_LINES, [((result,), count) for result, count in counts.lines.items()]
    yield OVERFLOWS, [((), counts.full)]


def in_flight(replicas: Sequence[Replica]) -> tuple[Family, list[Sample]]:
    """Requests in flight, which are counted at the sockets and not from the log."""
    return IN_FLIGHT, [((one.model, one.name), one.in_flight) for one in replicas]


def written_histograms(counts: RequestCounts) -> Iterator[tuple[Family, list[str]]]:
    """The histograms of *counts*, as lines."""
    for one, field in ((DURATION, "seconds"), (FIRST_BYTE, "first_byte")):
        yield (
            one,
            [
                line
                for replica in counts.replicas
                for line in histogram_lines(
                    one, (replica.model, replica.replica), getattr(replica, field)
                )
            ],
        )
