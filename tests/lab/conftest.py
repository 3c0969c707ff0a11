"""A lab of one host, ``brief``, for the tests that break and remove what others have to rely on."""

import fcntl
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from farrier.lab import Lab


@pytest.fixture(scope="module")
def alone() -> Iterator[None]:
    """No other session of tests is at work on the lab ``brief``."""
    with Path(tempfile.gettempdir(), "farrier-tests-brief.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@pytest.fixture(scope="module")
def brief(alone: None) -> Iterator[Lab]:
    it = Lab.open("brief", report=print)
    it.down()
    it.up()
    yield it
    it.down()


@pytest.fixture
def nothing(alone: None) -> Iterator[Lab]:
    """The lab ``brief``, not up, and taken down afterwards whatever happened."""
    it = Lab.open("brief", report=print)
    it.down()
    yield it
    it.down()
