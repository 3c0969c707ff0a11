"""Builds the fake NVML (``fake.c`` tells what it does) with the machine's C compiler."""

from __future__ import annotations

import fcntl
import subprocess
import sys
from pathlib import Path

SOURCES = sorted(Path(__file__).parent.glob("*.c"))
NAME = "libnvidia-ml.so.1"
FLAGS = ("-O1", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared", "-fvisibility=hidden")


class BuildError(RuntimeError):
    """The compiler is missing or refused the source; the message has its words."""


def build(dest_dir: Path, compiler: str = "cc") -> Path:
    """Compile into *dest_dir* (made if missing) and return the path of ``libnvidia-ml.so.1``."""
    dest_dir.mkdir(parents=True, exist_ok=True)
    library = dest_dir / NAME
    command = [compiler, *FLAGS, f"-Wl,-soname,{NAME}", "-o", str(library), *map(str, SOURCES)]
    command.append("-lpthread")
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)
    except FileNotFoundError:
        raise BuildError(f"no C compiler {compiler!r}: apt-get install gcc libc6-dev") from None
    except subprocess.CalledProcessError as error:
        raise BuildError(f"{' '.join(command)} failed:\n{error.stderr}") from error
    return library


def build_once(dest_dir: Path) -> Path:
    """The same, but what another process has built there is used."""
    dest_dir.mkdir(parents=True, exist_ok=True)
    done = dest_dir / "done"
    with (dest_dir / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            build(dest_dir)
            done.touch()
    return dest_dir / NAME


if __name__ == "__main__":
    print(build(Path(sys.argv[1] if len(sys.argv) > 1 else ".")))
