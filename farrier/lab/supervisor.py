"""One machine's supervisor: starts systemd-nspawn again whenever the guest reboots.

``systemctl reboot`` in the guest ends systemd-nspawn with status 133 under ``--keep-unit``
(FORCE_RESTART in nspawn.c, made for ``RestartForceExitStatus=133`` of systemd-nspawn@.service);
a power-off ends it with 0. SIGTERM powers the guest off in order.

Run as a program of its own, ``python -I supervisor.py [--cgroup=DIRECTORY…] systemd-nspawn …``,
with nothing imported beyond the standard library: it outlives the command that started it. The
machine is started in these cgroups; the supervisor itself stays outside, as a cgroup that is
divided may hold no process (cgroups(7), "no internal processes").
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import FrameType

REBOOT = 133


def main(argv: list[str]) -> int:
    """Run *argv* until it ends with anything but a reboot; its status is ours."""
    options = [word for word in argv if word.startswith("--cgroup=")]
    groups = [Path(word.partition("=")[2]) for word in options]
    argv = argv[len(options) :]
    stopping = threading.Event()
    machine: subprocess.Popen[bytes] | None = None

    def stop(signum: int, frame: FrameType | None) -> None:  # noqa: ARG001
        stopping.set()
        if machine is not None and machine.poll() is None:
            machine.terminate()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    status = REBOOT
    while status == REBOOT and not stopping.is_set():
        machine = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            preexec_fn=lambda: _enter(groups),  # noqa: PLW1509 - no other thread is here
        )
        if stopping.is_set():  # the signal came before there was a machine to hand it to
            machine.terminate()
        status = machine.wait()
        print(f"supervisor: {argv[0]} ended with status {status}", flush=True)
    return status


def _enter(groups: list[Path]) -> None:
    for group in groups:
        (group / "cgroup.procs").write_text(str(os.getpid()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
