"""Who has this host's GPUs: processes, units of systemd, modules of the kernel."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from farrier_agent.config import DEFAULT_PATH, ConfigError, load
from farrier_agent.control.errors import ControlError

__all__ = ["ended", "holders", "states", "sys_root", "systemctl"]


def holders(proc: Path, dev: Path) -> list[int]:
    """The processes that have a node of NVIDIA's in *dev* open."""
    prefix = f"{dev}/nvidia"
    found = []
    for process in proc.iterdir():
        if not process.name.isdigit():
            continue
        with suppress(OSError):  # it has ended, or is another host's to us
            for one in (process / "fd").iterdir():
                with suppress(OSError):
                    if str(one.readlink()).startswith(prefix):
                        found.append(int(process.name))
                        break
    return sorted(found)


def states(units: Iterable[str]) -> dict[str, str]:
    """The ActiveState of each of *units*; of those that are not there none."""
    names = list(units)
    if not names:
        return {}
    command = ["systemctl", "show", "-p", "Id,LoadState,ActiveState", "--", *names]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found: dict[str, str] = {}
    for block in done.stdout.split("\n\n"):
        said = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        if said.get("LoadState") not in {None, "not-found"}:
            found[said.get("Id", "")] = said.get("ActiveState", "")
    if done.returncode and not found:
        why = " ".join(done.stderr.split()) or f"status {done.returncode}"
        raise ControlError(f"systemd does not say what runs: {why}", "systemctl status")
    return found


def systemctl(verb: str, *units: str) -> str:
    """Why it failed, empty where it did not."""
    done = subprocess.run(
        ["systemctl", verb, "--", *units], capture_output=True, text=True, check=False
    )
    if done.returncode == 0:
        return ""
    return " ".join(done.stderr.split()) or f"status {done.returncode}"


def sys_root() -> Path:
    """Where the agent looks for what the kernel has."""
    try:
        return Path(load(DEFAULT_PATH).sys_root)
    except ConfigError:
        return Path("/sys")


def ended(command: Sequence[str], seconds: float) -> str:
    """Why *command* failed, empty where it did not. One that hangs in the kernel is left behind."""
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
    except OSError as error:
        return f"{command[0]}: {error.strerror}"
    try:
        said, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        return f"{' '.join(command)} did not end within {seconds:.0f} s"
    return "" if process.returncode == 0 else " ".join(said.split())
