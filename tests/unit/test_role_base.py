"""What the role base says to needrestart, as the preflight reads it."""

from __future__ import annotations

import pytest

from farrier.facts.updates import spared_by
from roles.base import NEEDRESTART


@pytest.mark.parametrize(
    "unit",
    [
        "engine-tiny.service",
        "nginx.service",
        "farrier-agent.service",
        "farrier-driver.service",
        "nvidia-fabricmanager.service",
        "nvidia-persistenced.service",
        "nvlsm.service",
    ],
)
def test_needrestart_spares_what_serves(unit: str) -> None:
    assert spared_by(NEEDRESTART, unit)


@pytest.mark.parametrize("unit", ["ssh.service", "prometheus-node-exporter.service", "engine"])
def test_needrestart_may_restart_others(unit: str) -> None:
    assert not spared_by(NEEDRESTART, unit)
