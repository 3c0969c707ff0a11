"""A stand-in for ``dcgmi discovery -l`` and ``dcgmi diag -r LEVEL -j [-i GPU,…]``, as DCGM 4's.

Lines of the state file that only it knows:

    dcgm.host-engine 1            nv-hostengine runs, whoever started it
    dcgm.mark <path>              nv-hostengine runs while this file exists
    dcgm.3 1                      the JSON of DCGM 3 instead
    dcgm.<test> <gpu> <status> <words>   how a test ends on a GPU: Pass, Fail, Warn, Skip
    dcgm.hang 1                   it does not return
    dcgm.log <path>               append the words of each ``diag``
    dcgm.garbage <words>          what it prints instead of JSON
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.fakes.nvidia_tools.state import State
else:  # by itself, wherever these files were put
    sys.path.insert(0, str(Path(__file__).parent))
    from state import State

TESTS = {1: ("software",), 2: ("pcie",), 3: ("memory", "diagnostic"), 4: ("memtest",)}


def main(words: list[str]) -> int:
    """Diagnose; the exit code."""
    state = State()
    gpus = state.gpus()
    if "-i" in words:
        gpus = [int(one) for one in words[words.index("-i") + 1].split(",")]
    mark = state.get("dcgm.mark")
    if state.get("dcgm.host-engine") != "1" and not (mark and Path(mark).exists()):
        print(
            "Error: unable to establish a connection to the specified host: localhost\n"
            "Error: Unable to connect to host engine. Host engine connection invalid/disconnected.",
            file=sys.stderr,
        )
        return 255
    if "discovery" in words:
        print(f"{len(gpus)} GPUs found.\n+--------+-----+")
        for number, gpu in enumerate(gpus):
            print(f"| {number:<6} | Name: {state.of(gpu, 'name'):<60} |")
            print(f"|        | PCI Bus ID: {state.bus(gpu)} |")
            print(f"|        | Device UUID: {state.uuid(gpu)} |")
        return 0
    if runs := state.get("dcgm.log"):
        with Path(runs).open("a") as log:
            log.write(" ".join(words) + "\n")
    level = int(words[words.index("-r") + 1])
    if state.get("dcgm.hang") == "1":
        time.sleep(600)
    if said := state.get("dcgm.garbage"):
        print(said)
        return 1
    old = state.get("dcgm.3") == "1"
    tests = [name for at, names in TESTS.items() if at <= level for name in names]
    told = [tested(state, name, gpus, old=old) for name in tests]
    key = "DCGM GPU Diagnostic" if old else "DCGM Diagnostic"
    categories = [{"category": "Deployment", "tests": told}]
    print(json.dumps({key: {"test_categories": categories}}, indent=2))
    bad = any(result["status"] == "Fail" for one in told for result in one["results"])
    return 226 if bad else 0


def tested(
    state: State, name: str, gpus: list[int], *, old: bool
) -> dict[str, list[dict[str, object]]]:
    """One test with a result for each of *gpus*."""
    results: list[dict[str, object]] = []
    for gpu in gpus:
        status, words = "Pass", ""
        for line in state.lines:
            parts = line.split(" ", 3)
            if parts[0] == f"dcgm.{name}" and parts[1] == str(gpu):
                status, words = parts[2], parts[3] if len(parts) > 3 else ""
        one: dict[str, object] = {"status": status}
        one |= {"gpu_id": str(gpu)} if old else {"entity_group": "GPU", "entity_id": gpu}
        if words:
            one["warnings"] = words if old else [{"warning": words, "error_id": 1}]
        results.append(one)
    return {"name": name, "results": results}  # type: ignore[dict-item]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
