"""What root does for a rollout, in one process: reboot the host, run a command, put units back.

The process takes the lock of deeds, has the agent check the token and mark the host (*acting*, on
the disk), and only then does it; the lock is held to the end of the deed, by the command itself
when this process is killed. So no two rollouts' deeds overlap, whatever becomes of leases.

Units are put back under the same lock and token, and without a mark: nothing is interrupted.

A command goes on when the connection that it was started over is cut: its output goes to a file,
from which it is told here.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from farrier_agent.control.again import ask_again
from farrier_agent.control.errors import ControlError, RefusedError
from farrier_agent.control.protocol import Act, Entry, Failed, Final, Leased, Ran, encode, exit_code
from farrier_agent.control.running import agent_of, say
from farrier_agent.wording import printable

__all__ = [
    "LOCK",
    "NOTE",
    "TOLD",
    "deed_under_way",
    "perform",
    "put_units_back",
    "reboot",
    "run_command",
]

LOCK = "act.lock"
"""The lock of deeds, beside the control socket."""
NOTE = "let-go.json"
"""What ran before the host let go of its GPUs, beside the lease, until the rollout is done here."""
TOLD = 64 * 1024
"""Bytes of a command's output that are told with its end."""
_PATIENCE = 2.0
"""Seconds to wait for the lock: the agent looks at it for a moment."""
_LINE = 180


def reboot(arguments: argparse.Namespace) -> int:
    """Mark, then have systemd reboot, which drains what is not drained. Returns the exit code."""

    def deed(marked: Final, _: int) -> Final:
        command = ["systemctl", "reboot"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            why = " ".join(done.stderr.split()) or f"status {done.returncode}"
            return Failed(code=1, error=f"systemctl reboot: {why}", next="systemctl reboot")
        return marked

    return perform(arguments, Act(action="reboot", token=arguments.token), deed)


def run_command(arguments: argparse.Namespace, words: Sequence[str]) -> int:
    """Mark, then run *words* to their end. Returns 0, or 1 where the command did not."""
    command = printable(shlex.join(words))[:_LINE]

    def deed(_: Final, lock: int) -> Final:
        ran = _run(words, lock, as_json=arguments.json)
        with suppress(ControlError):  # it is in the reply, too
            told = Act(action="ran", token=arguments.token, command=command, code=ran.status)
            ask_again(agent_of(arguments), told)
        return ran

    return perform(arguments, Act(action="run", token=arguments.token, command=command), deed)


def put_units_back(arguments: argparse.Namespace) -> int:
    """Put the units from before back, if the token counts. Returns the exit code."""
    from farrier_agent.rollout.putting_back import Places, put_back  # noqa: PLC0415 - its own need

    replicas = tuple(dict.fromkeys(arguments.replicas))
    places = Places(
        arguments.units_dir, arguments.previous_dir, arguments.started_dir, arguments.records_dir
    )

    def deed(final: Final, _: int) -> Final:
        assert isinstance(final, Leased)  # noqa: S101 - perform goes on with that only
        try:
            done = put_back(replicas, final.rollout, places)
        except ControlError as error:
            _tell_back(arguments, replicas, str(error), error.code)
            raise
        words = "; ".join(f"{one.replica}: {one.text}" for one in done.results)
        _tell_back(arguments, replicas, words, 0)
        return done

    return perform(arguments, Act(action="back", token=arguments.token, replicas=replicas), deed)


def _tell_back(
    arguments: argparse.Namespace, replicas: tuple[str, ...], words: str, code: int
) -> None:
    with suppress(ControlError):  # it is in the reply, too
        told = Act(
            action="put-back",
            token=arguments.token,
            replicas=replicas,
            command=printable(words)[:_LINE],
            code=code,
        )
        ask_again(agent_of(arguments), told)


def deed_under_way(path: Path) -> str | None:
    """The command, or the reboot, that has the lock at *path*; None when there is none."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None  # nobody ever had it in this boot
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return printable(os.read(handle, 4 * _LINE).decode(errors="replace").strip())
    except OSError:
        return None
    else:
        return None
    finally:
        os.close(handle)


def perform(
    arguments: argparse.Namespace,
    act: Act,
    deed: Callable[[Final, int], Final],
    *,
    patience: float = _PATIENCE,
) -> int:
    """Ask for *act* under the lock of deeds, then do *deed*; prints its last word.

    *deed* is given the agent's answer, a :class:`Leased`, and the lock. Another deed that is under
    way is waited for, *patience* seconds. Returns the exit code.
    """
    try:
        if os.geteuid() != 0:
            raise RefusedError("only root may do that", "the same with sudo")
        words = act.command or act.action
        with _locked(Path(arguments.socket).parent / LOCK, words, patience) as lock:
            final = ask_again(agent_of(arguments), act)
            if isinstance(final, Leased):
                final = deed(final, lock)
    except ControlError as error:
        final = Failed(code=error.code, error=str(error), next=error.next)
    with suppress(BrokenPipeError):  # nobody listens any more
        return say(final, as_json=arguments.json)
    return exit_code(final)


@contextmanager
def _locked(path: Path, words: str, patience: float) -> Iterator[int]:
    """Hold the lock at *path* for the deed *words*. Raises ControlError."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        handle = os.open(path, flags, 0o644)
    except OSError as error:
        raise ControlError(
            f"{path} cannot be locked: {error.strerror}", "systemctl status farrier-agent"
        ) from error
    try:
        end = time.monotonic() + patience
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > end:
                    other = deed_under_way(path) or "another one"
                    raise RefusedError(
                        f"a rollout's deed is under way on this host ({other}); nothing was done",
                        f"fuser -v {path}",
                    ) from None
            time.sleep(0.05)
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"pid {os.getpid()}: {words}\n".encode(), 0)
        yield handle
    finally:
        os.close(handle)


