"""How a run ended: refused on one host and told why, or repaired by the next one.

Everything happens to gpu03; gpu02 is converged beside it and has to get through every time.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.roles.converging import Converge, Run
from tests.roles.fleet import Fleet

VICTIM, WITNESS = "gpu03", "gpu02"
PAIR = (VICTIM, WITNESS)
AGENTS = "/opt/farrier/agent"


def assert_refused(run: Run, *told: str, status: int = 1) -> None:
    """*run* failed for the victim alone, which the last lines explain with every one of *told*.

    *status* is 3 where the preflight refused it: nothing was changed.
    """
    assert run.returncode == status, run.last_words()
    assert "Traceback" not in run.stderr, run.stderr
    failed = run.last_section("Failed:")
    assert re.findall(r"^  (\w+): ", failed, re.MULTILINE) == [VICTIM], failed
    assert [words for words in told if words not in failed] == [], failed
    assert run.stderr.rstrip().endswith(failed.rstrip())
    # Once where it happened and once at the end, not more.
    first = failed.strip().splitlines()[0].partition(": ")[2]
    assert run.stderr.count(first) == 2, run.stderr
    if WITNESS in run.hosts:
        assert "Serving | Replicas are ready" in run.unchanged(WITNESS), run.last_words(60)


def assert_repaired(fleet: Fleet, run: Run | None = None) -> Run:
    """A good run ends with 0, the victim serves, and then there is nothing left to do."""
    run = run or fleet.converge(limit=[VICTIM])
    assert run.returncode == 0, run.last_words()
    assert fleet.chat(VICTIM).status == 200
    again = fleet.converge(limit=[VICTIM])
    assert again.returncode == 0, again.last_words()
    assert again.changed(VICTIM) == []
    return run


def with_data(converge: Converge, **more: object) -> dict[str, dict[str, object]]:
    """The victim's data in the inventory, and *more*."""
    return {VICTIM: {**converge.data.get(VICTIM, {}), **more}}


def with_model(converge: Converge, *words: str, **more: object) -> dict[str, list[dict[str, Any]]]:
    """The victim's one model with other fields, and *words* more in its command."""
    (model,) = converge.models[VICTIM]
    return {VICTIM: [{**model, "command": [*model["command"], *words], **more}]}


def said(process: subprocess.Popen[str], words: str) -> str:
    """Read what *process* tells the operator until a line has *words*; returns that line."""
    assert process.stderr is not None
    heard = []
    for line in process.stderr:
        heard.append(line)
        if words in line:
            return line
    pytest.fail(f"it never said {words!r}:\n{''.join(heard)}")


@contextmanager
def agent_disk(fleet: Fleet) -> Iterator[Callable[[str], None]]:
    """An empty disk where the victim has its agents; yields what mounts it anew with options.

    The running agent keeps the files that it has open.
    """
    fleet.root(VICTIM, f"mount -t tmpfs -o size=400m tmpfs {AGENTS}")

    def mounted(options: str) -> None:
        fleet.root(VICTIM, f"mount -o remount,{options} {AGENTS}")

    try:
        yield mounted
    finally:
        fleet.root(VICTIM, f"umount -l {AGENTS}")
