"""``python -m tests.bench.trace FILE``: a converge that notes when each of its phases ended.

Runs pyinfra's own command line in this process; the same work as ``pyinfra -y inventory
deploys/llm.py``, with a clock read between its parts. FARRIER_BENCH_BEGAN is the monotonic time at
which the process was started. FILE gets JSON.
"""

from __future__ import annotations

import atexit
import json
import os
import sys
import time
from collections import Counter
from functools import wraps
from pathlib import Path
from typing import Any

MARKS: list[tuple[str, float, float]] = []
COMMANDS: Counter[str] = Counter()


def mark(phase: str) -> None:
    """The phase *phase* ends here."""
    MARKS.append((phase, time.monotonic(), time.process_time()))


def _between(owner: Any, name: str, before: str, during: str) -> None:
    """Let *owner*'s function *name* end the phase *before* and be the phase *during*."""
    function = getattr(owner, name)

    @wraps(function)
    def timed(*args: Any, **kwargs: Any) -> Any:
        mark(before)
        try:
            return function(*args, **kwargs)
        finally:
            mark(during)

    setattr(owner, name, timed)


def _counted(connector: Any) -> None:
    run = connector.run_shell_command

    @wraps(run)
    def counting(self: Any, *args: Any, **kwargs: Any) -> Any:
        COMMANDS[self.host.name] += 1
        return run(self, *args, **kwargs)

    connector.run_shell_command = counting


def main() -> None:
    """See the module."""
    mark("the interpreter starts")
    from pyinfra_cli import cli
    from pyinfra_cli import main as pyinfra_main

    mark("pyinfra is imported")
    from pyinfra.connectors.ssh import SSHConnector

    out = Path(sys.argv[1])

    def write() -> None:
        mark("results, disconnecting")
        began = float(os.environ["FARRIER_BENCH_BEGAN"])
        out.write_text(json.dumps({"began": began, "marks": MARKS, "commands": dict(COMMANDS)}))

    atexit.register(write)
    _between(cli, "connect_all", "config.py, roles, inventory, spec", "connecting")
    _between(cli, "run_ops", "the deploy file, per host", "operations")
    _counted(SSHConnector)
    sys.argv = ["pyinfra", "-y", "inventory", "deploys/llm.py"]
    pyinfra_main.main()


if __name__ == "__main__":
    main()