def _run(words: Sequence[str], lock: int, *, as_json: bool) -> Ran:
    """Run *words* to their end, with *lock* in their hands, and tell what they write."""
    begun = time.monotonic()
    with tempfile.TemporaryFile() as output:
        try:
            process = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=(lock,),
            )
        except OSError as error:
            said = f"{words[0]}: {error.strerror}"
            return Ran(status=127, seconds=time.monotonic() - begun, output=said)
        # a connection that is cut ends neither; a person's Ctrl-C is the command's
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda got, _: _pass_on(process, got))
        teller = _Teller(output, as_json=as_json)
        while process.poll() is None:
            teller.tell()
            time.sleep(0.1)
        teller.tell(last=True)
        size = os.fstat(output.fileno()).st_size
        tail = os.pread(output.fileno(), TOLD, max(0, size - TOLD)).decode(errors="replace")
        return Ran(status=process.returncode, seconds=time.monotonic() - begun, output=tail)


def _pass_on(process: subprocess.Popen[bytes], number: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)


class _Teller:
    """Tells on standard output what comes to be in *output*, until nobody reads it."""

    def __init__(self, output: IO[bytes], *, as_json: bool) -> None:
        self._handle = output.fileno()
        self._as_json = as_json
        self._told = 0
        self._listens = True

    def tell(self, *, last: bool = False) -> None:
        """Tell whole lines; the *last* time what is left, too."""
        while self._listens and (data := os.pread(self._handle, TOLD, self._told)):
            end = data.rfind(b"\n") + 1
            if end == 0 and not last and len(data) < TOLD:
                return
            data = data[: end or len(data)]
            self._told += len(data)
            try:
                self._write(data)
            except OSError:
                self._listens = False

    def _write(self, data: bytes) -> None:
        text = data.decode(errors="replace")
        if self._as_json:
            lines = text.splitlines()
            entries = (Entry(at=time.time(), message=line, cause="command") for line in lines)
            text = "".join(encode(one).decode() for one in entries)
        sys.stdout.write(text)
        sys.stdout.flush()
