"""agent.toml: what is written is read back, and what is wrong is refused by its name."""

from __future__ import annotations

import tempfile
import tomllib
from pathlib import Path

import pytest
import tomli_w
from farrier_agent.config import AgentConfig, ConfigError, Replica, dumps, load, loads
from hypothesis import example, given
from hypothesis import strategies as st

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
        (('engine = "vllm"', 'engine = "vlm"'), "unknown engine 'vlm' (known: llama_cpp, "),
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


VALUES = st.one_of(
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(),
    st.text(max_size=30),
    st.lists(st.integers(0, 9) | st.text(max_size=5), max_size=3),
    st.dictionaries(st.text(max_size=5), st.integers(0, 9), max_size=2),
)
"""What TOML can say."""
FIELDS = st.sampled_from(sorted({*AgentConfig.__struct_fields__, *Replica.__struct_fields__}))


@given(FIELDS, VALUES)
@example("listen", "[::1%eth0]:9810")
@example("bus", "/run/\x00")
@example("tick", float("nan"))
@example("drain_seconds", float("inf"))
def test_nonsense_in_a_field_is_refused_by_its_name_or_means_something(
    field: str, value: object
) -> None:
    data = tomllib.loads(GOOD)
    inside = data["replicas"][0] if field in Replica.__struct_fields__ else data
    inside[field] = value
    refused = ""
    try:
        config = loads(tomli_w.dumps(data))
    except ConfigError as error:
        refused = str(error)
    if refused:
        assert field in refused
    else:
        assert loads(dumps(config)) == config


@given(st.binary(max_size=300) | st.text(max_size=300).map(str.encode))
@example(b"\xff\xfe")
@example(b"[" * 50_000)
@example(b"a." * 20_000 + b"b = 1")
@example(b"x = " + b"[" * 5_000)
def test_a_file_of_nonsense_is_refused_and_named(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "agent.toml"
        path.write_bytes(data)
        with pytest.raises(ConfigError, match=r"agent\.toml: "):
            load(path)
