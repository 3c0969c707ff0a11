"""One host's machine: the supervisor, systemd-nspawn and the guest's processes.

Nothing is remembered about processes: they are found in /proc by what only they have (the path of
the host's disk), so what a crash, a kill -9 or a reboot left behind is seen as it is.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from farrier.lab import cgroups
from farrier.lab.commands import run
from farrier.lab.definitions import HostDefinition, LabDefinition
from farrier.lab.disks import is_mounted, unmount_below
from farrier.lab.errors import LabError
from farrier.lab.network import interface_exists
from farrier.lab.state import HostFiles

__all__ = ["cut_power", "nspawn_argv", "outside", "power_off", "processes", "start", "supervised"]

PROC = Path("/proc")
SUPERVISOR = Path(__file__).with_name("supervisor.py")
NSPAWN_RUNTIME = Path("/run/systemd/nspawn")


def nspawn_argv(
    lab: LabDefinition, host: HostDefinition, files: HostFiles, binds: tuple[Path, ...] = ()
) -> list[str]:
    """The command of *host*'s machine."""
    return [
        "systemd-nspawn",
        "--quiet",
        f"--directory={files.merged}",
        f"--machine={lab.machine(host.name)}",
        f"--hostname={host.name}",
        f"--network-bridge={lab.bridge}",
        *(f"--bind-ro={path}" for path in binds),
        "--boot",
        "--keep-unit",
        "--register=no",
        "--settings=no",
        "--link-journal=no",
        "--resolv-conf=off",
        "--timezone=off",
    ]


def start(
    lab: LabDefinition, host: HostDefinition, files: HostFiles, binds: tuple[Path, ...] = ()
) -> None:
    """Boot *host*, detached from this process and its terminal."""
    supervisor = [sys.executable, "-I", str(SUPERVISOR)]
    machine = nspawn_argv(lab, host, files, binds)
    # cgroup v2 inside, also where the operator's kernel was booted with v1 (systemd-nspawn(1)).
    env = {"PATH": os.environ["PATH"], "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"}
    if Path("/run/systemd/system").exists():
        # Where systemd is PID 1 it owns the cgroup tree: the guest's part has to be delegated to
        # it, outside of the operator's session. Untested so far: no such machine was at hand.
        settings = [f"--setenv={name}={value}" for name, value in env.items()]
        settings.append(f"--unit=farrier-lab-{lab.machine(host.name)}")
        settings.append(f"--property=StandardOutput=append:{files.console}")
        settings += ["--property=Delegate=yes", "--property=KillMode=mixed"]
        run(["systemd-run", "--quiet", "--collect", *settings, "--", *supervisor, *machine])
        return
    own = [f"--cgroup={group}" for group in cgroups.make(lab.machine(host.name))]
    with files.console.open("wb") as console:
        subprocess.Popen(
            [*supervisor, *own, *machine],
            env=env,
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def processes(files: HostFiles) -> dict[str, list[int]]:
    """Pids by kind: ``supervisor``, ``nspawn``, and ``guest`` (all that has the disk as its /)."""
    found = {**outside(files), "guest": []}
    upper = f"upperdir={files.upper},"
    for process in _all_processes():
        with suppress(OSError):  # it ended meanwhile
            if _root_has(process, upper):
                found["guest"].append(int(process.name))
    return found


def outside(files: HostFiles) -> dict[str, list[int]]:
    """As :func:`processes`, without the guest's: those take a look at every mount table."""
    found: dict[str, list[int]] = {"supervisor": [], "nspawn": []}
    option = f"--directory={files.merged}"
    for process in _all_processes():
        with suppress(OSError):
            argv = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
            if option in argv:
                # By name: another clone of the project may have started it.
                ours = any(word.endswith("/farrier/lab/supervisor.py") for word in argv)
                found["supervisor" if ours else "nspawn"].append(int(process.name))
    return found


def _all_processes() -> Iterator[Path]:
    return (directory for directory in PROC.iterdir() if directory.name.isdigit())


def _root_has(process: Path, option: str) -> bool:
    """Whether the process' / is an overlay with *option* (proc(5), mountinfo)."""
    with (process / "mountinfo").open(encoding="utf-8", errors="replace") as mounts:
        return any(line.split(" ", 5)[4] == "/" and option in line for line in mounts)


def supervised(files: HostFiles) -> bool:
    """Whether the host's machine runs and would come back after a reboot."""
    now = outside(files)
    return bool(now["supervisor"] and now["nspawn"])


def power_off(lab: LabDefinition, host: str, files: HostFiles, patience: float = 20) -> None:
    """Shut *host* down in order; after *patience* seconds cut its power."""
    for pid in processes(files)["supervisor"]:
        _signal(pid, signal.SIGTERM)
    _wait_gone(files, patience)
    cut_power(lab, host, files)


def cut_power(lab: LabDefinition, host: str, files: HostFiles) -> None:
    """End everything of *host* at once, as a power cut would, and clear what nspawn left."""
    lock = _image_lock(files)
    deadline = time.monotonic() + 20
    while any((now := processes(files)).values()):
        if time.monotonic() > deadline:
            raise LabError(f"{host}: these processes survive SIGKILL: {now}: ps -fp …")
        # The supervisor first, or it would boot the machine again.
        for pid in (*now["supervisor"], *now["nspawn"], *now["guest"]):
            _signal(pid, signal.SIGKILL)
        time.sleep(0.02)
    veth = lab.veth(host)
    if interface_exists(veth):
        # The kernel takes a dead network namespace apart in its own time, and nspawn does not
        # start while the name is taken. Gone between the look and the act is as good.
        with suppress(LabError):
            run(["ip", "link", "delete", veth])
    for kind in ("propagate", "unix-export"):
        leftover = NSPAWN_RUNTIME / kind / lab.machine(host)
        if leftover.is_dir():
            unmount_below(leftover)
            leftover.rmdir()
    if lock:
        lock.unlink(missing_ok=True)
    cgroups.remove(lab.machine(host))


def _image_lock(files: HostFiles) -> Path | None:
    """The lock that nspawn takes on the disk and does not remove when it is killed."""
    if not is_mounted(files):
        return None
    disk = files.merged.stat()
    return NSPAWN_RUNTIME / "locks" / f"inode-{disk.st_dev}:{disk.st_ino}"


def _wait_gone(files: HostFiles, patience: float) -> None:
    deadline = time.monotonic() + patience
    while any(outside(files).values()) and time.monotonic() < deadline:
        time.sleep(0.1)


def _signal(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)
