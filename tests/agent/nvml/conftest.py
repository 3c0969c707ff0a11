"""Fixtures for the tests of the NVML worker."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.agent.nvml.bench import Bench


@pytest.fixture
def bench(nvml_library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    one = Bench(nvml_library, tmp_path)
    monkeypatch.setenv("FAKE_NVML_STATE", str(one.state_path))
    return one
