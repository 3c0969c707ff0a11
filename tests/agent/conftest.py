"""Fixtures for the agent's tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.agent.host import Host
from tests.agent.nvml_reading import Reader

# A machine that is busy with hosts makes examples slowly: that is no defect of what is tested.
# The same examples every time, so that a commit's verdict is one; `--hypothesis-profile=search`
# looks for others.
BUSY = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
settings.register_profile("search", BUSY)
settings.register_profile("same", BUSY, derandomize=True, database=None)
settings.load_profile("same")


@pytest.fixture
def read_nvml(nvml_library: Path, tmp_path: Path) -> Reader:
    return Reader(nvml_library, tmp_path)


@pytest.fixture
def host(tmp_path: Path, nvml_library: Path) -> Iterator[Host]:
    with Host(tmp_path, nvml_library) as one:
        yield one
