"""Fixtures for the collectors' tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.agent.collectors.logs import Ring


@pytest.fixture
def ring() -> Iterator[Ring]:
    one = Ring()
    yield one
    one.close()
