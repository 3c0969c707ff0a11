"""``python -m sglang.launch_server``: the stand-in in SGLang's dialect, with workers of its own."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from pathlib import Path


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """The flags; another one ends the program with 2."""
    parser = argparse.ArgumentParser(prog="sglang.launch_server", allow_abbrev=False)
    parser.add_argument("--model-path", type=Path, required=True)
    parser.add_argument("--revision")
    parser.add_argument("--served-model-name", required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=30000)
    parser.add_argument("--enable-metrics", action="store_true")
    parser.add_argument("--tp-size", type=int, default=1)
    parser.add_argument("--context-length", type=int)
    parser.add_argument("--mem-fraction-static", type=float)
    return parser.parse_args(argv)


def main() -> int:
    """Serve until told to end; the exit status."""
    options = parse()
    seen = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    if options.tp_size > len(seen):
        print(f"sglang: {options.tp_size} GPUs wanted, {len(seen)} seen", file=sys.stderr)
        return 1
    if not (options.model_path / "config.json").is_file():
        print(f"sglang: there is no {options.model_path}/config.json", file=sys.stderr)
        return 1
    words = ["--dialect", "sglang", "--model", options.served_model_name]
    words += ["--host", options.host, "--port", str(options.port), "--start-delay", "2"]
    words += ["--workers", str(options.tp_size)]
    words += [] if options.enable_metrics else ["--no-metrics"]
    if account := os.environ.get("STANDIN_ACCOUNT"):
        words += ["--account", account]
    words += ["--token-delay", os.environ.get("STANDIN_TOKEN_DELAY", "0.02")]
    program = importlib.import_module(f"{__package__}.standin.program")
    return int(program.main(words))


if __name__ == "__main__":
    sys.exit(main())
