"""The hosts that tests of roles and deploys run on."""

import os
from collections.abc import Iterator

import pytest

from farrier.lab import Lab, LabError


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    """The lab that FARRIER_LAB names (``test`` without it), up.

    FARRIER_KEEP_LAB=1 leaves it running for the next session.
    """
    try:
        it = Lab.open(os.environ.get("FARRIER_LAB", "test"), report=print)
        it.up()
    except LabError as error:
        # Never skipped: without hosts nothing of what these tests promise was seen.
        pytest.fail(str(error), pytrace=False)
    yield it
    if os.environ.get("FARRIER_KEEP_LAB") != "1":
        it.down()
