"""``make demo``: hosts from nothing to streamed tokens on the operator's own machine.

It uses only what an operator has: the lab, ``pyinfra inventory deploys/llm.py``, the hosts' nginx,
their agents and Prometheus. Nothing here reaches into a host by another way.
"""

from farrier.demo.errors import DemoError

__all__ = ["DemoError"]
