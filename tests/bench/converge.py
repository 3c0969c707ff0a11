"""A no-change converge against Ansible's playbook of the same end state, and where time goes."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from farrier.lab import Lab
from tests.bench import figures, pages
from tests.bench.ansible_side import Playbook
from tests.bench.breakdown import breakdown
from tests.bench.course import course, environment, leaders
from tests.bench.farrier_side import COMMAND, Converge
from tests.bench.proof import prove
from tests.bench.runs import alternated
from tests.bench.wanted import wanted

__all__ = ["Options", "converge"]

FARRIER, ANSIBLE, WITHOUT_FACTS = "Farrier", "Ansible", "Ansible without facts"
FEWER = 3
"""Counted runs of the variant of the playbook that gathers no facts."""


@dataclass(frozen=True)
class Options:
    """*rounds* counted runs of each; *vllm* are hosts that run the real one. *breakdown* and
    *proof*: only where the time goes, only that both make the same end state.
    """

    rounds: int = 5
    vllm: Sequence[str] = ()
    breakdown: bool = False
    proof: bool = False


def converge(options: Options, say: Callable[[str], None]) -> None:
    """Run it on the lab ``bench``, and write its sections."""
    os.environ.update(environment(options.vllm))
    with course(say) as lab, tempfile.TemporaryDirectory(prefix="farrier-bench-") as scratch:
        _bench(lab, Path(scratch), options, say)


def _bench(lab: Lab, scratch: Path, options: Options, say: Callable[[str], None]) -> None:
    pid_ones = leaders(lab)
    written = pages.written("make bench PART=converge")
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
    text = [
        f"{written} {len(lab.hosts)} hosts, no change on any of them in any run.",
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
