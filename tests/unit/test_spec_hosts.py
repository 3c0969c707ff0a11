"""What can be wrong with a host's data, whoever may use its models, and the report of it all."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from farrier.spec import (
    OPEN_ACCESS,
    ApiKey,
    HostSpec,
    Model,
    Place,
    Problem,
    read_fleet,
    read_host,
    report,
)
from farrier.spec.places import (
    argument_place,
    assignment_place,
    group_entry_place,
    host_entry_place,
)

KEY = "sk-farrier-0123456789abcdef"
TINY = Model("tiny", source="path:/srv/models/tiny", gpus=[0])


def read(data: dict[str, Any], root: Path = Path(), **more: Any) -> tuple[HostSpec, dict[str, str]]:
    spec, problems = read_host("gpu01", ["gpu", "lab", "gpu"], data, root=root, **more)
    return spec, {problem.field: problem.message for problem in problems}


def keys_file(directory: Path, text: str, mode: int = 0o600) -> Path:
    path = directory / "keys.toml"
    path.write_text(text)
    path.chmod(mode)
    return path


def test_a_host_is_read_into_its_spec(tmp_path: Path) -> None:
    keys_file(tmp_path, f'[keys]\nalice = "{KEY}"\n')
    spec, found = read(
        {
            "models": [TINY],
            "api_keys_file": "keys.toml",
            "ssh_hostname": "198.18.1.11",
            "nginx_port": 8443,
            "something_else": object(),
        },
        tmp_path,
    )
    assert found == {}
    assert spec == HostSpec(
        name="gpu01",
        groups=("gpu", "lab"),
        address="198.18.1.11",
        accelerator="cuda",
        models=(TINY,),
        api_keys={"alice": ApiKey.of("alice", KEY)},
        nginx_port=8443,
        agent_port=9810,
    )
    assert KEY not in repr(spec)


def test_a_host_without_data_is_fine() -> None:
    spec, found = read({})
    assert found == {}
    assert (spec.address, spec.models, spec.api_keys, spec.open_access) == ("gpu01", (), {}, False)


@pytest.mark.parametrize(
    ("data", "address"),
    [
        ({"address": "10.0.0.5", "ssh_hostname": "jump-alias"}, "10.0.0.5"),
        ({"ssh_hostname": "gpu01.example.com"}, "gpu01.example.com"),
        ({"address": "fd00::5"}, "fd00::5"),
    ],
)
def test_where_the_other_hosts_reach_it(data: dict[str, Any], address: str) -> None:
    spec, found = read(data)
    assert (spec.address, found) == (address, {})


@pytest.mark.parametrize(
    ("data", "field", "message"),
    [
        ({"accelerator": "gpu"}, "accelerator", "neither 'cuda' nor 'cpu'"),
        ({"accelerator": ["cuda"]}, "accelerator", "neither 'cuda' nor 'cpu'"),
        ({"models": TINY}, "models", "must be a list"),
        ({"models": "tiny"}, "models", "must be a list"),
        ({"models": ["tiny"], "open_access": OPEN_ACCESS}, "models[0]", "must be a Model(…)"),
        ({"nginx_port": "8080"}, "nginx_port", "port from 1 to 65535, not '8080'"),
        ({"agent_port": 70000}, "agent_port", "port from 1 to 65535"),
        ({"agent_port": 8080}, "agent_port", "8080 is nginx's port"),
        ({"nginx_port": 9090}, "nginx_port", "9090 is Prometheus' port"),
        ({"agent_check_port": 0}, "agent_check_port", "port from 1 to 65535, not 0"),
        ({"agent_check_port": 9810}, "agent_check_port", "9810 is the agent's port"),
        ({"agent_port": 9811}, "agent_check_port", "9811 is the agent's port"),
        ({"agent_address": "gpu01"}, "agent_address", "'gpu01' is no IP address"),
        ({"agent_tick": "5"}, "agent_tick", "must be seconds, more than 0, not '5'"),
        ({"agent_tick": True}, "agent_tick", "must be seconds"),
        ({"agent_settle_seconds": -1}, "agent_settle_seconds", "0 or more, not -1"),
        ({"agent_drain_seconds": 0}, "agent_drain_seconds", "more than 0, not 0"),
        ({"agent_drain_seconds": float("nan")}, "agent_drain_seconds", "more than 0"),
        ({"agent_drain_policy": "abrt"}, "agent_drain_policy", "did you mean 'abort'?"),
        ({"agent_warm_up_seconds": float("inf")}, "agent_warm_up_seconds", "more than 0"),
        ({"agent_collectors_off": ["gpus"]}, "agent_collectors_off", "did you mean 'gpu'"),
        ({"agent_collectors_off": "gpu"}, "agent_collectors_off", "must be a list"),
        ({"agent_observe_only": ["gpu-los"]}, "agent_observe_only", "did you mean 'gpu-lost'"),
        ({"agent_fabric": "yes"}, "agent_fabric", "is none of"),
        ({"agent_web_config": "/nowhere/web.yml"}, "agent_web_config", "cannot be read"),
        ({"agent_wedged_seconds": float("inf")}, "agent_wedged_seconds", "must be seconds"),
        ({"agent_settle_seconds": 1e9}, "agent_settle_seconds", "a week at the most"),
        ({"agent_wedged_seconds": None}, "agent_wedged_seconds", "more than 0, not None"),
        ({"agent_notices": "AWS"}, "agent_notices", "none of 'aws', 'gcp', 'azure'"),
        ({"agent_notices_address": "metadata"}, "agent_notices_address", "is not address:port"),
        ({"agent_nvml_library": "nvml.so"}, "agent_nvml_library", "absolute path"),
        ({"agent_nvml_library": "/a b'; rm"}, "agent_nvml_library", "absolute path"),
        ({"engine_drain_policy": "abort"}, "engine_drain_policy", "none of 'extend', 'force'"),
        ({"engine_drain_seconds": "900"}, "engine_drain_seconds", "more than 0, not '900'"),
        ({"address": "10.0.0.5:22"}, "address", "no host name or IP address"),
        ({"address": "a b"}, "address", "no host name or IP address"),
        ({"model": []}, "model", "did you mean 'models'?"),
        ({"open_acess": OPEN_ACCESS}, "open_acess", "did you mean 'open_access'?"),
        ({"vllm_verison": "1"}, "vllm_verison", "did you mean 'vllm_version'?"),
        ({"ssh_prot": 22}, "ssh_prot", "did you mean 'ssh_port'?"),
    ],
)
def test_a_mistake_is_named(data: dict[str, Any], field: str, message: str) -> None:
    _, found = read(data, known=["vllm_version", "ssh_port"])
    assert message in found[field]
    assert len(found) == 1


def test_what_is_said_of_the_agent_is_read() -> None:
    said = {
        "agent_check_port": 9911,
        "agent_settle_seconds": 0,
        "agent_drain_seconds": 60,
        "agent_drain_policy": "abort",
        "agent_warm_up_seconds": None,
        "agent_notices": "azure",
        "agent_notices_address": "[::1]:8169",
        "agent_nvml_library": "/opt/nvml/libnvidia-ml.so.1",
        "agent_collectors_off": ["engine"],
        "agent_observe_only": ["gpu-lost"],
        "agent_fabric": "none",
    }
    spec, found = read(said)
    assert found == {}
    assert {f"agent_{name}": value for name, value in asdict(spec.agent).items()} == {
        **said,
        "agent_collectors_off": ("engine",),
        "agent_observe_only": ("gpu-lost",),
        "agent_wedged_seconds": 25.0,
        "agent_silent_seconds": 300.0,
    }


def test_a_port_for_gateways_is_of_hosts_that_serve() -> None:
    spec, problems = read_host("gw01", ["monitor"], {"agent_port": 9811})
    assert (spec.agent_port, problems) == (9811, [])


def test_models_belong_to_group_gpu() -> None:
    _, problems = read_host("gw01", ["gateway"], {"models": [TINY], "open_access": OPEN_ACCESS})
    assert [problem.field for problem in problems] == ["models"]
    assert "group gpu" in problems[0].message


def test_an_engine_does_not_take_sshds_port() -> None:
    model = Model("a", source="path:/m", gpus=[0], port=2222)
    _, found = read({"models": [model], "open_access": OPEN_ACCESS, "ssh_port": 2222})
    assert found == {"models[0].port": "2222 is sshd's port; pick another, e.g. 8101"}


# who may use the models


def test_somebody_has_to_say_who_may_use_the_models() -> None:
    _, found = read({"models": [TINY]})
    assert list(found) == ["api_keys_file"]
    assert OPEN_ACCESS in found["api_keys_file"]


def test_somebody_has_to_say_who_may_use_the_fleets_models_through_a_gateway() -> None:
    for data in ({}, {"nginx_port": 8443}):
        _, problems = read_host("gw01", ["gateway"], data)
        assert [problem.field for problem in problems] == ["api_keys_file"]
        assert "who may use the fleet's models?" in problems[0].message
    spec, problems = read_host("gw01", ["gateway"], {"open_access": OPEN_ACCESS})
    assert (spec.open_access, problems) == (True, [])


@pytest.mark.parametrize(
    ("data", "field", "message"),
    [
        ({"nginx_clients": "gateway"}, "nginx_clients", "did you mean 'gateways'?"),
        ({"nginx_clients": ["keys"]}, "nginx_clients", "neither 'gateways' nor 'keys'"),
        ({"nginx_gateways": "198.51.100.1"}, "nginx_gateways", "must be a list"),
        ({"nginx_gateways": ["::1", "gw01"]}, "nginx_gateways[1]", "'gw01' is no IP address"),
        ({"nginx_gateways": ["198.51.100.1/28"]}, "nginx_gateways[0]", "is no IP address and"),
        ({"nginx_gateways": ["0.0.0.0/0"]}, "nginx_gateways[0]", "is no IP address and"),
        ({"nginx_gateways": [1]}, "nginx_gateways[0]", "is no IP address and"),
    ],
)
def test_who_is_let_in_is_said_in_words_and_addresses(
    data: dict[str, Any], field: str, message: str
) -> None:
    _, found = read({"models": [TINY], "open_access": OPEN_ACCESS, **data})
    assert list(found) == [field]
    assert message in found[field]


class Data:
    """Host data, as pyinfra has it."""

    def __init__(self, **data: Any) -> None:
        self._data = data

    def dict(self) -> dict[str, Any]:
        return self._data


class Host:
    """A host of an inventory."""

    def __init__(self, name: str, group: str, **data: Any) -> None:
        self.name = name
        self.groups = [group]
        self.data = Data(open_access=OPEN_ACCESS, **data)


def test_a_host_that_lets_in_gateways_only_needs_some() -> None:
    gpu = Host("gpu01", "gpu", nginx_clients="gateways")
    [problem] = read_fleet([gpu]).problems
    assert (problem.host, problem.field) == ("gpu01", "nginx_clients")
    assert "would let nobody in" in problem.message
    assert read_fleet([gpu, Host("gw01", "gateway")]).problems == ()
    named = Host("gpu01", "gpu", nginx_clients="gateways", nginx_gateways=["192.0.2.1"])
    assert read_fleet([named]).problems == ()


def test_open_access_is_said_in_these_words_only() -> None:
    spec, found = read({"models": [TINY], "open_access": OPEN_ACCESS})
    assert (spec.open_access, spec.api_keys, found) == (True, {}, {})
    for wrong in (True, "yes", OPEN_ACCESS.upper()):
        spec, found = read({"models": [TINY], "open_access": wrong})
        assert list(found) == ["open_access"]
        assert not spec.open_access


def test_keys_and_open_access_exclude_each_other(tmp_path: Path) -> None:
    file = keys_file(tmp_path, f'[keys]\nalice = "{KEY}"\n')
    _, found = read({"models": [TINY], "open_access": OPEN_ACCESS, "api_keys_file": str(file)})
    assert "not both" in found["api_keys_file"]


@pytest.mark.parametrize("given", [7, "", ["keys.toml"]])
def test_the_keys_file_is_a_path(given: Any) -> None:
    _, found = read({"models": [TINY], "api_keys_file": given})
    assert "must be the path" in found["api_keys_file"]


def test_the_keys_file_may_be_in_the_operators_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    keys_file(tmp_path, f'[keys]\nalice = "{KEY}"\n')
    spec, found = read({"models": [TINY], "api_keys_file": "~/keys.toml"}, Path("/nowhere"))
    assert (dict(spec.api_keys), found) == ({"alice": ApiKey.of("alice", KEY)}, {})


# where it was written, and the report

INVENTORY = """\
from farrier.spec import Model

