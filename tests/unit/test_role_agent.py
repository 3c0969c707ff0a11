"""What the role agent writes: agent.toml, its units, and polkit's rule."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import pytest
from farrier_agent.config import AgentConfig, dumps, loads

from farrier.spec import AgentSettings, HostSpec, Model
from roles import agent, engine

TINY = Model("tiny", source="path:/srv/models/tiny", gpus=[0])
BGE = Model("BAAI/bge", replica="bge-m3", engine="custom", command=["/x"], gpus=[1], port=8102)
GPU = HostSpec("gpu01", groups=("gpu",), models=(TINY, BGE))
MONITOR = HostSpec("gw01", groups=("monitor",))
SETTINGS = agent.DEFAULTS.data()
DRAINS = engine.DEFAULTS.data()


def config(spec: HostSpec = GPU, *, gateways: bool = False, **drains: Any) -> AgentConfig:
    hashes = {model.replica: "a" * 64 for model in spec.models}
    made = agent.agent_config(spec, SETTINGS, hashes, DRAINS | drains, gateways=gateways)
    # as it arrives: types and bounds are checked where it is read
    return loads(dumps(made))


def settings(spec: HostSpec = GPU, **fields: Any) -> HostSpec:
    return replace(spec, agent=AgentSettings(**fields))


def test_what_the_agent_is_told_of_a_host_by_default() -> None:
    told = config()
    assert (told.listen, told.check_listen) == ("0.0.0.0:9810", "0.0.0.0:9811")
    assert told.control_group == "farrier"
    assert [one.name for one in told.replicas] == ["tiny", "bge-m3"]
    assert [one.engine for one in told.replicas] == ["vllm", "openai"]
    assert (told.drain_seconds, told.drain_policy) == (900, "extend")
    assert (told.warm_up_seconds, told.wedged_seconds) == (1800, 25)
    assert told.notices is None


def test_adapters_are_warmed_up_and_counted() -> None:
    adapted = Model("tiny", source="path:/m", gpus=[0], lora={"law": "path:/a", "go": "path:/b"})
    told = config(replace(GPU, models=(adapted, BGE)))
    assert [one.adapters for one in told.replicas] == [["law", "go"], []]
    gateway = HostSpec("gw01", groups=("gateway",))
    fleet = (replace(GPU, models=(adapted, BGE)), gateway)
    made = agent.agent_config(gateway, SETTINGS, {}, DRAINS, gateways=True, fleet=fleet)
    assert made.gateway_models == ["BAAI/bge", "go", "law", "tiny"]


def test_a_host_without_models_is_asked_by_no_gateway() -> None:
    told = config(MONITOR)
    assert (told.accelerator, told.check_listen, told.replicas) == ("cpu", None, [])


def test_settling_is_for_gateways() -> None:
    assert config().settle_seconds == 0
    assert config(gateways=True).settle_seconds == 3
    assert config(settings(settle_seconds=0), gateways=True).settle_seconds == 0
    assert config(settings(settle_seconds=7.5)).settle_seconds == 7.5


def test_drains_are_the_units_unless_the_agents_own_are_said() -> None:
    told = config(engine_drain_seconds=300, engine_drain_policy="force")
    assert (told.drain_seconds, told.drain_policy) == (300, "force")
    own = settings(drain_seconds=60, drain_policy="abort")
    told = config(own, engine_drain_seconds=300, engine_drain_policy="force")
    assert (told.drain_seconds, told.drain_policy) == (60, "abort")


def test_an_engine_may_take_as_long_as_the_most_patient_model() -> None:
    slow = replace(GPU, models=(TINY, Model("a", source="path:/m", start_timeout=7200, port=8103)))
    assert config(slow).warm_up_seconds == 7200
    # a converge that gives up soon is no reason to give an engine up
    hasty = replace(GPU, models=(Model("a", source="path:/m", start_timeout=2),))
    assert config(hasty).warm_up_seconds == 1800
    assert config(settings(slow, warm_up_seconds=90)).warm_up_seconds == 90


def test_notices_and_the_rest_are_passed_on() -> None:
    told = config(
        settings(
            notices="gcp",
            notices_address="127.0.0.1:8169",
            wedged_seconds=40,
            check_port=9911,
            nvml_library="/opt/x/libnvidia-ml.so.1",
        )
    )
    assert (told.notices, told.notices_address) == ("gcp", "127.0.0.1:8169")
    assert (told.wedged_seconds, told.check_listen) == (40, "0.0.0.0:9911")
    assert told.nvml_library == "/opt/x/libnvidia-ml.so.1"
    # the clouds' own address is the agent's default, said in one place
    assert (
        config(settings(notices="aws")).notices_address
        == AgentConfig(host="x", accelerator="cpu").notices_address
    )


def test_an_address_of_ipv6() -> None:
    made = agent.agent_config(
        MONITOR, SETTINGS | {"agent_address": "::"}, {}, DRAINS, gateways=False
    )
    assert loads(dumps(made)).listen == "[::]:9810"


def test_the_rule_names_this_hosts_units_and_no_pattern() -> None:
    rule = agent.rules_text(GPU)
    lists = [json.loads(found) for found in re.findall(r"= (\[.*\]);", rule)]
    assert lists == [
        ["engine-tiny.service", "engine-bge-m3.service"],
        ["farrier-evidence@tiny.service", "farrier-evidence@bge-m3.service"],
    ]
    # a unit that systemd 257 makes up on the spot is a "start", too
    assert "polkit.message" in rule
    assert rule.count("Result.YES") == 2
    assert "[]" in agent.rules_text(replace(GPU, models=()))


@pytest.mark.parametrize("accelerator", ["cpu", "cuda"])
def test_gpus_are_the_only_devices(accelerator: Any) -> None:
    spec = replace(GPU, accelerator=accelerator)
    for text in (agent.unit_text(spec, "/opt/x"), agent.evidence_text(spec)):
        lines = text.splitlines()
        assert ("PrivateDevices=yes" in lines) == (accelerator == "cpu")
        assert ("DevicePolicy=closed" in lines) == (accelerator == "cuda")
        allowed = [line for line in lines if line.startswith("DeviceAllow=")]
        assert all(re.search("195|nvidia|/dev/kmsg r$", line) for line in allowed)
    # a monitor has no GPU, whatever its accelerator is by default
    assert "PrivateDevices=yes" in agent.unit_text(MONITOR, "/opt/x").splitlines()


def test_what_the_agents_unit_may_write_and_who_it_is() -> None:
    lines = agent.unit_text(GPU, "/opt/farrier/agent/1").splitlines()
    places = "/run/farrier /var/lib/farrier/replicas /var/lib/farrier/agent"
    assert f"ReadWritePaths={places}" in lines
    assert "ReadWritePaths=/var/lib/farrier/rollout" in lines
    # of a host without a GPU the kernel's log tells nothing that is asked for
    on_cpu = agent.unit_text(replace(GPU, accelerator="cpu"), "/opt/x").splitlines()
    for text, capability in ((lines, "CAP_SYSLOG"), (on_cpu, "")):
        assert f"CapabilityBoundingSet={capability}" in text
        assert f"AmbientCapabilities={capability}" in text
        assert ("ProtectKernelLogs=yes" in text) == (not capability)
    assert "SupplementaryGroups=farrier systemd-journal www-data" in lines
    reloads = [line.partition("=")[2] for line in lines if line.startswith("ExecReload=")]
    assert reloads == [
        "/opt/farrier/agent/1/bin/farrier-agent check-config /etc/farrier/agent.toml",
        "/bin/kill -HUP $MAINPID",
    ]


def test_what_the_evidence_unit_may_write() -> None:
    lines = agent.evidence_text(GPU).splitlines()
    assert [line for line in lines if line.startswith("ReadWritePaths=")] == [
        "ReadWritePaths=/var/lib/farrier/evidence"
    ]
    (start,) = (line for line in lines if line.startswith("ExecStart="))
    assert start.endswith("evidence %i --why-file /run/farrier/agent/evidence-%i")
    assert any(re.fullmatch(r"TimeoutStartSec=\d+", line) for line in lines)


def test_a_gateways_agent_counts_for_the_models_of_the_fleet() -> None:
    gateway = HostSpec("gw01", groups=("gateway",))
    made = agent.agent_config(
        gateway,
        SETTINGS,
        {},
        DRAINS,
        gateways=True,
        fleet=[GPU, replace(GPU, name="gpu02"), gateway],
        gateway_tls="127.0.0.1:443",
    )
    told = loads(dumps(made))
    assert told.gateway_socket == "/run/farrier/agent/gateway.sock"
    assert (told.gateway_user, told.gateway_models) == ("haproxy", ["BAAI/bge", "tiny"])
    assert told.gateway_tls == "127.0.0.1:443"
    assert told.requests_socket is None


def test_a_host_that_is_no_gateway_is_told_of_none() -> None:
    told = config()
    assert (told.gateway_socket, told.gateway_models, told.gateway_tls) == (None, [], None)
    assert "gateway.sock" in agent.unit_text(GPU, "/opt/x"), "left by a gateway of before"
