"""What is kept about a replica before it is restarted: its words, its stacks, its GPUs."""

from __future__ import annotations

import asyncio
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from farrier_agent import __version__
from farrier_agent.engines import Engine, Question
from farrier_agent.evidence import stacks
from farrier_agent.evidence.bundle import Bounds, Item, gather, write
from farrier_agent.evidence.redaction import redact, secrets_of
from farrier_agent.evidence.running import Cut, run
from farrier_agent.loopback import asker

__all__ = ["Subject", "items", "keep"]

JOURNAL_LINES, KERNEL_LINES = "5000", "1000"
# not all of them: Environment=, ExecStart= and Credential= hold secrets
PROPERTIES = (
    "Id,LoadState,ActiveState,SubState,Result,InvocationID,MainPID,NRestarts,ExecMainStatus,"
    "ExecMainCode,ExecMainStartTimestamp,ExecMainExitTimestamp,ActiveEnterTimestamp,ControlGroup,"
    "MemoryCurrent,MemoryPeak,MemoryMax,TasksCurrent,CPUUsageNSec,OOMPolicy,TimeoutStopUSec"
)


@dataclass(frozen=True)
class Subject:
    """The replica that evidence is about, and ``why`` it is kept."""

    replica: str
    unit: str
    main_pid: int | None
    port: int
    engine: Engine
    why: str


def items(subject: Subject, bounds: Bounds, *, proc: Path = Path("/proc")) -> list[Item]:
    """The pieces of evidence about *subject*, in the order in which they are begun."""

    def program(name: str, *command: str, cut: Cut = "head") -> Item:
        # a little less than all the time, so that what a slow program said is kept
        seconds = bounds.seconds * 0.8
        return Item(name, partial(run, command, deadline=seconds, limit=bounds.piece, cut=cut))

    unit = f"--unit={subject.unit}"
    journal = ("journalctl", "--no-pager", "--quiet", "--output=short-iso-precise")
    # by its path: it needs nothing of the agent, and starts in a moment
    where = (sys.executable, "-I", stacks.__file__, subject.unit, str(proc))
    both = f"( sport = :{subject.port} or dport = :{subject.port} )"
    found = [
        program("stacks.txt", *where),
        *_python_stacks(subject, program),
        program("sockets.txt", "ss", "-Htnie", both),
        program("journal.txt", *journal, unit, f"--lines={JOURNAL_LINES}", cut="tail"),
        program("kernel.txt", *journal, "--dmesg", f"--lines={KERNEL_LINES}", cut="tail"),
        program("unit.txt", "systemctl", "show", f"--property={PROPERTIES}", "--", subject.unit),
    ]
    if shutil.which("nvidia-smi"):
        found.append(program("nvidia-smi.txt", "nvidia-smi", "-q"))
    paths = (*subject.engine.paths, *([subject.engine.metrics] if subject.engine.metrics else []))
    for path in paths:
        name = f"engine{path.replace('/', '-')}.txt"
        found.append(Item(name, partial(_answer, subject.port, path, bounds.seconds * 0.5)))
    return found


def _python_stacks(subject: Subject, program: Callable[..., Item]) -> Sequence[Item]:
    """Python's own stacks, where somebody installed py-spy; it prints no values of variables."""
    if subject.main_pid is None or not shutil.which("py-spy"):
        return ()
    dump = ("py-spy", "dump", "--nonblocking", "--subprocesses", f"--pid={subject.main_pid}")
    return (program("python-stacks.txt", *dump),)


async def _answer(port: int, path: str, deadline: float) -> tuple[bytes, str | None]:
    answer = await asker(port)(Question(path), deadline)
    if answer.error is not None:
        return b"", f"{path}: {answer.error}"
    return answer.body, None if answer.status == 200 else f"{path} answers {answer.status}"


async def _secrets(subject: Subject, deadline: float, proc: Path) -> tuple[frozenset[bytes], str]:
    """The secret values in the engine's environment, and in words how far they are known."""
    if subject.main_pid is None:
        return frozenset(), "no main process: its environment is not known"
    # by a program of its own: reading it waits for a lock that a wedged process may hold
    path = str(proc / str(subject.main_pid) / "environ")
    environ, amiss = await run(("cat", path), deadline=deadline, limit=4 * 1024 * 1024)
    if amiss:
        return frozenset(), f"the engine's environment could not be read: {amiss}"
    return secrets_of(environ), "values of secret environment variables are taken out"


async def keep(
    directory: Path,
    subject: Subject,
    *,
    more: Mapping[str, bytes] | None = None,
    bounds: Bounds = Bounds(),  # noqa: B008 - frozen
    proc: Path = Path("/proc"),
) -> Path:
    """Gather the evidence about *subject* into a file in *directory*; returns its path.

    *more* are pieces that the caller has, say the agent's status. Takes at most ``bounds.seconds``
    and a moment. Raises EvidenceError when it cannot be written.
    """
    begun = time.time()
    (pieces, fared), (secrets, known) = await asyncio.gather(
        gather(items(subject, bounds, proc=proc), bounds),
        _secrets(subject, bounds.seconds * 0.8, proc),
    )
    pieces |= more or {}
    manifest: dict[str, object] = {
        "replica": subject.replica,
        "unit": subject.unit,
        "main_pid": subject.main_pid,
        "why": subject.why,
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(begun)),
        "seconds": round(time.time() - begun, 3),
        "agent": __version__,
        "secrets": known,
        "pieces": fared,
    }

    def finish() -> Path:
        clean = {name: redact(data, secrets) for name, data in pieces.items()}
        return write(directory, subject.replica, clean, manifest, bounds.files)

    return await asyncio.to_thread(finish)
