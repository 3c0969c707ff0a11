#!/usr/bin/env python3
"""A stand-in for an OpenAI-compatible engine: the interface of one, without a model behind it.

It answers ``/health``, ``/v1/models``, ``/v1/chat/completions`` and ``/v1/completions`` (both also
as a stream of server-sent events that ends in ``data: [DONE]``) and ``/metrics`` with some of
vLLM's metrics. It repeats words of its own, so a reader can see that it is no model.

Its manners are those of engines as they are, good and bad: see manners.py. They are chosen by
options, and at run time by ``POST /manners`` with a JSON object of the fields to change.
``GET /executed`` says which requests it began to execute, how often, and how each of them ended.
Without options it starts at once, serves well, and SIGTERM ends it at once and cuts its streams,
as most engines do.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

if __name__ == "__main__":
    # its directory is the package: on a host it may have any name, and the path nothing of ours
    home = Path(__file__).resolve().parent
    sys.path.insert(0, str(home.parent))
    sys.exit(importlib.import_module(f"{home.name}.program").main())
