"""Notices from the cloud: that this host will be taken away, stopped or rebooted, and when."""

from __future__ import annotations

from farrier_agent.notices.notice import Looked, Notice, NoticeError, Order, order
from farrier_agent.notices.poller import ADDRESS, CLOUDS, EVERY, Poller

__all__ = [
    "ADDRESS",
    "CLOUDS",
    "EVERY",
    "Looked",
    "Notice",
    "NoticeError",
    "Order",
    "Poller",
    "order",
]
