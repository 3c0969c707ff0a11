"""What the hosts of the lab ``bench`` serve: read by inventory/lab.py (FARRIER_LAB_MODELS).

The load of an engine is not what is measured, so a stand-in engine serves, from a real model's
directory. FARRIER_BENCH_VLLM names hosts (``gpu01,gpu02``) that keep the real vLLM instead.
"""

import os

from farrier.lab import TINY_MODEL
from farrier.spec import Model

STAND_IN = "/opt/standin.py"
"""Where the harness puts the stand-in engine (tests/fakes/engine) on the hosts."""

_real = os.environ.get("FARRIER_BENCH_VLLM", "").split(",")

models = {
    host: [
        Model(
            name="tiny",
            engine="custom",
            source=f"path:{TINY_MODEL}",
            port=8101,
            command=["/usr/bin/python3", STAND_IN, "--port", "{port}", "--model", "{model}"],
        )
    ]
    for host in ("gpu01", "gpu02", "gpu03")
    if host not in _real
}
