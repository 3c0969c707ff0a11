"""The engine on the benchmarks' host: the tests' stand-in, whose metrics are as long as vLLM's.

vLLM 0.32.0 with one model and some traffic behind it tells 53 kB in 629 lines, of which most are
the buckets of histograms. The stand-in tells a dozen. The agent reads that page at every look, so
its length is part of what a look costs.
"""

from __future__ import annotations

from standin import program, shapes  # type: ignore[import-not-found]  # beside it, in the archive

HISTOGRAMS, BUCKETS = 24, 22

_short = shapes.exposition


def _histograms(model: str) -> bytes:
    lines = []
    for number in range(HISTOGRAMS):
        name = f"vllm:request_phase_{number}_of_the_stand_in_seconds"
        lines += [f"# HELP {name} Histogram {number} of a stand-in.", f"# TYPE {name} histogram"]
        labels = f'engine="0",model_name="{model}"'
        for bucket in range(BUCKETS):
            bound = "+Inf" if bucket == BUCKETS - 1 else f"{0.3 * 2**bucket:.1f}"
            lines.append(f'{name}_bucket{{{labels},le="{bound}"}} {bucket}.0')
        # as many as its last bucket has: of one that contradicts itself the agent passes nothing on
        lines += [f"{name}_count{{{labels}}} {BUCKETS - 1}.0", f"{name}_sum{{{labels}}} 12.5"]
    return "\n".join([*lines, ""]).encode()


def _long(model: str, work: object) -> bytes:
    return bytes(_short(model, work)) + _histograms(model)


def main() -> None:
    """The stand-in's program, with longer metrics."""
    shapes.exposition = _long
    raise SystemExit(program.main())
