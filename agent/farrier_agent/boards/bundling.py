"""Gathers what goes with a board, as root, into one file; the agent is only asked how it is."""

from __future__ import annotations

import asyncio
import hashlib
import platform
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from farrier_agent import __version__
from farrier_agent.boards.naming import meant
from farrier_agent.boards.pieces import PIECE, Piece, bug_report, machine, pieces
from farrier_agent.boards.returning import board_words
from farrier_agent.boards.smi import sections
from farrier_agent.config import AgentConfig
from farrier_agent.control import client
from farrier_agent.control.errors import ControlError, UsageError
from farrier_agent.control.protocol import Bundle, Report
from farrier_agent.control.protocol import Status as Asked
from farrier_agent.draining.record import Now
from farrier_agent.evidence.bundle import Bounds, EvidenceError, Gathered, gather, write
from farrier_agent.evidence.redaction import redact, secrets_of
from farrier_agent.evidence.running import RunError, run
from farrier_agent.fingerprint.compared import differences
from farrier_agent.fingerprint.keeping import FingerprintFile, FingerprintFileError
from farrier_agent.fingerprint.made import Fingerprint, make
from farrier_agent.status import Status, dumps

__all__ = ["KEPT", "Wanted", "collect"]

KEPT = 3
"""Bundles of one GPU, or of all of a host, that stay on the host."""
_RETURN, _STATUS, _PRINTS = "return.txt", "status.json", "fingerprint.json"


@dataclass(frozen=True)
class Wanted:
    """What is asked for: of the GPU that *gpu* means (all, without), into *directory*.

    *bug_report_seconds* bounds NVIDIA's own report; 0: it is left out.
    """

    gpu: str | None
    directory: Path
    socket: Path
    bug_report_seconds: float


class _Entry(msgspec.Struct, frozen=True, kw_only=True):
    """A piece in the manifest. ``amiss``: what it lacks and why, None where it is whole."""

    name: str
    what: str
    bytes: int
    seconds: float = 0.0
    amiss: str | None = None


async def collect(config: AgentConfig, wanted: Wanted) -> Bundle:
    """The bundle, on the disk. Raises UsageError for a GPU that is not known, ControlError."""
    begun = time.time()
    status, silent = await asyncio.to_thread(_status, wanted.socket)
    recorded, unread = _recorded(config)
    gpu, index = _gpu(wanted.gpu, status, recorded)
    listed = list(pieces(config, gpu, Path(config.sys_root)))
    bounds = Bounds(seconds=40.0, piece=PIECE)
    report: list[Piece] = []
    if wanted.bug_report_seconds:

        async def secrets() -> Collection[bytes]:
            return (await _secrets(config, status))[0]

        report.append(bug_report(wanted.bug_report_seconds, secrets))
    slow = Bounds(seconds=wanted.bug_report_seconds + 60, piece=128 * 1024 * 1024)
    (told, fared), (more, more_fared), (known, words) = await asyncio.gather(
        gather([one.item for one in listed], bounds),
        gather([one.item for one in report], slow),
        _secrets(config, status),
    )
    entries = list(_entries([*listed, *report], (*fared, *more_fared)))
    clean = {name: redact(data, known) for name, data in told.items()} | more
    if not report:
        entries.append(_said("nvidia-bug-report.log.gz", "NVIDIA's own report", "not wanted"))
    entries += _own(clean, status, silent, (recorded, unread))
    said = board_words(
        status,
        sections(clean.get("nvidia-smi.txt", b"").decode(errors="replace")),
        (gpu,) if gpu else (),
        server=machine(Path(config.sys_root)),
    )
    clean[_RETURN] = redact("".join(f"{line}\n" for line in said).encode(), known)
    what = "what is written into the form with which a board is returned"
    entries.append(_Entry(name=_RETURN, what=what, bytes=len(clean[_RETURN])))
    manifest: dict[str, object] = {
        "host": config.host,
        "gpu": gpu,
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(begun)),
        "seconds": round(time.time() - begun, 3),
        "agent": __version__,
        "secrets": words,
        "pieces": sorted(entries, key=lambda one: one.name),
    }
    name = f"{config.host}-{'gpus' if gpu is None else f'gpu{index}'}"
    path, data = await asyncio.to_thread(_written, wanted.directory, name, clean, manifest)
    return Bundle(
        path=str(path),
        size_bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        missing=tuple(f"{one.name}: {one.amiss}" for one in entries if one.amiss),
        words=said,
    )


