"""Release tarballs, downloaded once on the operator's machine and known by their SHA-256."""

from __future__ import annotations

import hashlib
import os
import shutil
import threading
import urllib.request
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["TarballError", "fetch"]

SECONDS = 60
"""Without a byte, after which a download has failed."""
CHUNK = 1 << 20


class TarballError(Exception):
    """The tarball could not be had; the message says why and what to do."""


_in_process: dict[str, threading.Lock] = defaultdict(threading.Lock)


def cache_directory() -> Path:
    """Where tarballs are kept: ``$XDG_CACHE_HOME/farrier/tarballs``."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "farrier" / "tarballs"


def fetch(
    url: str,
    sha256: str,
    cache: Path | None = None,
    say: Callable[[str], object] = lambda _: None,
) -> Path:
    """The tarball at *url* (``https:``, ``http:``, or a path on this machine), from the cache.

    What has another hash is not kept. Raises :class:`TarballError`.
    """
    cache = cache or cache_directory()
    name = url.rpartition("/")[2] or "tarball"
    kept = cache / f"{sha256[:16]}-{name}"
    with _in_process[sha256]:
        if kept.is_file() and _digest(kept) == sha256:
            return kept
        cache.mkdir(mode=0o700, parents=True, exist_ok=True)
        partial = cache / f"{kept.name}.{os.getpid()}.partial"
        try:
            say(f"fetching {url}")
            _copy(url, partial)
            found = _digest(partial)
            if found != sha256:
                raise TarballError(
                    f"{url} has the SHA-256 {found}, and the inventory wants {sha256}: the file is"
                    " another than was meant, or damaged. Nothing was kept or unpacked. Compare"
                    " with the hash that its project publishes, and correct the one that is wrong"
                )
            partial.replace(kept)
        except OSError as error:
            raise TarballError(
                f"{url} could not be fetched: {error}. Fetch it on a machine that can, and name"
                " its path on this one instead of the address"
            ) from error
        finally:
            partial.unlink(missing_ok=True)
    return kept


def _copy(url: str, to: Path) -> None:
    if "://" not in url:
        shutil.copyfile(Path(url).expanduser(), to)
        return
    if not url.startswith(("https://", "http://", "file://")):
        raise TarballError(f"{url}: only https:, http: and paths on this machine are fetched")
    with urllib.request.urlopen(url, timeout=SECONDS) as answer, to.open("wb") as file:  # noqa: S310
        shutil.copyfileobj(answer, file, CHUNK)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
