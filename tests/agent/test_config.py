"""agent.toml: what is written is read back, and what is wrong is refused by its name."""

from __future__ import annotations

from pathlib import Path

import pytest
from farrier_agent.config import AgentConfig, ConfigError, Replica, dumps, load, loads

FULL = AgentConfig(
    host="gpu01",
    accelerator="cuda",
    listen="[::1]:9811",
    nvml_library="/opt/nvml/libnvidia-ml.so.1",
    tick=2.5,
    replicas=[
        Replica(
            name=name,
            model="org/Tiny-1.0",
            engine="vllm",
            unit=f"engine-{name}.service",
            port=port,
            gpus=[0, 1],
            config_hash="f" * 64,
        )
        for name, port in (("tiny-0", 8101), ("tiny-1", 8102))
    ],
)

GOOD = """
host = "gpu01"
accelerator = "cpu"
[[replicas]]
name = "tiny"
model = "tiny"
engine = "vllm"
unit = "engine-tiny.service"
port = 8101
config_hash = "abc"
"""


@pytest.mark.parametrize("config", [FULL, AgentConfig(host="gw01", accelerator="cpu")])
def test_what_the_operator_writes_the_agent_reads(config: AgentConfig) -> None:
    assert loads(dumps(config)) == config


def test_the_least_that_is_needed() -> None:
    config = loads(GOOD)
    assert config.listen == "0.0.0.0:9810"
    assert config.replicas[0].gpus == []
    assert config.run_dir == "/run/farrier/agent"


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (("port = 8101", "port = 0"), "$.replicas[0].port"),
        (("port = 8101", 'port = "8101"'), "$.replicas[0].port"),
        (('name = "tiny"', 'name = "../tiny"'), "$.replicas[0].name"),
        (('name = "tiny"', 'name = "Tiny"'), "$.replicas[0].name"),
        (('config_hash = "abc"', ""), "config_hash"),
        (('host = "gpu01"', ""), "host"),
        (('host = "gpu01"', 'host = "gpu01"\nhots = 1'), "hots"),
        (('accelerator = "cpu"', 'accelerator = "rocm"'), "$.accelerator"),
        (('engine = "vllm"', 'engine = "vlm"'), "unknown engine 'vlm' (known: openai, vllm)"),
        (('host = "gpu01"', 'host = "gpu01"\ntick = 0'), "$.tick"),
        (('host = "gpu01"', 'host = "gpu01"\nlisten = "9810"'), "listen: '9810'"),
        (('host = "gpu01"', 'host = "gpu01"\nlisten = "gw01:9810"'), "listen: 'gw01:9810'"),
        (('host = "gpu01"', 'host = "gpu01"\nlisten = "0.0.0.0:70000"'), "listen: '0.0.0.0:70000'"),
        (('host = "gpu01"', 'host = "gpu01"\ngate_dir = "open"'), "gate_dir 'open'"),
        (('host = "gpu01"', 'host = "gpu01"\nschema = 2'), "schema 2 is newer"),
        (('host = "gpu01"', 'host = "gpu01'), "not valid TOML"),
    ],
)
def test_what_is_wrong_is_named(change: tuple[str, str], complaint: str) -> None:
    wrong = GOOD.replace(*change)
    assert wrong != GOOD
    with pytest.raises(ConfigError) as caught:
        loads(wrong, "/etc/farrier/agent.toml")
    assert complaint in str(caught.value)
    assert str(caught.value).startswith("/etc/farrier/agent.toml: ")


@pytest.mark.parametrize("field", ["name", "unit", "port"])
def test_two_replicas_share_nothing(field: str) -> None:
    other = GOOD[GOOD.index("[[") :]
    for kept, changed in (
        ('name = "tiny"', 'name = "other"'),
        ('unit = "engine-tiny.service"', 'unit = "engine-other.service"'),
        ("port = 8101", "port = 8102"),
    ):
        if not kept.startswith(field):
            other = other.replace(kept, changed)
    with pytest.raises(ConfigError, match=f"two replicas have the {field} "):
        loads(GOOD + other)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        load(tmp_path / "agent.toml")