def _written(
    directory: Path, name: str, clean: dict[str, bytes], manifest: dict[str, object]
) -> tuple[Path, bytes]:
    try:
        path = write(directory, name, clean, manifest, KEPT)
        return path, path.read_bytes()
    except (EvidenceError, OSError) as error:
        raise ControlError(str(error), f"df -h {directory}") from error


def _status(socket: Path) -> tuple[Status | None, str]:
    """What the agent knows, or why it does not say it."""
    try:
        final = client.ask(Asked(), path=socket)
    except ControlError as error:
        return None, str(error)
    return (final.status, "") if isinstance(final, Report) else (None, "the agent says no status")


def _recorded(config: AgentConfig) -> tuple[Fingerprint | None, str]:
    try:
        found = FingerprintFile(Path(config.state_dir) / "fingerprint.json").load()
    except FingerprintFileError as error:
        return None, str(error)
    return found, "" if found else "none was recorded"


def _gpu(
    word: str | None, status: Status | None, recorded: Fingerprint | None
) -> tuple[str | None, int | str]:
    """The UUID that *word* means and its index. Raises UsageError."""
    if word is None:
        return None, ""
    known = {one.uuid: one.index for one in (recorded.gpus if recorded else None) or ()}
    if status is not None and status.gpus is not None:
        known |= {one.uuid: one.index for one in status.gpus.devices}
    try:
        uuid = meant(word, [(index, uuid) for uuid, index in known.items()])
    except ValueError as error:
        raise UsageError(str(error), "farrier-agent status") from error
    return uuid, known[uuid]


async def _secrets(config: AgentConfig, status: Status | None) -> tuple[frozenset[bytes], str]:
    """Secret values in the environments of this host's engines; in words how far they are known."""
    pids = [
        (one.name, one.unit_state.main_pid)
        for one in (status.replicas if status else ())
        if one.unit_state is not None and one.unit_state.main_pid
    ]
    found: set[bytes] = set()
    unread = [] if status is not None else ["the agent does not say which engines run"]
    for name, pid in pids:
        path = f"{config.proc_root}/{pid}/environ"
        try:
            environ, amiss = await run(("cat", path), deadline=5.0, limit=4 * 1024 * 1024)
        except RunError as error:
            environ, amiss = b"", str(error)
        if amiss:
            unread.append(f"{name}'s environment could not be read: {amiss}")
        else:
            found |= secrets_of(environ)
    said = "what is written like a secret, and values of engines' secret variables, are taken out"
    return frozenset(found), "; ".join((said, *unread))


def _entries(listed: list[Piece], fared: tuple[Gathered, ...]) -> list[_Entry]:
    what = {one.name: one.what for one in listed}
    return [
        _Entry(
            name=one.name,
            what=what[one.name],
            bytes=one.bytes,
            seconds=one.seconds,
            amiss=one.amiss,
        )
        for one in fared
    ]


def _own(
    clean: dict[str, bytes],
    status: Status | None,
    silent: str,
    recorded: tuple[Fingerprint | None, str],
) -> list[_Entry]:
    """What the agent knows: its status, and the fingerprint as it was recorded and is now."""
    now = None
    if status is not None:
        clean[_STATUS] = msgspec.json.format(dumps(status))
        now = make(status, kernel=platform.release(), boot_id=Now.read().boot_id)
    before, unread = recorded
    prints: Mapping[str, object] = {
        "recorded": before,
        "now": now,
        "differences": differences(before, now) if before and now else None,
    }
    clean[_PRINTS] = msgspec.json.format(msgspec.json.encode(prints))
    sizes = {name: len(clean.get(name, b"")) for name in (_STATUS, _PRINTS)}
    whole = "all that the agent knows (its /status)"
    made = "what the host was made of when its fingerprint was recorded, and is now"
    lacking = "; ".join(
        filter(None, (unread and f"recorded: {unread}", silent and f"now: {silent}"))
    )
    return [
        _Entry(name=_STATUS, what=whole, bytes=sizes[_STATUS], amiss=silent or None),
        _Entry(name=_PRINTS, what=made, bytes=sizes[_PRINTS], amiss=lacking or None),
    ]


def _said(name: str, what: str, amiss: str) -> _Entry:
    return _Entry(name=name, what=what, bytes=0, amiss=amiss)
