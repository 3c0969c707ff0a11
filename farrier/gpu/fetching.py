"""A host's bundle about a board: gathered there, brought here in parts, and checked."""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import shlex
import time
from collections.abc import Callable
from pathlib import Path

from farrier_agent.control.protocol import Bundle, Failed

from farrier.fleet import LostError, NoAgentError, NoAnswerError, Shell, UnreachableError

__all__ = ["PART", "FetchError", "fetched", "gathered"]

PART = 1024 * 1024
"""Bytes that are fetched with one command: a connection that breaks costs no more."""
PATIENCE = 120.0
"""Seconds for which a part is asked for again while the host cannot be reached."""
BEYOND = 180.0
"""Seconds that everything but NVIDIA's own report may take."""
USAGE = 2


class FetchError(Exception):
    """The bundle is not here; ``what`` says why, ``next`` what to type, ``code`` how it ends."""

    def __init__(self, what: str, next_command: str | None = None, code: int = 1) -> None:
        super().__init__(what)
        self.what = what
        self.next = next_command
        self.code = code


def gathered(shell: Shell, gpu: str | None, bug_report: float) -> Bundle:
    """Have the host gather it, of *gpu* or all. Raises FetchError, ShellError."""
    host = shell.target.name
    words = [gpu] if gpu else []
    words += ["--bug-report-seconds", f"{bug_report:g}"]
    reply = shell.agent("gpu", "bundle", *words, timeout=BEYOND + bug_report)
    if isinstance(reply.final, Bundle):
        return reply.final
    if reply.code == USAGE and "invalid choice" in reply.stderr:
        step = f"pyinfra --limit {host} inventory deploys/llm.py"
        raise NoAgentError(host, "its agent is older than this farrier", step)
    if not isinstance(reply.final, Failed):
        raise FetchError(f"{host}: its agent answers with {type(reply.final).__name__}")
    typed = reply.final.next
    step = f"farrier exec --sudo {host} -- {typed}" if typed else f"farrier status {host}"
    raise FetchError(f"{host}: {reply.final.error}", step, reply.final.code)


def fetched(
    shell: Shell, bundle: Bundle, directory: Path, tell: Callable[[int], None] = lambda _: None
) -> Path:
    """Bring *bundle* into *directory*, mode 0600; the path. *tell* hears how many bytes are here.

    The file appears whole and as the host has it, or not at all. Raises FetchError, ShellError.
    """
    host = shell.target.name
    path = directory / Path(bundle.path).name
    fresh = directory / f".{path.name}.part"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        fresh.unlink(missing_ok=True)
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(fresh, flags, 0o600), "wb") as file:
            digest = _parts(shell, bundle, file.write, tell)
        if bundle.sha256 not in {None, digest}:
            fresh.unlink()
            raise FetchError(
                f"{host}: {bundle.path} came here as another file than it is there",
                f"farrier gpu bundle {host}",
            )
        fresh.replace(path)
    except OSError as error:
        raise FetchError(f"{error.filename or directory}: {error.strerror}") from error
    finally:
        fresh.unlink(missing_ok=True)
    return path


def _parts(
    shell: Shell, bundle: Bundle, write: Callable[[bytes], object], tell: Callable[[int], None]
) -> str:
    """Write every part; the SHA-256 of all."""
    digest, at = hashlib.sha256(), 0
    while at < bundle.size_bytes:
        data = _part(shell, bundle.path, at)
        if not data:
            raise FetchError(
                f"{shell.target.name}: {bundle.path} ended after {at} of {bundle.size_bytes} bytes",
                f"farrier gpu bundle {shell.target.name}",
            )
        write(data)
        digest.update(data)
        at += len(data)
        tell(at)
    return digest.hexdigest()


def _part(shell: Shell, path: str, at: int) -> bytes:
    command = f"tail -c +{at + 1} {shlex.quote(path)} | head -c {PART} | base64 -w 0"
    end = time.monotonic() + PATIENCE
    while True:
        try:
            done = shell.run(command, timeout=60)
            break
        except (UnreachableError, LostError, NoAnswerError):
            if time.monotonic() + 1 >= end:
                raise
        time.sleep(1)
    try:
        return base64.b64decode(done.stdout, validate=True)
    except binascii.Error as error:
        said = done.stderr.strip() or "something else came"
        raise FetchError(f"{shell.target.name}: {path} cannot be read: {said}") from error
