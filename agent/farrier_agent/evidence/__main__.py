"""Keep evidence about a replica now: ``python -m farrier_agent.evidence REPLICA``; as root.

For ``farrier-evidence@REPLICA.service``, or a person: the agent itself has no capabilities, and
without them the stacks and the environment of an engine are not to be read. Prints the file's path.
Exit codes: 0 kept, 1 failed, 2 wrong usage.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import stat
import sys
from collections.abc import Sequence
from pathlib import Path

from farrier_agent.config import DEFAULT_PATH, ConfigError, load
from farrier_agent.engines import ENGINES
from farrier_agent.evidence import EvidenceError, Subject, keep
from farrier_agent.evidence.running import RunError, run

__all__ = ["DIRECTORY", "WHY", "main", "read_why"]

DIRECTORY = Path("/var/lib/farrier/evidence")
UNIT_SECONDS = 5.0
WHY = "asked for by hand"
LONGEST_WHY = 500
"""Characters that are kept of a reason."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program and return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m farrier_agent.evidence", allow_abbrev=False)
    parser.add_argument("replica", metavar="REPLICA")
    why = parser.add_mutually_exclusive_group()
    why.add_argument("--why", default=WHY, help="[%(default)s]")
    why.add_argument("--why-file", type=Path, metavar="PATH", help="whose first line says why")
    parser.add_argument("--config", type=Path, default=DEFAULT_PATH, help="[%(default)s]")
    parser.add_argument("--directory", type=Path, default=DIRECTORY, help="[%(default)s]")
    options = parser.parse_args(arguments)
    try:
        print(asyncio.run(_kept(options)))
    except (ConfigError, EvidenceError) as error:
        print(f"farrier-agent: {error}", file=sys.stderr)
        return 1
    return 0


def read_why(path: Path) -> str:
    """The first line of the file at *path*, cut to what is printable and to a sensible length.

    Another user may write it: no link is followed, nothing is waited for, and not more is read than
    that. :data:`WHY` where there is no such line.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(handle, "rb") as file:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                return WHY
            data = file.read(4 * LONGEST_WHY)
    except OSError:
        return WHY
    line = data.decode(errors="replace").partition("\n")[0][:LONGEST_WHY]
    return "".join(one if one.isprintable() else "?" for one in line).strip() or WHY


async def _kept(options: argparse.Namespace) -> Path:
    config = load(options.config)
    known = {replica.name: replica for replica in config.replicas}
    replica = known.get(options.replica)
    if replica is None:
        names = ", ".join(sorted(known)) or "none"
        raise EvidenceError(f"no replica is named {options.replica!r} (this host has: {names})")
    main_pid, amiss = await _main_pid(replica.unit)
    subject = Subject(
        replica.name,
        replica.unit,
        main_pid,
        replica.port,
        ENGINES[replica.engine],
        options.why if options.why_file is None else read_why(options.why_file),
    )
    # what is left without systemd is worth keeping all the same
    more = {"unit-error.txt": amiss.encode()} if amiss else {}
    return await keep(options.directory, subject, more=more)


async def _main_pid(unit: str) -> tuple[int | None, str]:
    """The main process of *unit*, None when it has none; and what is amiss, in words."""
    command = ("systemctl", "show", "--property=MainPID", "--", unit)
    try:
        out, amiss = await run(command, deadline=UNIT_SECONDS, limit=65536)
    except RunError as error:
        return None, str(error)
    said = out.decode(errors="replace").strip()
    key, _, number = said.partition("=")
    if amiss or key != "MainPID" or not number.isdigit():
        return None, f"systemctl show: {amiss or 'no MainPID'}: {said[:200]}"
    return int(number) or None, ""


if __name__ == "__main__":
    sys.exit(main())