gpu = ([
    "gpu01",
    ("gpu02", {
        "ssh_port": 2222,
        "models": [
            Model(
                "a",
                port=8080,
                args={
                    "host": "::",
                },
            ),
        ],
    }),
    ("gpu03", dict(
        ssh_port=2222,
    )),
], {
    "accelerator": "cpu",
})
nginx_port = 80
nginx_port: int = 81
"""


def test_places_are_found_to_the_line(tmp_path: Path) -> None:
    file = tmp_path / "site.py"
    file.write_text(INVENTORY)
    name = str(file)
    call = Place(name, 8)
    assert argument_place(call, "port").line == 10
    assert argument_place(call, "args.host").line == 12
    assert argument_place(call, "args").line == 11
    assert argument_place(call, "gpus") == call
    assert host_entry_place(name, "gpu02", "ssh_port") == Place(name, 6)
    assert host_entry_place(name, "gpu03", "ssh_port") == Place(name, 18)
    assert host_entry_place(name, "gpu02", "address") == Place(name, 5)
    assert host_entry_place(name, "gpu01", "address") == Place(name, 4)
    assert host_entry_place(name, "gpu99", "address") is None
    assert group_entry_place(name, "gpu", "accelerator") == Place(name, 21)
    assert group_entry_place(name, "gpu", "address") is None
    assert assignment_place(name, "nginx_port") == Place(name, 24)
    assert assignment_place(name, "agent_port") is None
    assert assignment_place(str(tmp_path / "absent.py"), "x") is None


def test_the_report_says_everything_once() -> None:
    problems = [
        Problem("inventory/group_data/gpu.py", 12, host, "models[0].port", "8080 is nginx's port")
        for host in ("gpu01", "gpu02", "gpu03", "gpu04", "gpu05", "gpu06")
    ]
    problems.append(Problem("inventory/production.py", 3, "gpu02", "address", "no address"))
    assert report(problems) == (
        "2 problems in the inventory, nothing was touched:\n"
        "  inventory/group_data/gpu.py:12  gpu01,gpu02,gpu03,gpu04,+2  "
        "models[0].port: 8080 is nginx's port\n"
        "  inventory/production.py:3       gpu02                       address: no address"
    )
    assert report(problems[:1]).startswith("1 problem in the inventory, nothing was touched:\n")
