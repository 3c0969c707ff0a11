"""What tests of all kinds use: the fake NVML, and the hosts that roles and deploys run on."""

import fcntl
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from farrier.lab import Lab, LabError
from tests.fakes.nvml.build import build_once

if sys.dont_write_bytecode:
    # The tests start programs by the thousand. Where no bytecode is kept each of them compiles
    # itself anew: an agent's start takes 0.6 s of CPU instead of 0.2. Apart from the sources it may
    # be kept anywhere.
    sys.dont_write_bytecode = False
    sys.pycache_prefix = str(Path(__file__).parents[1] / "build" / "pycache")
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ["PYTHONPYCACHEPREFIX"] = sys.pycache_prefix


@pytest.fixture(scope="session")
def nvml_library(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """The fake NVML, built once for all workers of xdist; the copy of this one is its alone."""
    base = tmp_path_factory.getbasetemp()
    built = build_once((base if worker_id == "master" else base.parent) / "nvml-library")
    # Tests look for the processes that have it open.
    return Path(shutil.copy(built, tmp_path_factory.mktemp("nvml")))


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
    """The lab called *name*, with all or these *hosts* up; taken down unless FARRIER_KEEP_LAB=1."""
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
