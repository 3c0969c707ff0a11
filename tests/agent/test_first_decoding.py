"""Threads that meet a type for the first time at once: msgspec 0.22 crashes then.

It builds what it knows of a type with the first decoding, and a second thread that comes by
meanwhile takes the half of it: a segmentation fault, one agent in thirty with two replicas on a
busy machine. A decoder that is made with its module knows its type before any thread begins.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WITHOUT_STRUCTS = {
    "agent/farrier_agent/serving/noticing.py",
    "agent/farrier_agent/serving/release.py",
    "farrier/rollout/ledger.py",
}
IN_THE_LOOP_ALONE = {"agent/farrier_agent/engines/answer.py"}

PROGRAM = """
import sys, threading
from pathlib import Path
from farrier_agent import status
from farrier_agent.draining import store
from tests.agent.full_status import full_status

sys.setswitchinterval(1e-6)
record = b'{"schema":1,"replica":"tiny","phase":"ready","reason":"","by":"x","since_at":1.0,'
record += b'"boot_id":"b","engine_runs":true,"gate":"open"}'
page = status.dumps(full_status())
start = threading.Barrier(8)

def decode(number):
    start.wait()
    if number % 2:
        status.loads(page)
    else:
        store._parse(record, "tiny", Path("tiny.json"))

threads = [threading.Thread(target=decode, args=(number,)) for number in range(8)]
for one in threads:
    one.start()
for one in threads:
    one.join()
print("alive")
"""


def test_threads_that_decode_for_the_first_time_at_once() -> None:
    for _ in range(12):
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stdout) == (0, "alive\n"), done.stderr


@pytest.mark.parametrize("place", ["agent/farrier_agent", "farrier", "roles"])
def test_decoders_are_made_with_their_modules(place: str) -> None:
    """``decode(…, type=T)`` builds T wherever it is called first."""
    found = {
        str(path.relative_to(ROOT))
        for path in (ROOT / place).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in {"decode", "convert"}
        and any(one.arg == "type" for one in node.keywords)
    }
    assert found <= WITHOUT_STRUCTS | IN_THE_LOOP_ALONE, "make a Decoder with the module"
