"""SGLang: ``/ready`` is 200 while it takes requests, 503 while it starts and once it drains.

Not ``/health``, which generates a token for each look at an engine without work. Its metrics are
there with ``--enable-metrics`` only. ``sglang:num_running_reqs`` is told every 40 steps and when
the engine becomes idle, a request's tokens are counted when it has ended; but
``sglang:realtime_tokens_total`` moves with every step, of a long prompt as well (0.5.23,
managers/scheduler_components/metrics_reporter.py).
"""

from __future__ import annotations

from farrier_agent.engines.gauged import gauged

__all__ = ["ENGINE"]

ENGINE = gauged(
    "sglang",
    health="/ready",
    running="sglang:num_running_reqs",
    waiting="sglang:num_queue_reqs",
    moving=("sglang:realtime_tokens_total",),
    known="0.5.23",
    sigterm="finishes them without a deadline, takes new ones meanwhile, looks every 5 s whether"
    " none is left; the unit's TimeoutStopSec= bounds it",
    counted="`sglang:num_running_reqs`, `sglang:num_queue_reqs` (with `--enable-metrics`)",
    progress="`sglang:realtime_tokens_total`",
)
