"""What the host's nginx saw of its requests, from a Unix socket that it writes its log to."""

from __future__ import annotations

from farrier_agent.collectors.requests_log import Histogram, ReplicaRequests, RequestCounts

__all__ = ["Histogram", "ReplicaRequests", "RequestCounts"]
