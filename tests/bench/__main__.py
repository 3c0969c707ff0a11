"""``make bench``: a no-change converge against Ansible's playbook of the same end state."""

from __future__ import annotations

import argparse
import datetime
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from farrier.lab import Lab, LabError
from tests.bench import figures, pages
from tests.bench.ansible_side import Playbook
from tests.bench.breakdown import breakdown
from tests.bench.course import course, environment, leaders
from tests.bench.farrier_side import COMMAND, Converge
from tests.bench.proof import prove
from tests.bench.runs import RunFailedError, alternated
from tests.bench.wanted import wanted

FARRIER, ANSIBLE, WITHOUT_FACTS = "Farrier", "Ansible", "Ansible without facts"
FEWER = 3
"""Counted runs of the variant of the playbook that gathers no facts."""


def main() -> int:
    """Run it; 1 when something failed, 2 for wrong usage."""
    options = _parse()
    began = time.monotonic()

    def say(text: str) -> None:
        print(f"bench {time.monotonic() - began:6.1f} s  {text}", flush=True)

    os.environ.update(environment(options.vllm))
    try:
        with course(say) as lab, tempfile.TemporaryDirectory(prefix="farrier-bench-") as scratch:
            _bench(lab, Path(scratch), options, say)
    except (LabError, RunFailedError, RuntimeError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    if not options.proof:
        say("written to docs/benchmarks.md")
    return 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="counted runs of each (default 5)")
    parser.add_argument(
        "--vllm",
        type=lambda text: text.split(","),
        default=[],
        metavar="HOST,…",
        help="hosts of the lab that run the real vLLM instead of a stand-in engine",
    )
    parser.add_argument("--breakdown", action="store_true", help="only where the time goes")
    parser.add_argument("--proof", action="store_true", help="only that both make the same state")
    return parser.parse_args()


def _bench(
    lab: Lab, scratch: Path, options: argparse.Namespace, say: Callable[[str], None]
) -> None:
    pid_ones = leaders(lab)
    commit, load = _commit(), os.getloadavg()[0]
    farrier = Converge(environment(options.vllm), [host.name for host in lab.hosts], pid_ones)
    say("converging for the first time")
    farrier.run()
    everything = not (options.breakdown or options.proof)
    if everything or options.breakdown:
        farrier.run_unchanged()
        pages.rewrite("breakdown", breakdown(lab, farrier, say))
    if options.breakdown:
        return
    state = wanted()
    ansible = Playbook(lab, state, scratch, pid_ones)
    say("proving that both make the same end state")
    proof = prove(lab, state, farrier, ansible, say)
    if options.proof:
        return
    runs = alternated(
        {FARRIER: farrier.run_unchanged, ANSIBLE: ansible.run_unchanged}, options.rounds, say
    )
    runs |= alternated(
        {WITHOUT_FACTS: lambda: ansible.run_unchanged(gather=False)}, FEWER, say, warm_up=False
    )
    base = runs[FARRIER]
    head = ["", "runs", "wall, s", "CPU here, s", "CPU on the hosts, s", "times Farrier's wall"]
    today = datetime.datetime.now(datetime.UTC)
    text = [
        f"Written by `make bench` on {today:%-d %B %Y} at commit {commit}:"
        f" {len(lab.hosts)} hosts, no change on any of them in any run. {pages.machine()}."
        f" Load average at the start: {load:.1f}.",
        figures.table(
            head,
            [
                figures.row(f"`{COMMAND}`", base, base),
                figures.row("`ansible-playbook site.yml`", runs[ANSIBLE], base),
                figures.row("the same with gather_facts off", runs[WITHOUT_FACTS], base),
            ],
        ),
        "Medians, in brackets the fastest and the slowest run. Ansible's wall time over Farrier's,"
        f" pair by pair: {figures.ratios(base, runs[ANSIBLE])}.",
        "The same end state, before the runs were counted: " + "; ".join(proof) + ".",
    ]
    pages.rewrite("converge", "\n\n".join(text))
    print("\n\n".join(text))


def _commit() -> str:
    argv = ["git", "describe", "--always", "--dirty"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


if __name__ == "__main__":
    sys.exit(main())
