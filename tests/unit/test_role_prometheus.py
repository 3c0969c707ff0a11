"""The targets that the role writes, by the real promtool and a real HAProxy."""

from __future__ import annotations

import re
import subprocess
import urllib.request
from pathlib import Path
from typing import Any

import yaml

from farrier.spec import HostSpec
from roles.prometheus import DEFAULTS, HAPROXY_KEPT, config_text
from tests.agent.host import until
from tests.tools import tool
from tests.unit.gateway_hosts import Host, gateway
from tests.unit.monitoring import HAPROXY_PAGE, names_on

GPU = HostSpec("gpu01", groups=("gpu",), address="198.18.0.11")
GATEWAY = HostSpec("gw01", groups=("gateway", "gpu"), address="fd00::5")


def jobs(*fleet: HostSpec, **data: Any) -> dict[str, Any]:
    config = yaml.safe_load(config_text(fleet, DEFAULTS.data() | data))
    return {one["job_name"]: one for one in config["scrape_configs"]}


def test_without_a_gateway_nothing_is_asked_for_haproxy() -> None:
    assert set(jobs(GPU)) == {"prometheus", "alertmanager", "node", "farrier-agent"}


def test_gateways_are_scraped_with_the_labels_of_the_inventory() -> None:
    found = jobs(GPU, GATEWAY, prometheus_haproxy_port=8500)["haproxy"]
    assert found["static_configs"] == [
        {"targets": ["[fd00::5]:8500"], "labels": {"host": "gw01", "groups": "gateway,gpu"}}
    ]


def test_promtool_accepts_it(tmp_path: Path) -> None:
    path = tmp_path / "prometheus.yml"
    path.write_text(config_text([GPU, GATEWAY], DEFAULTS.data()), encoding="utf-8")
    done = subprocess.run(
        [tool("promtool"), "check", "config", "--syntax-only", path],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_real_haproxy_has_what_is_kept_of_it(tmp_path: Path) -> None:
    """The recorded page is what rules and dashboards are held against."""
    scopes = "&".join(f"scope={one}" for one in jobs(GATEWAY)["haproxy"]["params"]["scope"])
    host = Host("gpu01")
    with gateway(tmp_path, [host], open_access=True) as one:
        # a check that has not ended yet has no duration
        until(lambda: one.servers("check_status")["tiny", "gpu01:tiny"] == "L7OK")
        url = f"http://127.0.0.1:{one.metrics_port}/metrics?{scopes}"
        with urllib.request.urlopen(url, timeout=10) as answer:
            names = names_on(answer.read().decode())
    host.end()
    assert {name for name in names if re.fullmatch(HAPROXY_KEPT, name)} == names_on(HAPROXY_PAGE)
