"""``trtllm-serve``: the stand-in in TensorRT-LLM's dialect.

It names its model as the last part of its path. Its page for Prometheus is there when its options
say ``return_perf_metrics``.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from pathlib import Path


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """The flags; another one ends the program with 2."""
    parser = argparse.ArgumentParser(prog="trtllm-serve", allow_abbrev=False)
    parser.add_argument("model", type=Path)
    parser.add_argument("--host", default="localhost")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--tp_size", type=int, default=1)
    parser.add_argument("--max_batch_size", type=int)
    parser.add_argument("--extra_llm_api_options", "--config", dest="options", type=Path)
    return parser.parse_args(argv)


def main() -> int:
    """Serve until told to end; the exit status."""
    options = parse()
    seen = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    if options.tp_size > len(seen):
        print(f"trtllm-serve: {options.tp_size} GPUs wanted, {len(seen)} seen", file=sys.stderr)
        return 1
    said = options.options.read_text(encoding="utf-8") if options.options else ""
    words = ["--dialect", "trtllm", "--model", options.model.name]
    words += ["--host", options.host, "--port", str(options.port), "--start-delay", "2"]
    words += [] if "return_perf_metrics: true" in said.splitlines() else ["--no-metrics"]
    if account := os.environ.get("STANDIN_ACCOUNT"):
        words += ["--account", account]
    words += ["--token-delay", os.environ.get("STANDIN_TOKEN_DELAY", "0.02")]
    program = importlib.import_module(f"{__package__}.standin.program")
    return int(program.main(words))


if __name__ == "__main__":
    sys.exit(main())
