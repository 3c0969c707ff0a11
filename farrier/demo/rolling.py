"""The demo's last phase: every engine is restarted, one host after another, while clients ask."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from farrier.demo.errors import DemoError
from farrier.demo.screen import Screen
from farrier.load import Background, Endpoint, EndpointError, Ledger, Plan, PlanError
from farrier.load.words import losses, summary

__all__ = ["COMMAND", "LOAD", "roll"]

COMMAND = ("rollout", "restart", "--yes")
LOAD = Plan(
    # Bounded: it ends when the rollout does, and by itself after half an hour.
    seconds=1800,
    streams=4,
    stream_seconds=(1, 8),
    most_tokens=256,
    posts=2,
    pause=1.0,
    fresh=0.5,
    uploads=1,
    patience=120,
)
"""Clients for three vLLMs that share two cores with the hosts, of which one is loading a model."""


def roll(
    screen: Screen, url: str, key: str, model: str, *, root: Path, environment: Mapping[str, str]
) -> dict[str, Any]:
    """Restart the fleet's engines under load; what its clients saw. Raises :class:`DemoError`."""
    command = [str(Path(sys.executable).with_name("farrier")), *COMMAND]
    try:
        plan = Plan(**{**vars(LOAD), "models": (model,)})
        with Background(plan, Endpoint(url, {"demo": key})) as load:
            done = subprocess.run(
                command, cwd=root, env=dict(environment), stdout=screen.descriptor, check=False
            )
            ledger = load.end()
    except (EndpointError, PlanError, OSError) as error:
        raise DemoError(f"the load could not be made: {error}", "make demo") from error
    screen.line("")
    for line in (*losses(ledger, 10), *summary(ledger)):
        screen.line(f"   {line}")
    if done.returncode:
        raise DemoError(
            f"the rollout ended with exit code {done.returncode}; its lines above name the host",
            "FARRIER_ENV=lab .venv/bin/farrier rollout show",
        )
    _nothing_lost(ledger)
    told: dict[str, Any] = ledger.to_json(requests=False)
    return json.loads(json.dumps(told, default=str))  # type: ignore[no-any-return]


def _nothing_lost(ledger: Ledger) -> None:
    outcomes = ledger.outcomes
    if ledger.lost or outcomes["unreached"] or outcomes["refused"]:
        raise DemoError(
            f"requests were not served: {ledger.lost} lost, {outcomes['refused']} refused,"
            f" {outcomes['unreached']} without a connection",
            ".venv/bin/farrier lab ssh gw01 -- sudo journalctl -n 50 -o cat -t haproxy",
        )
    if not outcomes["complete"]:
        raise DemoError("no request was served, so nothing was shown", "make demo")
