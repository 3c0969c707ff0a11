"""What Prometheus sees of the fleet, by its own tools and its own API."""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import quote

import pytest

from tests.roles.fleet import GPU_STATE, Fleet, until

MONITOR = "gw01"
HOSTS = ("gpu01", "gpu02", "gpu03", "gw01")


@pytest.mark.parametrize("host", HOSTS)
def test_promtool_has_nothing_to_say_about_an_agents_metrics(fleet: Fleet, host: str) -> None:
    """promtool and the way to the host are the monitor's own.

    What vLLM's own metrics are called is vLLM's affair: promtool takes their values and has
    something against their colon.
    """
    url = f"http://{fleet.addresses[host]}:9810/metrics"
    script = (
        f"curl -sf {url} > /tmp/page && wc -l < /tmp/page && promtool check metrics < /tmp/page"
    )
    done = fleet.lab.ssh(MONITOR, script, check=False)
    lines, *findings = (done.stdout + done.stderr).splitlines()
    assert int(lines) > 20
    assert [finding for finding in findings if not finding.startswith("vllm:")] == []
    assert done.returncode == (3 if findings else 0)


def test_the_real_vllms_own_metrics_are_on_the_agents_page(fleet: Fleet) -> None:
    """Of gpu01, which has it, with the labels of its replica in front of vLLM's own."""
    labels = '{replica="tiny",model="tiny",'

    def tokens() -> float:
        found = re.findall(
            rf"^vllm:generation_tokens_total{re.escape(labels)}[^}}]*}} (\S+)$",
            fleet.metrics("gpu01"),
            re.MULTILINE,
        )
        return sum(map(float, found))

    before = until(tokens, 30, "the warm-up's tokens are on the page")
    assert fleet.chat("gpu01", max_tokens=20).status == 200
    until(lambda: tokens() >= before + 20, 30, "another answer's tokens are, too")
    page = fleet.metrics("gpu01")
    assert f"\nvllm:num_requests_running{labels}" in page
    assert f"\nvllm:e2e_request_latency_seconds_bucket{labels}" in page
    assert "_created{" not in page
    assert page.count("\n# TYPE process_resident_memory_bytes ") == 1
    assert f"\nengine_process_resident_memory_bytes{labels[:-1]}}} " in page


def prometheus(fleet: Fleet, path: str) -> Any:
    answer = fleet.request(MONITOR, f"/api/v1/{path}", port=9090)
    assert answer.status == 200, answer.text
    return answer.json()["data"]


def test_prometheus_reaches_every_target_of_the_inventory(fleet: Fleet) -> None:
    expected = {
        ("prometheus", "localhost:9090"),
        ("alertmanager", "localhost:9093"),
        ("haproxy", f"{fleet.addresses['gw01']}:8405"),
    }
    for address in fleet.addresses.values():
        expected |= {("node", f"{address}:9100"), ("farrier-agent", f"{address}:9810")}

    def up() -> dict[tuple[str, str], str]:
        samples = prometheus(fleet, f"query?query={quote('up')}")["result"]
        return {
            (sample["metric"]["job"], sample["metric"]["instance"]): sample["value"][1]
            for sample in samples
        }

    # three scrapes: hosts were rebooted and agents restarted on the way here
    until(lambda: up() == dict.fromkeys(expected, "1"), 45, f"up == 1 for {sorted(expected)}")
    targets = prometheus(fleet, "targets?state=active")["activeTargets"]
    assert {(t["labels"]["job"], t["labels"]["instance"]) for t in targets} == expected
    hosts = {t["labels"]["host"] for t in targets if t["labels"]["job"] == "farrier-agent"}
    assert hosts == set(fleet.addresses)


def test_replicas_are_seen_from_the_monitor(fleet: Fleet) -> None:
    query = quote("farrier_replica_up * on (instance, replica) farrier_replica_gate_open")

    def serving() -> dict[str, str]:
        samples = prometheus(fleet, f"query?query={query}")["result"]
        return {sample["metric"]["instance"]: sample["value"][1] for sample in samples}

    wanted = {f"{fleet.addresses[host]}:9810": "1" for host in fleet.gpu_hosts}
    until(lambda: serving() == wanted, 45, f"every replica is up with an open gate: {wanted}")


def sample(text: str, name: str) -> float | None:
    found = re.search(rf"^{name}(?:{{[^}}]*}})? (\S+)$", text, re.MULTILINE)
    return float(found[1]) if found else None


def test_a_gpus_values_are_there_and_follow_the_driver(fleet: Fleet) -> None:
    """gpu02's NVML is a fake with a state file; the binding and all above it are real."""
    try:
        fleet.put(
            "gpu02",
            GPU_STATE,
            "count 1\n0.temperature 67\n0.power.usage 512500\n0.utilization.gpu 83\n"
            "0.memory.total 150754820096\n0.memory.used 75377410048\n0.clock.sm 1755\n",
        )
        until(
            lambda: sample(fleet.metrics("gpu02"), "farrier_gpu_temperature_celsius") == 67,
            10,
            "the temperature that the driver tells",
        )
        page = fleet.metrics("gpu02")
        assert sample(page, "farrier_gpus") == 1
        assert sample(page, "farrier_gpu_up") == 1
        assert sample(page, "farrier_gpu_power_watts") == 512.5
        assert sample(page, "farrier_gpu_utilization_ratio") == 0.83
        assert sample(page, "farrier_gpu_memory_total_bytes") == 150754820096
        assert sample(page, "farrier_gpu_memory_used_bytes") == 75377410048
        assert sample(page, "farrier_gpu_sm_clock_hertz") == 1755e6
        assert re.search(r"67 °C +51[23] W", fleet.ssh("gpu02", "farrier-agent status"))

        # what the driver does not know is absent, not 0
        fleet.put("gpu02", GPU_STATE, "count 1\n0.temperature N/A\n")
        until(
            lambda: sample(fleet.metrics("gpu02"), "farrier_gpu_temperature_celsius") is None,
            10,
            "no temperature",
        )
        assert sample(fleet.metrics("gpu02"), "farrier_gpu_up") == 1

        # a driver that went away takes no replica with it
        fleet.put("gpu02", GPU_STATE, "err.nvmlDeviceGetCount 1\nerr.nvmlInit 9\n")
        until(lambda: sample(fleet.metrics("gpu02"), "farrier_gpus") is None, 30, "no driver")
        assert not fleet.ready("gpu02")
        assert fleet.gate("gpu02")
        assert fleet.chat("gpu02").status == 200
    finally:
        fleet.put("gpu02", GPU_STATE, "count 1\n0.temperature 41\n")
    until(
        lambda: sample(fleet.metrics("gpu02"), "farrier_gpu_temperature_celsius") == 41,
        30,
        "the driver is back",
    )


@pytest.mark.parametrize("host", ["gpu01", "gpu03", "gw01"])
def test_a_host_without_a_gpu_says_so_and_works(fleet: Fleet, host: str) -> None:
    page = fleet.metrics(host)
    assert 'farrier_agent_info{accelerator="cpu"} 1\n' in page
    assert "farrier_gpu" not in page
    status = fleet.status(host)
    assert (status["accelerator"], status["gpus"]) == ("cpu", None)
    assert json.loads(fleet.request(host, "/readyz", port=9810).body)["ready"] is True
    assert fleet.request(host, "/livez", port=9810).status == 200
