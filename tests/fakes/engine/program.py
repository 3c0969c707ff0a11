"""The program: options, workers, the listening engine, and what SIGTERM does to it."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
import time
from pathlib import Path

from .dialects import DIALECTS
from .manners import ANSWERS, ENDINGS, Conduct, Manners
from .serving import Engine
from .work import Work


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """The options of the command line."""
    default = Manners()
    parser = argparse.ArgumentParser(prog="standin.py", description="A stand-in for an engine.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--model", required=True, help="the one model name that it serves")
    parser.add_argument("--adapter", action="append", default=[], help="another name it serves")
    parser.add_argument("--start-delay", type=float, default=0.0, help="seconds before healthy")
    parser.add_argument("--load-delay", type=float, default=0.0, help="seconds before it listens")
    parser.add_argument("--token-delay", type=float, default=0.02, help="seconds per word")
    parser.add_argument("--unhealthy-while", type=Path, help="/health is 503 while PATH exists")
    parser.add_argument("--exit-at-start", type=int, metavar="CODE", help="complain and exit")
    parser.add_argument("--answers", choices=ANSWERS, default=default.answers)
    parser.add_argument("--fails-on", default="", metavar="TEXT", help="prompts with it fail")
    parser.add_argument("--fails-with", choices=ANSWERS, default=default.fails_with)
    parser.add_argument("--dialect", choices=tuple(DIALECTS), default="vllm")
    parser.add_argument("--on-gpus", type=float, default=default.on_gpus, metavar="SHARE")
    parser.add_argument("--on-sigterm", choices=ENDINGS, help="default: as of its dialect")
    parser.add_argument(
        "--linger",
        type=float,
        default=1.0,
        help="seconds that it serves on at least after SIGTERM, for abort, close, 500 and 503",
    )
    parser.add_argument("--no-metrics", action="store_true", help="/metrics is 404")
    parser.add_argument("--max-running", type=int, default=0, help="others wait; 0: any number")
    parser.add_argument("--workers", type=int, default=0, help="children that ignore SIGTERM")
    parser.add_argument("--account", type=Path, help="file that keeps what was executed")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Serve until told to end; the exit status."""
    options = parse(argv)
    if options.exit_at_start is not None:
        print(
            f"standin: RuntimeError: asked to exit at start with status {options.exit_at_start}",
            file=sys.stderr,
        )
        return int(options.exit_at_start)
    time.sleep(options.load_delay)
    try:
        engine = _engine(options)
    except OSError as error:
        print(f"standin: cannot listen on {options.host}:{options.port}: {error}", file=sys.stderr)
        return 1
    # from here on SIGTERM waits until it is asked for; threads inherit the mask
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=engine.serve_forever, args=(0.05,), daemon=True).start()
    print(f"standin: serving {options.model} on {options.host}:{options.port}", file=sys.stderr)
    while True:
        signal.sigwait({signal.SIGTERM})
        status = _end(engine, options.linger)
        if status is not None:
            return status


def _engine(options: argparse.Namespace) -> Engine:
    manners = Manners(
        answers=options.answers,
        on_sigterm=options.on_sigterm or DIALECTS[options.dialect].on_sigterm,
        token_delay=options.token_delay,
        metrics=not options.no_metrics,
        workers=options.workers,
        fails_on=options.fails_on,
        fails_with=options.fails_with,
        on_gpus=options.on_gpus,
    )
    return Engine(
        (options.host, options.port),
        options.model,
        Conduct(manners),
        Work(options.max_running, options.account),
        start_delay=options.start_delay,
        unhealthy_while=options.unhealthy_while,
        dialect=DIALECTS[options.dialect],
        adapters=options.adapter,
    )


def _end(engine: Engine, linger: float) -> int | None:
    """What SIGTERM does; the exit status, or None when the program stays."""
    manner = engine.conduct.now.on_sigterm
    if manner == "cut":
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        os.kill(os.getpid(), signal.SIGTERM)
    elif manner == "ignore":
        return None
    elif manner == "hang":
        engine.stop_listening()
        engine.conduct.freeze()
        return None
    elif manner == "finish":
        engine.leaving = True  # until nothing is left, below
    elif manner == "drain":
        engine.stop_listening()
        engine.refuses = 503  # for a connection that was kept alive
    else:
        if manner in {"abort", "close"}:
            engine.conduct.change({"answers": manner})
        else:
            engine.refuses = int(manner)
        time.sleep(linger)
    engine.work.idle()
    return 0
