"""Fixtures for the endpoint's tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.agent.web.served import Served

Serve = Callable[..., Served]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Starts an endpoint with a web configuration; None: without one."""
    with ExitStack() as stack:
        yield lambda web=None: stack.enter_context(Served(tmp_path, web))
