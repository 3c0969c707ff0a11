"""TensorRT-LLM's ``trtllm-serve``: ``/health`` is 200 once it runs.

``/metrics`` is no page for Prometheus but a queue of JSON that every reader empties. The page is at
``/prometheus/metrics``, with ``return_perf_metrics`` only, and how many requests run is on it in
newer versions than 1.2.1. Its tokens are counted when a request has ended: nothing on it tells an
engine that works on long answers from one that hangs, so no progress is read from it.
"""

from __future__ import annotations

from farrier_agent.engines.gauged import gauged

__all__ = ["ENGINE"]

ENGINE = gauged(
    "trtllm",
    metrics="/prometheus/metrics",
    running="trtllm_num_requests_running",
    waiting="trtllm_num_requests_waiting",
    known="1.2.1",
    sigterm="closes its listener and waits for its connections, without a deadline (uvicorn's)",
    counted="`trtllm_num_requests_running`, `trtllm_num_requests_waiting`, where the version has"
    " them and `return_perf_metrics` is set",
)
