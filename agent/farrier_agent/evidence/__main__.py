"""Keep evidence about a replica now: ``python -m farrier_agent.evidence REPLICA``; as root.

For a unit of its own, or a person: the agent itself has no capabilities, and without them the
stacks and the environment of an engine are not to be read. Prints the file's path. Exit codes: 0
kept, 1 failed, 2 wrong usage.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

from farrier_agent.config import DEFAULT_PATH, ConfigError, load
from farrier_agent.engines import ENGINES
from farrier_agent.evidence import EvidenceError, Subject, keep
from farrier_agent.evidence.running import RunError, run

__all__ = ["DIRECTORY", "main"]

DIRECTORY = Path("/var/lib/farrier/evidence")
UNIT_SECONDS = 5.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program and return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m farrier_agent.evidence", allow_abbrev=False)
    parser.add_argument("replica", metavar="REPLICA")
    parser.add_argument("--why", default="asked for by hand", help="[%(default)s]")
    parser.add_argument("--config", type=Path, default=DEFAULT_PATH, help="[%(default)s]")
    parser.add_argument("--directory", type=Path, default=DIRECTORY, help="[%(default)s]")
    options = parser.parse_args(arguments)
    try:
        print(asyncio.run(_kept(options)))
    except (ConfigError, EvidenceError) as error:
        print(f"farrier-agent: {error}", file=sys.stderr)
        return 1
    return 0


async def _kept(options: argparse.Namespace) -> Path:
    config = load(options.config)
    known = {replica.name: replica for replica in config.replicas}
    replica = known.get(options.replica)
    if replica is None:
        names = ", ".join(sorted(known)) or "none"
        raise EvidenceError(f"no replica is named {options.replica!r} (this host has: {names})")
    more: dict[str, bytes] = {}
    show = ("systemctl", "show", "-P", "MainPID", "--", replica.unit)
    try:
        said, amiss = await run(show, deadline=UNIT_SECONDS, limit=64)
    except RunError as error:  # what is left is worth keeping all the same
        said, amiss = b"", str(error)
    if amiss:
        more["unit-error.txt"] = amiss.encode()
    main_pid = int(said) if said.strip().isdigit() and int(said) else None
    subject = Subject(
        replica.name, replica.unit, main_pid, replica.port, ENGINES[replica.engine], options.why
    )
    return await keep(options.directory, subject, more=more)


if __name__ == "__main__":
    sys.exit(main())
