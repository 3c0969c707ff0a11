"""A new version that is slower is put back by itself; the matrix is tests/full's."""

from __future__ import annotations

import json
from pathlib import Path

from tests.fleet.canaries import BUSY, SLOW, no_share_is_left, put_back
from tests.fleet.rolling import as_it_was, here, load, nothing_lost, warmed_up
from tests.fleet.site import Site

__all__ = ["as_it_was", "here", "no_share_is_left"]


def test_what_is_slower_is_put_back_by_itself_and_nothing_is_lost(site: Site, here: Path) -> None:
    with load(site, BUSY) as it:
        warmed_up(it)
        ledger = put_back(site, here, SLOW, "--canary", "25%", "--hold", "12s")
        nothing_lost(site, it)
    (compared,) = ledger["hosts"][0]["compared"]
    assert compared["replica"] == "gpu01:tiny"
    assert "of the times to the first token" in compared["why"]
    assert compared["canary"]["median"] > compared["rest"]["median"]
    shown = site.farrier("rollout", "show", cwd=here).stdout
    assert "the rest" in shown
    assert compared["why"] in shown
    # each gateway knows who gave the share, for which rollout
    for gateway in site.gateways:
        said = [
            json.loads(line)
            for line in site.farrier("audit", gateway, "--json").stdout.splitlines()
        ]
        verbs = [one["verb"] for one in said if one.get("rollout") == ledger["id"]]
        assert verbs == [f"share gpu01:tiny {percent}" for percent in (25, 0, 100)]
