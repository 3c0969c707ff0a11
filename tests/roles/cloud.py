"""A host whose agent believes in a cloud: the stand-in of tests/fakes/metadata, on that host."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.fakes.metadata import metadata
from tests.roles.agent_toml import other_settings
from tests.roles.fleet import Fleet, until

__all__ = ["Cloud", "cloud"]

PORT = 9899
_PROGRAM = "/opt/fake-metadata/metadata.py"


class Cloud:
    """The metadata service of *host*."""

    def __init__(self, fleet: Fleet, host: str) -> None:
        self._fleet, self._host = fleet, host

    def says(self, **state: Any) -> None:
        """Announce; see tests/fakes/metadata for the fields."""
        body = json.dumps(state).replace('"', '\\"')
        said = self._fleet.root(self._host, f'curl -sSf -d "{body}" 127.0.0.1:{PORT}/state')
        assert json.loads(said).items() >= state.items()

    def reclaims(self, seconds: float) -> None:
        """AWS takes a spot instance back in so many *seconds*."""
        at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + seconds))
        self.says(spot={"action": "terminate", "time": at})


@contextmanager
def cloud(fleet: Fleet, host: str, name: str = "aws") -> Iterator[Cloud]:
    """The agent of *host* watches the notices of the cloud *name* while the block runs."""
    fleet.put_bytes(host, _PROGRAM, Path(metadata.__file__).read_bytes())
    run = f"systemd-run -q -u fake-metadata python3 {_PROGRAM} --port {PORT}"
    fleet.root(host, f"systemctl stop fake-metadata 2>/dev/null; {run}")
    address = f"127.0.0.1:{PORT}"
    try:
        with other_settings(fleet, host, notices=name, notices_address=address):
            until(lambda: _token(fleet, host), 30, "the agent asks the metadata service")
            yield Cloud(fleet, host)
    finally:
        fleet.root(host, "systemctl stop fake-metadata", check=False)


def _token(fleet: Fleet, host: str) -> bool:
    said = fleet.root(host, f"curl -sS 127.0.0.1:{PORT}/state", check=False)
    return bool(said) and json.loads(said)["tokens"] > 0
