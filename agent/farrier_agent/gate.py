"""The gates of the replicas: the files that they are.

``<gate_dir>/<replica>`` exists = open. nginx looks for it at every request. The unit closes its
gate when it starts and when it stops; when one is opened is for :mod:`.draining` to say.
"""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["Gates"]


class Gates:
    """The gate files in *gate_dir*. Methods raise OSError where the directory does not let them."""

    def __init__(self, gate_dir: Path) -> None:
        self._dir = gate_dir

    def path(self, name: str) -> Path:
        """The file whose existence is the open gate of replica *name*."""
        return self._dir / name

    def is_open(self, name: str) -> bool | None:
        """The gate is open; None when that cannot be seen."""
        try:
            self.path(name).lstat()
        except FileNotFoundError:
            return False
        except OSError:
            return None
        return True

    def open(self, name: str) -> bool:
        """Open the gate; False when it already was open. Creating the file is atomic."""
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            os.close(os.open(self.path(name), flags, 0o644))
        except FileExistsError:
            return False
        return True

    def close(self, name: str) -> None:
        """Close the gate; one that is closed stays so."""
        self.path(name).unlink(missing_ok=True)
