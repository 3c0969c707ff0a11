"""The hosts that tests of roles and deploys run on."""

import fcntl
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from farrier.lab import Lab, LabError

_HELD: set[str] = set()
"""The labs that this session has."""


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    """The lab that FARRIER_LAB names (``test`` without it), up and ours alone.

    FARRIER_KEEP_LAB=1 leaves it running for the next session.
    """
    with lab_of_tests(os.environ.get("FARRIER_LAB", "test")) as it:
        yield it


@contextmanager
def lab_of_tests(name: str, hosts: Sequence[str] | None = None) -> Iterator[Lab]:
    """*hosts* of the lab called *name* (all), brought up; taken down unless FARRIER_KEEP_LAB=1."""
    if name in _HELD:  # two fixtures in one session: the second would wait for the first for ever
        pytest.fail(f"this session has lab {name} already: run these files apart", pytrace=False)
    _HELD.add(name)
    try:
        # A second session on the same lab waits for the first: they would test each other's hosts.
        with Path(tempfile.gettempdir(), f"farrier-tests-{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            try:
                it = Lab.open(name, report=print)
                it.up(hosts)
            except LabError as error:
                # Never skipped: without hosts nothing of what these tests promise was seen.
                pytest.fail(str(error), pytrace=False)
            yield it
            if os.environ.get("FARRIER_KEEP_LAB") != "1":
                it.down()
    finally:
        _HELD.discard(name)
