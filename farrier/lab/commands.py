"""Running the operator's own programs (``ip``, ``nft``, ``mount``…) and saying what went wrong."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from farrier.lab.errors import LabError

__all__ = ["TOOLS", "require_root_and_tools", "run", "succeeds"]

TOOLS = {
    "mmdebstrap": "mmdebstrap",
    "systemd-nspawn": "systemd-container",
    "nft": "nftables",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
    "ip": "iproute2",
    "mount": "mount",
}
"""Programs that the lab calls, and the Debian package of each."""

# sbin is not on the PATH of every root shell (su without a dash).
os.environ["PATH"] = os.environ.get("PATH", "/usr/bin:/bin") + ":/usr/sbin:/sbin"


def run(
    argv: Sequence[str | Path],
    *,
    input: str | None = None,  # noqa: A002 - subprocess' own word
    env: Mapping[str, str] | None = None,
    timeout: float | None = 60,
    pass_fds: Sequence[int] = (),
) -> str:
    """The standard output of *argv*. Raises :class:`LabError` with its last words if it fails."""
    words = [str(word) for word in argv]
    try:
        done = subprocess.run(
            words,
            input=input,
            env=env,
            timeout=timeout,
            pass_fds=pass_fds,
            capture_output=True,
            text=True,
            check=True,
        )
    except FileNotFoundError as error:
        raise LabError(f"{words[0]}: not installed") from error
    except subprocess.TimeoutExpired as error:
        raise LabError(f"{shlex.join(words)}: no end after {timeout:.0f} s") from error
    except subprocess.CalledProcessError as error:
        said = (error.stderr or error.stdout).strip()[-2000:]
        raise LabError(f"{shlex.join(words)}: exit {error.returncode}: {said}") from error
    return done.stdout


def succeeds(argv: Sequence[str | Path]) -> bool:
    """Whether *argv* exits 0; for questions, never for actions."""
    words = [str(word) for word in argv]
    return subprocess.run(words, capture_output=True, check=False).returncode == 0


def require_root_and_tools() -> None:
    """Raise :class:`LabError` naming all that is missing on this machine and the command for it."""
    missing = sorted({package for tool, package in TOOLS.items() if not shutil.which(tool)})
    problems = []
    if missing:
        sudo = "" if os.geteuid() == 0 else "sudo "
        command = f"{sudo}apt-get install -y --no-install-recommends {' '.join(missing)}"
        problems.append(f"missing Debian packages: {', '.join(missing)}\n  run: {command}")
    if os.geteuid() != 0:
        command = shlex.join(["sudo", str(Path(sys.argv[0]).absolute()), *sys.argv[1:]])
        problems.append(
            "root is needed: the lab makes overlay mounts, a bridge, an nft table and machines\n"
            f"  run: {command}"
        )
    if problems:
        raise LabError("\n".join(problems))
