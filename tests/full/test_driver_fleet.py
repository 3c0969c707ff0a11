"""A fleet with drivers after its converge: who serves, what is told, its fingerprints (10 min)."""

from __future__ import annotations

import json
import re
from typing import Any

from tests.driver_fleet.conftest import site
from tests.driver_fleet.site import GPUS, OLD, DriverSite, installed, loaded
from tests.roles.fleet import until

__all__ = ["site"]


def test_every_host_serves_with_the_driver_that_the_inventory_names(site: DriverSite) -> None:
    for host in site.gpus:
        assert installed(site, host) == OLD
        assert loaded(site, host) == OLD
        assert site.unit(host, "nvidia-fabricmanager", "ActiveState") == "active"
        assert site.unit(host, "nvidia-persistenced", "ActiveState") == "active"
    assert site.chat(site.gateways[0]).status == 200
    again = site.converge(timeout=900)
    assert again.returncode == 0, again.last_words()
    assert [again.changed(host) for host in site.gpus] == [[], [], []]


def test_the_agents_tell_the_driver(site: DriverSite) -> None:
    for host in site.gpus:
        assert site.status(host)["gpus"]["driver_version"] == OLD
    table = site.farrier("status").stdout
    assert "tiny 3 of 3 ready" in table


def told(said: str) -> dict[str, dict[str, Any]]:
    """What ``--json`` printed, by host."""
    return {one["host"]: one for one in map(json.loads, said.splitlines())}


def test_fingerprints_over_ssh(site: DriverSite) -> None:
    done = site.farrier("fingerprint", "record", "--seconds", "3", "--json", timeout=120)
    recorded = told(done.stdout)
    assert sorted(recorded) == site.gpus
    for one in recorded.values():
        assert one["now"]["driver_version"] == OLD
        assert len(one["now"]["gpus"]) == GPUS
        (speed,) = one["now"]["speeds"]
        assert speed["replica"] == "tiny"
        assert speed["others"] == 0
    much = ("--tolerance", "0.9")  # this machine has other things to do
    site.farrier("fingerprint", "check", "--seconds", "3", *much, timeout=120)
    done = site.farrier("fingerprint", "compare", *much)
    assert "3 hosts compared: nothing stands out" in done.stdout
    assert len(re.findall(r"^gpu0[123]/tiny: .* its twins$", done.stdout, re.MULTILINE)) == 3


def test_fingerprints_say_what_is_different(site: DriverSite) -> None:
    """A riser at x8 on gpu02; a host whose agent does not answer is told, and the rest compared."""
    with site.now("gpu02", "5.pcie.width 8"):
        done = site.farrier("fingerprint", "check", "--seconds", "0", "--json", check=1)
        (found,) = told(done.stdout)["gpu02"]["differences"]
        assert found["what"].endswith("pcie width")
        assert (found["was"], found["now"]) == ("16", "8")
        assert not told(done.stdout)["gpu01"]["differences"]
        plain = site.farrier("fingerprint", "check", "gpu02", "--seconds", "0", check=1).stdout
        assert (
            "gpu02  changed: GPU 5 (GPU-fa4e0000-0000-4000-8000-000000000005) pcie width" in plain
        )
    site.root("gpu03", "systemctl stop farrier-agent")
    try:
        done = site.farrier("fingerprint", "check", "--seconds", "0", check=1)
        assert "gpu03" in done.stderr
        assert "gpu01  as it was recorded at " in done.stdout
    finally:
        site.root("gpu03", "systemctl start farrier-agent")
        until(lambda: site.ready("gpu03"), 60, "gpu03 serves")
