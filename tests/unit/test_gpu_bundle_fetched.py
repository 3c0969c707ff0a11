"""A bundle is brought here in parts. The host is a stand-in: its commands run on this machine."""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
from farrier_agent.control.protocol import Bundle

from farrier.fleet import Login, LostError, Shell, Target
from farrier.fleet.shell import Done
from farrier.gpu import fetching
from farrier.gpu.fetching import FetchError, fetched


class HereShell(Shell):
    """A stand-in for a host: commands run here. The first *breaks* are lost on their way."""

    def __init__(self, breaks: int = 0) -> None:
        super().__init__(Target("gpu01", (), "127.0.0.1", Login("127.0.0.1")))
        self.breaks = breaks
        self.commands: list[str] = []

    def run(self, command: str, **_: Any) -> Done:
        """Run it in a shell of this machine."""
        self.commands.append(command)
        if self.breaks:
            self.breaks -= 1
            raise LostError("gpu01", "the connection was lost")
        ran = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
        return Done(ran.returncode, ran.stdout, ran.stderr)


@pytest.fixture
def there(tmp_path: Path) -> Bundle:
    path = tmp_path / "host" / "gpu01-gpu1-x y.tar.gz"
    path.parent.mkdir()
    path.write_bytes(os.urandom(2 * fetching.PART + 17))
    return Bundle(
        path=str(path),
        size_bytes=path.stat().st_size,
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
    )


def test_it_comes_in_parts_and_is_the_operators_alone(there: Bundle, tmp_path: Path) -> None:
    shell = HereShell()
    told: list[int] = []
    path = fetched(shell, there, tmp_path / "here" / "below", told.append)
    assert path.read_bytes() == Path(there.path).read_bytes()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [one.name for one in path.parent.iterdir()] == [path.name]
    assert told == [fetching.PART, 2 * fetching.PART, there.size_bytes]


def test_a_connection_that_breaks_costs_one_part(there: Bundle, tmp_path: Path) -> None:
    shell = HereShell(breaks=1)
    path = fetched(shell, there, tmp_path / "here")
    assert path.stat().st_size == there.size_bytes
    assert len(shell.commands) == 4


@pytest.mark.parametrize("what", ["shorter", "other", "gone"])
def test_what_is_not_as_it_is_there_is_not_kept(what: str, there: Bundle, tmp_path: Path) -> None:
    path = Path(there.path)
    if what == "shorter":
        path.write_bytes(path.read_bytes()[:-1])
    elif what == "other":
        path.write_bytes(bytes(there.size_bytes))
    else:
        path.unlink()
    with pytest.raises(FetchError, match="gpu01") as failed:
        fetched(HereShell(), there, tmp_path / "here")
    assert failed.value.code == 1
    assert list((tmp_path / "here").iterdir()) == []
