"""The families about requests as the gateway's HAProxy saw them: ``llm_gateway_…``."""

from __future__ import annotations

from collections.abc import Iterator

from farrier_agent.collectors.gateway import GatewayCounts
from farrier_agent.metrics.family import Family, Sample, family
from farrier_agent.metrics.histogram import histogram_lines

__all__ = ["FAMILIES", "certificate", "samples", "written_histograms"]

REQUESTS = family(
    "llm_gateway_requests_total",
    "model key code",
    "Requests at the gateway by the HTTP status that the client got, refused ones too; 499: it "
    "left before there was one. key is the name of an API key; model and key are empty where they "
    "are not known.",
    "gateway",
)
DURATION = family(
    "llm_gateway_request_duration_seconds",
    "model",
    "How long requests took that a replica answered with 2xx, from their first byte to the "
    "answer's last, in seconds.",
    "gateway",
    "histogram",
)
FIRST_BYTE = family(
    "llm_gateway_time_to_first_byte_seconds",
    "model",
    "How long those requests waited, once they were read, until the answer's head came: in the "
    "gateway's queue, for the host, and for the engine, in seconds.",
    "gateway",
    "histogram",
)
INCOMPLETE = family(
    "llm_gateway_incomplete_responses_total",
    "model by",
    "Answers that did not come to their end. by: client (it left) or server (its host or engine "
    "broke off after the answer had begun).",
    "gateway",
)
RETRIES = family(
    "llm_gateway_retries_total",
    "model",
    "Further attempts to send a request: a gate was closed, or no connection came about.",
    "gateway",
)
TOKENS = family(
    "llm_gateway_tokens_total",
    "model key kind",
    "Tokens that answers said they took: whole answers, and streams that were asked for their "
    "usage. kind: prompt or completion.",
    "gateway",
)
LAST_REQUEST = family(
    "llm_gateway_last_request_timestamp_seconds",
    "replica",
    "When the last of the requests that are over was sent to the replica (HOST:REPLICA), in "
    "seconds since the epoch.",
    "gateway",
)
LOG_LINES = family(
    "farrier_gateway_log_lines_total",
    "result",
    "Lines of HAProxy's log. counted, refused: the sender was not HAProxy, garbled: not to be "
    "understood.",
    "gateway",
)
OVERFLOWS = family(
    "farrier_gateway_log_overflows_total",
    "",
    "How often more lines of HAProxy's log were waiting than the kernel keeps: some may be lost.",
    "gateway",
)
CERTIFICATE = family(
    "farrier_gateway_certificate_expiry_timestamp_seconds",
    "",
    "Until when the certificate is valid that the gateway shows its clients, in seconds since the "
    "epoch.",
    "certificate",
)

FAMILIES: tuple[Family, ...] = (
    REQUESTS,
    DURATION,
    FIRST_BYTE,
    INCOMPLETE,
    RETRIES,
    TOKENS,
    LAST_REQUEST,
    LOG_LINES,
    OVERFLOWS,
    CERTIFICATE,
)


def samples(counts: GatewayCounts) -> Iterator[tuple[Family, list[Sample]]]:
    """What there is of *counts* by family, without the histograms."""
    models = counts.models
    yield (
        REQUESTS,
        [((one.model, *both), count) for one in models for both, count in one.codes.items()],
    )
    yield (
        INCOMPLETE,
        [((one.model, by), count) for one in models for by, count in one.incomplete.items()],
    )
    yield RETRIES, [((one.model,), one.retries) for one in models]
    yield (
        TOKENS,
        [((one.model, *both), count) for one in models for both, count in one.tokens.items()],
    )
    yield LAST_REQUEST, [((replica,), at) for replica, at in counts.last_sent.items()]
    yield LOG_LINES, [((result,), count) for result, count in counts.lines.items()]
    yield OVERFLOWS, [((), counts.full)]


def certificate(not_after: float | None) -> tuple[Family, list[Sample]]:
    """Until when the gateway's certificate is valid; None where it is not known."""
    return CERTIFICATE, [((), not_after)]


def written_histograms(counts: GatewayCounts) -> Iterator[tuple[Family, list[str]]]:
    """The histograms of *counts*, as lines."""
    for one, field in ((DURATION, "seconds"), (FIRST_BYTE, "first_byte")):
        yield (
            one,
            [
                line
                for model in counts.models
                if model.model
                for line in histogram_lines(one, (model.model,), getattr(model, field))
            ],
        )
