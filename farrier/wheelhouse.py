"""Locked wheels, downloaded once on the operator's machine for the Python of the hosts.

A *lock* is a requirements file with hashes; the wheelhouse of a lock is a tar archive of its
wheels, kept in the operator's cache and pushed to every host that needs it, so that what is
downloaded is downloaded once per fleet and no host needs an index. pip does the downloading,
because it can fetch for another platform and another Python, and because it reads the operator's
own pip configuration (index, find-links, proxy, certificates).
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections import defaultdict
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

__all__ = [
    "NO_SOURCES",
    "Sources",
    "Wheelhouse",
    "WheelhouseError",
    "digest",
    "fill",
    "project_files",
    "with_lock",
]

UV_LOCK = Path(__file__).parent / "locks" / "uv.txt"
"""uv travels in every wheelhouse."""

_GLIBC_MINORS = range(34, 4, -1)
"""manylinux tags that wheels may have, newest first: SGLang's own need glibc 2.34, and the oldest
host, Ubuntu 22.04, has 2.35.
"""


class WheelhouseError(Exception):
    """The wheels of a lock could not be had; the message names which, why and what to do."""


@dataclass(frozen=True, slots=True)
class Sources:
    """Where wheels come from.

    *index_url* replaces pip's index; *find_links* are directories or pages searched as well;
    *own_index* maps a package that PyPI does not have in this build to an index that does, asked
    only when find-links (pip's configured ones included) do not have it.
    """

    index_url: str | None = None
    find_links: tuple[str, ...] = ()
    own_index: tuple[tuple[str, str], ...] = ()


NO_SOURCES = Sources()
"""pip's own configuration and nothing else."""


@dataclass(frozen=True, slots=True)
class Wheelhouse:
    """A lock for one Python: *python* is ``major.minor``, *source* a project of ours to build.

    *installer* is the lock of uv, which the host needs to fill an environment, and only then.
    """

    name: str
    lock: Path
    python: str
    sources: Sources = NO_SOURCES
    source: Path | None = None
    installer: Path = UV_LOCK

    @property
    def key(self) -> str:
        """Names the content: the same key, the same wheels."""
        return digest([self.lock, self.installer, *project_files(self.source)], self.python)[:16]


def digest(paths: Sequence[Path], *words: str) -> str:
    """sha256 in hex over the contents of *paths* and over *words*."""
    total = hashlib.sha256()
    for path in paths:
        total.update(path.name.encode() + b"\0" + path.read_bytes())
    for word in words:
        total.update(b"\0" + word.encode())
    return total.hexdigest()


def cache_directory() -> Path:
    """Where archives are kept: ``$XDG_CACHE_HOME/farrier/wheels``."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "farrier" / "wheels"


def with_lock(lock: Path, also: Path) -> Path:
    """A lock of the packages of *lock*, and of those of *also* that it has not.

    It has the name of *lock*, in a directory of the operator's cache that is named by its content.
    """
    there = lock.read_text(encoding="utf-8")
    has = split_lock(there)
    more = split_lock(also.read_text(encoding="utf-8"))
    text = "".join([there, *(block for name, block in more.items() if name not in has)])
    directory = cache_directory().parent / "locks" / hashlib.sha256(text.encode()).hexdigest()[:16]
    path = directory / lock.name
    if not path.exists():
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.NamedTemporaryFile("w", dir=directory, delete=False) as half:
            half.write(text)
        Path(half.name).replace(path)
    return path


def _silent(_: str) -> None:
    pass


_in_process: dict[str, threading.Lock] = defaultdict(threading.Lock)


def fill(
    wheelhouse: Wheelhouse, cache: Path | None = None, say: Callable[[str], object] = _silent
) -> Path:
    """The archive of *wheelhouse*, downloaded now unless the cache has it.

    Safe against other threads and processes that want the same. *say* hears what takes long.
    Raises :class:`WheelhouseError`.
    """
    cache = cache or cache_directory()
    archive = cache / f"{wheelhouse.name}-{wheelhouse.key}.tar"
    with _in_process[archive.name]:
        if archive.exists():
            return archive
        cache.mkdir(parents=True, exist_ok=True, mode=0o700)
        with _between_processes(archive.with_suffix(".lock")):
            if not archive.exists():
                count = len(split_lock(wheelhouse.lock.read_text()))
                say(f"downloading {wheelhouse.name}, {count} packages, once for the whole fleet")
                started = time.monotonic()
                _make(wheelhouse, archive)
                seconds, size = time.monotonic() - started, archive.stat().st_size / 1e6
                say(f"downloaded {wheelhouse.name}: {size:.0f} MB in {seconds:.0f} s")
    return archive


def _make(wheelhouse: Wheelhouse, archive: Path) -> None:
    with tempfile.TemporaryDirectory(dir=archive.parent, prefix=".filling-") as scratch:
        wheels = Path(scratch) / "wheels"
        wheels.mkdir()
        _download(wheelhouse, wheels)
        shutil.copy(wheelhouse.lock, wheels / "requirements.txt")
        if wheelhouse.source:
            (wheels / "source").mkdir()
            _build(wheelhouse, wheelhouse.source, wheels / "source")
        half = Path(scratch) / archive.name
        with tarfile.open(half, "w") as tar:
            tar.add(wheels, arcname=".")
        half.rename(archive)


def _download(wheelhouse: Wheelhouse, wheels: Path) -> None:
    sources = wheelhouse.sources
    requirements = split_lock(wheelhouse.lock.read_text())
    for package, own in sources.own_index:
        block = requirements.pop(package, None)
        if block is None:
            continue
        local = _pip_download(wheelhouse, block, wheels, ["--no-index"])
        if local.returncode:
            _must(
                _pip_download(wheelhouse, block, wheels, ["--index-url", own]),
                f"{package} ({block.split()[0]}) from {own}, nor from find-links",
            )
    index = ["--index-url", sources.index_url] if sources.index_url else []
    if rest := "".join(requirements.values()):
        _must(_pip_download(wheelhouse, rest, wheels, index), "the wheels")
    _must(_pip_download(wheelhouse, wheelhouse.installer.read_text(), wheels, index), "uv")


def split_lock(text: str) -> dict[str, str]:
    """The lock's blocks (requirement and its hashes) by package name."""
    blocks: dict[str, str] = {}
    name = ""
    for line in text.splitlines(keepends=True):
        if match := re.match(r"([A-Za-z0-9._-]+)==", line):
            name = match.group(1).lower()
            blocks[name] = line
        elif name and not line.lstrip().startswith("#"):
            blocks[name] += line
    return blocks


def _pip_download(
    wheelhouse: Wheelhouse, requirements: str, wheels: Path, index: Sequence[str]
) -> subprocess.CompletedProcess[str]:
    platforms = [f"manylinux_2_{minor}_x86_64" for minor in _GLIBC_MINORS]
    platforms += ["manylinux2014_x86_64", "manylinux2010_x86_64", "manylinux1_x86_64"]
    platforms.append("linux_x86_64")  # wheels that never saw PyPI, such as NVIDIA's
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write(requirements)
        file.flush()
        command = [
            *(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"),
            *("--no-deps", "--only-binary=:all:", "--require-hashes", "--implementation", "cp"),
            *("--python-version", wheelhouse.python, "--dest", str(wheels)),
            *(part for platform in platforms for part in ("--platform", platform)),
            *(part for link in wheelhouse.sources.find_links for part in ("--find-links", link)),
            *index,
            *("-r", file.name),
        ]
        return subprocess.run(command, capture_output=True, text=True, check=False)


def _must(result: subprocess.CompletedProcess[str], what: str) -> None:
    if result.returncode == 0:
        return
    errors = [line for line in result.stderr.splitlines() if line.startswith("ERROR")]
    reason = "\n".join(errors[-3:]) or result.stderr[-600:]
    raise WheelhouseError(
        f"{what} could not be downloaded on this machine:\n{reason}\n"
        "Behind a mirror, set index_url or find_links of the role in inventory/group_data, or"
        " pip's own configuration (pip config list), then run the deploy again"
    )


def _build(wheelhouse: Wheelhouse, project: Path, destination: Path) -> None:
    # By pip as well: what builds the project comes from where all the other wheels come from.
    sources = wheelhouse.sources
    command = [
        *(sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check"),
        *("--no-deps", "--wheel-dir", str(destination)),
        *(["--index-url", sources.index_url] if sources.index_url else []),
        *(part for link in sources.find_links for part in ("--find-links", link)),
        str(project),
    ]
    _must(
        subprocess.run(command, capture_output=True, text=True, check=False),
        f"what builds {project.name}",
    )


def project_files(project: Path | None) -> list[Path]:
    """The files that a build of *project* depends on, sorted; none for None."""
    if project is None:
        return []
    found = [project / "pyproject.toml", *project.glob("*/**/*.py")]
    return sorted(path for path in found if "dist" not in path.parts)


@contextmanager
def _between_processes(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
