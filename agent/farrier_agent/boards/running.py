"""Runs a program of NVIDIA's to its end, however long that takes, and never waits for a hung one.

Of a program that hangs in the kernel even SIGKILL ends nothing: it is left behind, and said.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from farrier_agent.control.protocol import Entry, encode

__all__ = ["Said", "run_to_end", "tell"]

_MOST = 8 * 1024 * 1024


@dataclass(frozen=True)
class Said:
    """How a program ended, after ``seconds``; ``status`` is None where it did not."""

    status: int | None
    out: str
    err: str
    seconds: float

    @property
    def words(self) -> str:
        """What it said, in one line."""
        return " ".join(f"{self.out}\n{self.err}".split())


def run_to_end(command: Sequence[str], seconds: float, *, keep: Sequence[int] = ()) -> Said:
    """What *command* says within *seconds*; the files *keep* stay open for it.

    A connection that breaks does not end it. A program that cannot be run ends with 127.
    """
    begun = time.monotonic()
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
                pass_fds=keep,
            )
        except OSError as error:
            return Said(127, "", f"{command[0]}: {error.strerror}", 0.0)
        status: int | None = None
        try:
            status = process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=2)
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read(_MOST).decode(errors="replace"))
        return Said(status, texts[0], texts[1], time.monotonic() - begun)


def tell(what: str, *, as_json: bool) -> None:
    """Say what is done now, as news; nobody has to listen."""
    line = encode(Entry(at=time.time(), message=what, cause="gpu")).decode()
    with suppress(OSError):
        sys.stdout.write(line if as_json else f"{what}\n")
        sys.stdout.flush()
