"""What is told on ``/metrics``. The agent reads the first five: it knows by them what is in flight
and whether work gets on.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

from farrier_transformers.jobs import Line

__all__ = ["Meters"]

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250)


class Meters:
    """The counters; those of requests are read from *line* when they are asked for.

    A long prompt is one step of the model for seconds or minutes, in which no token is counted:
    ``blocks`` counts the model's layers, each time that one was computed.
    """

    def __init__(self, line: Line) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        running = Gauge(
            "transformers:requests_running", "Requests being answered.", registry=self.registry
        )
        running.set_function(lambda: line.running)
        waiting = Gauge(
            "transformers:requests_waiting", "Requests that wait.", registry=self.registry
        )
        waiting.set_function(lambda: line.waiting)
        self.prompt_tokens = Counter(
            "transformers:prompt_tokens",
            "Tokens of prompts that were read.",
            registry=self.registry,
        )
        self.answer_tokens = Counter(
            "transformers:generation_tokens", "Tokens generated.", registry=self.registry
        )
        self.blocks = Counter(
            "transformers:blocks",
            "Layers computed: moves in the middle of a long prompt, too.",
            registry=self.registry,
        )
        self.ended = Counter(
            "transformers:requests_ended",
            "Requests by how they ended: stop, length, cancelled, refused, failed.",
            ["how"],
            registry=self.registry,
        )
        self.first_token = Histogram(
            "transformers:time_to_first_token_seconds",
            "From a request's arrival to its first token.",
            buckets=_SECONDS,
            registry=self.registry,
        )
