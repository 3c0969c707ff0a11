"""Units of a replica whose hosts are joined by Ray: its nodes, the engine that waits for them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from farrier_agent.config import dumps, loads

from farrier.spec import HostSpec, Model, read_fleet
from farrier.spec.check_model import check_model
from farrier.spec.ray import session
from farrier.wheelhouse import split_lock, with_lock
from roles import engine
from roles.agent import DEFAULTS as AGENT
from roles.agent import agent_config
from roles.engine.commands import argv, environment
from roles.vllm import DEFAULTS, LOCKS, NODE, RAY_LOCK, ray_node, vllm_environment
from tests.unit.test_spec_spanning import Host

PROGRAM = "/opt/farrier/vllm/0.32.0-abcdef01"
SETTINGS = engine.DEFAULTS.data()
RAY = {"distributed-executor-backend": "ray"}
BIG: dict[str, Any] = {
    "name": "big",
    "source": "path:/srv/models/big",
    "gpus": [0, 1],
    "hosts": ["gpu01", "gpu02"],
    "args": RAY,
}


@pytest.fixture
def token(tmp_path: Path) -> str:
    file = tmp_path / "ray.token"
    file.write_text("t" * 64)
    file.chmod(0o600)
    return str(file)


@pytest.fixture
def hosts(token: str) -> dict[str, HostSpec]:
    it = read_fleet(
        [
            Host("gpu01", Model(**BIG), ray_token_file=token),
            Host("gpu02", ray_token_file=token),
        ]
    )
    assert it.problems == ()
    return dict(it.hosts)


def problems(*hosts: Host) -> list[tuple[str, str]]:
    return [(one.field.rpartition(".")[2], one.message) for one in read_fleet(hosts).problems]


def text(spec: HostSpec, replica: str) -> str:
    model = next(one for one in spec.carried if one.replica == replica)
    return engine.unit_text(model, spec, SETTINGS, PROGRAM)


def lines(text: str, beginning: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith(beginning)]


def test_each_host_has_a_node_and_the_head_the_engine_too(hosts: dict[str, HostSpec]) -> None:
    units = {name: [one.unit for one in spec.carried] for name, spec in hosts.items()}
    assert units == {
        "gpu01": ["engine-big.service", "engine-big-ray.service"],
        "gpu02": ["engine-big-ray.service"],
    }
    assert hosts["gpu01"].ranks["big-ray"].number == 0
    assert hosts["gpu02"].ranks["big-ray"].number == 1


def test_a_node_says_where_it_is_what_it_has_and_which_ports_it_takes(
    hosts: dict[str, HostSpec],
) -> None:
    for number, spec in enumerate(hosts.values()):
        words = argv(spec.members[0], spec, SETTINGS, PROGRAM)
        words = words[words.index(f"{PROGRAM}/bin/python") :]
        assert words[1:3] == [NODE, "run"]
        options = ray_node.parse(words[2:])
        assert options.command[0] == "start"
        flags = dict(zip(options.command, options.command[1:], strict=False))
        assert flags["--node-ip-address"] == f"192.0.2.{number + 1}"
        assert flags["--num-gpus"] == "2"
        ports = {int(flags[flag]) for flag in flags if flag.endswith("-port")}
        assert {port for port in ports if port not in range(29501, 29601)} == set()
        assert len(ports) == (8 if number else 9)
        assert "--block" in options.command
        assert "--disable-usage-stats" in options.command
        assert int(flags["--object-store-memory"]) == 512 << 20
        if number:
            assert flags["--address"] == "192.0.2.1:29501"
            assert "--head" not in options.command
        else:
            assert (flags["--port"], flags["--include-dashboard"]) == ("29501", "false")
            assert options.hosts == {"gpu01": "192.0.2.1", "gpu02": "192.0.2.2"}
            assert options.gpus == 2


def test_the_engine_is_on_the_head_and_begins_when_all_are_there(
    hosts: dict[str, HostSpec],
) -> None:
    head = hosts["gpu01"]
    words = argv(head.models[0], head, SETTINGS, PROGRAM)
    options = ray_node.parse(words[2:])
    assert (options.verb, options.address, options.gpus) == ("wait", "192.0.2.1:29501", 2)
    command = options.command
    assert command[:3] == [f"{PROGRAM}/bin/python", "-m", "vllm.entrypoints.openai.api_server"]
    for flag in ("--nnodes", "--node-rank", "--master-addr", "--headless"):
        assert flag not in command
    assert command[command.index("--distributed-executor-backend") + 1] == "ray"
    assert command[command.index("--pipeline-parallel-size") + 1] == "2"
    assert environment(head.models[0], head, PROGRAM)["RAY_ADDRESS"] == "192.0.2.1:29501"


def test_the_heads_engine_goes_before_its_node_and_comes_after_it(
    hosts: dict[str, HostSpec],
) -> None:
    unit = text(hosts["gpu01"], "big")
    for word in ("Wants", "After", "PartOf"):
        assert f"{word}=engine-big-ray.service" in unit
    assert len(lines(unit, "ExecStop=")) == 3
    assert "KillMode=mixed" in unit
    assert lines(unit, "ReadWritePaths=") == [f"ReadWritePaths=-{session('big-ray')}"]


def test_a_node_has_no_gate_ends_with_all_it_started_and_always_comes_back(
    hosts: dict[str, HostSpec],
) -> None:
    for spec in hosts.values():
        unit = text(spec, "big-ray")
        assert "/run/farrier/open" not in unit
        assert "spanning.follow" not in unit
        assert lines(unit, "ExecStop") == []
        assert lines(unit, "Restart=") == ["Restart=always"]
        # a raylet without its head takes a minute over a SIGTERM, and the engine would wait for it
        assert lines(unit, "KillMode=") == ["KillMode=mixed"]
        assert lines(unit, "StartLimit") == ["StartLimitIntervalSec=0"]
        assert lines(unit, "IPAddress") == [
            "IPAddressDeny=any",
            "IPAddressAllow=localhost 192.0.2.1 192.0.2.2",
        ]
        assert lines(unit, "NoNewPrivileges=") == ["NoNewPrivileges=yes"]
        assert "--member" in unit
    head = text(hosts["gpu01"], "big-ray")
    assert "--may-share engine-big.service" in head
    assert "--may-share engine-big-ray.service" in text(hosts["gpu01"], "big")


def test_what_the_engine_gives_its_workers_is_true_on_every_host(
    hosts: dict[str, HostSpec],
) -> None:
    """vLLM's workers get all variables of the head's engine, but for a few that it knows."""
    head, member = hosts["gpu01"], hosts["gpu02"]
    of_engine = environment(head.models[0], head, PROGRAM)
    of_node = environment(member.members[0], member, PROGRAM)
    own = {"VLLM_HOST_IP", "RAY_ADDRESS"}
    assert {k: v for k, v in of_engine.items() if k not in own} == {
        k: v for k, v in of_node.items() if k not in own
    }
    assert of_engine["HOME"] == "/var/lib/farrier/engines/big-ray"
    assert "farrier/engines/big-ray" in lines(text(head, "big"), "StateDirectory=")[0]


def test_the_token_is_in_no_unit_and_no_words(hosts: dict[str, HostSpec]) -> None:
    for spec in hosts.values():
        assert spec.ray_token == "t" * 64
        assert "t" * 64 not in repr(spec)
        for model in spec.carried:
            assert "t" * 64 not in engine.unit_text(model, spec, SETTINGS, PROGRAM)
            values = environment(model, spec, PROGRAM)
            assert values["RAY_AUTH_MODE"] == "token"
            assert values["RAY_AUTH_TOKEN_PATH"] == "/etc/farrier/ray-token"


def test_sockets_of_the_longest_name_fit_their_address() -> None:
    longest = "/session_2026-11-22_20-13-55_573422_4194304/sockets/plasma_store.1"
    assert len(session("a" * 63) + longest) < 107


def test_all_hosts_need_one_token(token: str, tmp_path: Path) -> None:
    found = problems(Host("gpu01", Model(**BIG), ray_token_file=token), Host("gpu02"))
    [(field, message)] = found
    assert field == "hosts"
    assert message.startswith("gpu02 has no ray_token_file")
    other = tmp_path / "other"
    other.write_text("u" * 64)
    other.chmod(0o600)
    [(_, message)] = problems(
        Host("gpu01", Model(**BIG), ray_token_file=token), Host("gpu02", ray_token_file=str(other))
    )
    assert "another ray_token_file than gpu01" in message
    other.write_text("short")
    [(field, message)] = problems(Host("gpu01", ray_token_file=str(other)))
    assert (field, "shorter than 32" in message) == ("ray_token_file", True)
    other.chmod(0o644)
    [(_, message)] = problems(Host("gpu01", ray_token_file=str(other)))
    assert "can be read or written by others" in message


def test_the_block_of_ports_is_rays_on_every_host(token: str) -> None:
    own = Model("own", source="path:/m", gpus=[2], port=29550)
    [(field, message)] = problems(
        Host("gpu01", Model(**BIG), ray_token_file=token),
        Host("gpu02", own, ray_token_file=token),
    )
    assert field == "master_port"
    assert "29501 to 29600" in message
    assert "29550 is the port of replica 'own' of gpu02" in message


def test_ray_on_one_host_is_refused_and_so_it_is_on_cpus() -> None:
    [(field, message)] = check_model(Model("a", source="path:/m", gpus=[0], args=RAY), "cuda")
    assert (field, "on one leave it out" in message) == ("args.distributed-executor-backend", True)
    cpu = BIG | {"gpus": []}
    [(_, message)] = check_model(Model(**cpu), "cpu")
    assert "refuses Ray" in message
    stand_in = cpu | {"env": {"FARRIER_ENGINE_IS_A_STAND_IN": "1"}}
    assert list(check_model(Model(**stand_in), "cpu")) == []


def test_an_environment_without_ray_is_what_it_was_and_one_with_it_is_another() -> None:
    settings = DEFAULTS.data()
    plain, ray = (vllm_environment("cuda", settings, ray=one) for one in (False, True))
    assert [path for _, path in plain.locks] == sorted(LOCKS.glob("cuda-cp3*.txt"))
    assert plain.version != ray.version
    assert [python for python, _ in ray.locks] == [python for python, _ in plain.locks]


@pytest.mark.parametrize("lock", sorted(LOCKS.glob("c*-cp3*.txt")), ids=lambda one: one.stem)
def test_rays_lock_adds_to_vllms_and_contradicts_nothing(lock: Path) -> None:
    there, ray = (split_lock(path.read_text()) for path in (lock, RAY_LOCK))
    assert set(ray) == {"ray", "msgpack"}
    both = split_lock(with_lock(lock, RAY_LOCK).read_text())
    assert both == {**ray, **there}
    assert with_lock(with_lock(lock, RAY_LOCK), RAY_LOCK).read_text() == "".join(both.values())
    needs = ("click", "filelock", "jsonschema", "packaging", "protobuf", "pyyaml", "requests")
    assert set(needs) <= set(there)


def test_the_agents_are_told_of_the_nodes_and_the_heads_of_the_cluster(
    hosts: dict[str, HostSpec],
) -> None:
    for name, spec in hosts.items():
        config = agent_config(
            spec,
            AGENT.data(),
            {one.replica: "hash" for one in spec.carried},
            SETTINGS,
            gateways=False,
            fleet=list(hosts.values()),
        )
        assert loads(dumps(config)) == config
        [one] = config.members
        assert (one.unit, one.replica, one.gpus) == ("engine-big-ray.service", "big", [0, 1])
        told = (f"{session('big-ray')}/cluster.json", 2) if name == "gpu01" else (None, None)
        assert (one.cluster, one.nodes) == told


def test_what_a_cluster_lacks_is_said_by_host() -> None:
    hosts = {"gpu01": "192.0.2.1", "gpu02": "192.0.2.2"}
    assert ray_node.lacking({"192.0.2.1": 2.0, "192.0.2.2": 2.0}, hosts, 2) == []
    assert ray_node.lacking({"192.0.2.1": 1.0}, hosts, 2) == [
        "gpu01 (192.0.2.1) has 1 GPUs of 2",
        "gpu02 (192.0.2.2) is not there",
    ]


def test_what_is_told_of_a_cluster_can_be_read_by_the_agent(tmp_path: Path) -> None:
    file = tmp_path / "cluster.json"
    ray_node.tell(str(file), 1, 2, ["gpu02 (192.0.2.2) is not there"])
    told = json.loads(file.read_text())
    assert (told["nodes"], told["wanted"], len(told["lacks"])) == (1, 2, 1)
    assert file.stat().st_mode & 0o777 == 0o644
    assert list(tmp_path.iterdir()) == [file]
