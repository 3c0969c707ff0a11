"""``make bench``: what Farrier costs, measured, into docs/benchmarks.md; PART names one part."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from functools import partial

from farrier.lab import LabError
from tests.bench.agent import MINUTES, agent
from tests.bench.check import check
from tests.bench.converge import Options, converge
from tests.bench.drain import drain
from tests.bench.fleet import Fleet, fleet
from tests.bench.gate import gate
from tests.bench.gateway import gateway
from tests.bench.nvml import nvml
from tests.bench.onehost import OneHost, OneHostError, one_host
from tests.bench.rollout import rollout
from tests.bench.runs import RunFailedError
from tests.bench.status import status
from tests.bench.vllm import vllm
from tests.bench.withdraw import withdraw

ON_ONE_HOST: dict[str, Callable[[OneHost, Callable[[str], None]], None]] = {
    "agent": agent,
    "drain": drain,
    "check": check,
    "gate": gate,
    "gateway": gateway,
}
"""The parts that share one host, in an order in which none disturbs the next (the last makes the
host a gateway as well)."""
ON_THE_FLEET: dict[str, Callable[[Fleet, Callable[[str], None]], None]] = {
    "status": status,
    "withdraw": withdraw,
    "rollout": rollout,
}
"""The parts that share the whole lab, with a gateway and three hosts."""
PARTS = ("converge", "nvml", *ON_THE_FLEET, *ON_ONE_HOST, "vllm")


def main() -> int:
    """Run it; 1 when something failed, 2 for wrong usage."""
    options = _parse()
    began = time.monotonic()

    def say(text: str) -> None:
        print(f"bench {time.monotonic() - began:6.1f} s  {text}", flush=True)

    parts = PARTS if options.part == "all" else (options.part,)
    try:
        if "converge" in parts:
            converge(
                Options(options.rounds, options.vllm, options.breakdown, options.proof),
                say,
            )
        if "nvml" in parts:
            nvml(say, options.nvml_library)
        if of_fleet := [part for part in parts if part in ON_THE_FLEET]:
            with fleet(say) as hosts:
                for part in of_fleet:
                    say(f"part {part}")
                    ON_THE_FLEET[part](hosts, say)
        if rest := [part for part in parts if part in ON_ONE_HOST]:
            with one_host(say) as host:
                for part in rest:
                    say(f"part {part}")
                    parted = ON_ONE_HOST[part]
                    if part == "agent":
                        parted = partial(agent, minutes=options.minutes)
                    parted(host, say)
        if "vllm" in parts:
            vllm(say)
    except (LabError, RunFailedError, OneHostError, RuntimeError, OSError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    if not options.proof and options.minutes == MINUTES:
        say("written to docs/benchmarks.md")
    return 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument(
        "--part", choices=("all", *PARTS), default="all", help="one of them (default all)"
    )
    of_agent = parser.add_argument_group("of the part agent")
    of_agent.add_argument(
        "--minutes",
        type=int,
        default=MINUTES,
        help=f"with other than {MINUTES} it is a try: printed, not written",
    )
    of_nvml = parser.add_argument_group("of the part nvml")
    of_nvml.add_argument(
        "--nvml-library",
        metavar="PATH",
        help="libnvidia-ml.so.1 of a host with GPUs (default: the fake one, as a stand-in)",
    )
    of_converge = parser.add_argument_group("of the part converge")
    of_converge.add_argument("--rounds", type=int, default=5, help="counted runs (default 5)")
    of_converge.add_argument(
        "--vllm",
        type=lambda text: text.split(","),
        default=[],
        metavar="HOST,…",
        help="hosts of the lab that run the real vLLM instead of a stand-in engine",
    )
    of_converge.add_argument("--breakdown", action="store_true", help="only where the time goes")
    of_converge.add_argument(
        "--proof", action="store_true", help="only that both make the same state"
    )
    options = parser.parse_args()
    if options.breakdown or options.proof:
        options.part = "converge"
    return options


if __name__ == "__main__":
    sys.exit(main())
