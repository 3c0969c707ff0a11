"""``pyinfra inventory …`` as an operator types it: the real pyinfra, and no host of this fleet.

Everything that Farrier wraps in pyinfra is exercised here in a process of its own, so that an
upgrade of pyinfra that moves one of those names fails loudly.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PYINFRA = Path(sys.executable).with_name("pyinfra")
NOT_CONNECTED = "Connecting to hosts"

HOSTS = """\
from farrier.spec import OPEN_ACCESS

gpu = [
    "@local",
    ("gpu02", {"ssh_hostname": "127.0.0.1", "ssh_port": 1}),
]
gateway = [
    ("gw01", {"ssh_hostname": "127.0.0.1", "ssh_port": 1, "open_access": OPEN_ACCESS}),
]
"""
DEPLOY = """\
from pyinfra import host
from pyinfra.operations import python

from farrier.inventory import current_fleet

spec = current_fleet().hosts[host.name]
python.call(function=lambda: print("DEPLOYED", spec.name, *spec.groups))
"""


@dataclass
class Project:
    """A copy of the project's frame with an inventory of its own."""

    directory: Path

    def write(self, name: str, text: str) -> Path:
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def pyinfra(
        self, *words: str, cwd: str = ".", **environment: str
    ) -> subprocess.CompletedProcess[str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("FARRIER_", "PYINFRA_"))}
        return subprocess.run(
            [PYINFRA, *words],
            cwd=self.directory / cwd,
            env=kept | environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,  # a busy machine starts pyinfra in tens of seconds
            check=False,
        )


@pytest.fixture
def project(tmp_path: Path) -> Project:
    (tmp_path / "config.py").symlink_to(ROOT / "config.py")
    made = Project(tmp_path)
    made.write("inventory/production.py", HOSTS)
    made.write("deploys/llm.py", DEPLOY)
    return made


def refusal(done: subprocess.CompletedProcess[str]) -> str:
    """What pyinfra printed to say no, after its own two lines; nothing was connected to."""
    assert done.returncode == 1, done.stderr
    assert NOT_CONNECTED not in done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr.partition("--> Loading inventory...\n")[2]


def test_the_command_works_literally(project: Project) -> None:
    done = project.pyinfra("-y", "--limit", "@local", "inventory", "deploys/llm.py")
    assert done.returncode == 0, done.stderr
    assert "DEPLOYED @local gpu production @local" in done.stdout


def test_hosts_groups_and_data_come_as_json(project: Project) -> None:
    project.write("inventory/group_data/all.py", "color = 'green'\n")
    project.write("inventory/group_data/gpu.py", "color = 'red'\n")
    done = project.pyinfra("inventory", "debug-inventory", "--json")
    assert done.returncode == 0, done.stderr
    hosts = {host["name"]: host for host in json.loads(done.stdout)}
    assert sorted(hosts) == ["@local", "gpu02", "gw01"]
    assert "gpu" in hosts["gpu02"]["groups"]
    assert hosts["gpu02"]["data"]["color"] == "red"
    assert hosts["gw01"]["data"]["color"] == "green"


def test_models_and_connections_of_the_real_group_data_come_as_json(project: Project) -> None:
    project.write("inventory/group_data/all.py", (ROOT / "inventory/group_data/all.py").read_text())
    project.write(
        "inventory/group_data/gpu.py",
        "from farrier.spec import Model\n"
        "models = [Model('tiny', source='path:/m', env={'HF_TOKEN': 'oops'})]\n",
    )
    done = project.pyinfra("inventory", "debug-inventory", "--json")
    assert done.returncode == 0, done.stderr
    data = {host["name"]: host["data"] for host in json.loads(done.stdout)}
    assert data["gpu02"]["models"][0]["name"] == "tiny"
    assert data["gpu02"]["models"][0]["env"] == {"HF_TOKEN": "***"}
    assert data["gw01"]["ssh_strict_host_key_checking"] == "yes"


def test_the_project_as_it_is_cloned_has_no_hosts_and_says_where_they_go(tmp_path: Path) -> None:
    for name in ("config.py", "inventory", "deploys"):
        (tmp_path / name).symlink_to(ROOT / name)
    said = refusal(Project(tmp_path).pyinfra("inventory", "deploys/llm.py"))
    assert said.startswith("inventory/production.py has no hosts.\n")
    assert "Write your machines into it" in said
    assert "make demo" in said


@pytest.mark.parametrize("command", [["exec", "--", "true"], ["fact", "server.Hostname"]])
def test_no_hosts_is_an_error_for_every_command(project: Project, command: list[str]) -> None:
    project.write("inventory/production.py", "gpu = []\n")
    assert "has no hosts" in refusal(project.pyinfra("inventory", *command))
    project.write("site.py", "gpu = {'not', 'a', 'list'}\n")
    assert "site.py has no hosts" in refusal(project.pyinfra("site.py", *command))


def test_another_environment(project: Project) -> None:
    project.write("inventory/staging.py", "gpu = ['@local']\n")
    done = project.pyinfra("-y", "inventory", "deploys/llm.py", FARRIER_ENV="staging")
    assert done.returncode == 0, done.stderr
    assert "DEPLOYED @local gpu staging" in done.stdout


@pytest.mark.parametrize("name", ["nope", "../production", "production.py"])
def test_an_unknown_environment(project: Project, name: str) -> None:
    project.write("inventory/staging.py", "gpu = ['@local']\n")
    said = refusal(project.pyinfra("inventory", "deploys/llm.py", FARRIER_ENV=name))
    assert f"FARRIER_ENV={name}" in said
    assert "production, staging" in said


def test_an_inventory_that_is_nothing(project: Project) -> None:
    done = project.pyinfra("inventroy", "deploys/llm.py")
    assert "'inventroy' is no inventory" in refusal(done)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--limit", "gpu99"], "--limit gpu99 matches no host"),
        (["--limit", "gpu02", "--limit", "gpu99"], "--limit gpu99 matches no host"),
        (["--limit", "monitor"], "--limit monitor matches no host"),
        (["--limit", "gpu02,gw01"], "once per pattern, without commas"),
        (["--exclude", "gpu99"], "--exclude gpu99 matches no host"),
        (["--exclude", "*"], "--exclude leaves no host"),
        (["--limit", "gpu02", "--exclude", "gpu*"], "--exclude leaves no host"),
    ],
)
def test_a_pattern_that_leaves_nobody(project: Project, options: list[str], said: str) -> None:
    answer = refusal(project.pyinfra("-y", *options, "inventory", "deploys/llm.py"))
    assert said in answer
    if "matches" in said:
        assert "Hosts: @local, gpu02, gw01" in answer
        assert "Groups: " in answer


def test_patterns_that_match_are_left_to_pyinfra(project: Project) -> None:
    done = project.pyinfra("-y", "--exclude", "g*0?", "inventory", "deploys/llm.py")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("DEPLOYED") == 1


def test_no_wait_would_hide_failures(project: Project) -> None:
    assert "exits 0" in refusal(project.pyinfra("-y", "--no-wait", "inventory", "deploys/llm.py"))


def test_a_question_without_a_terminal(project: Project) -> None:
    done = project.pyinfra("--limit", "@local", "inventory", "deploys/llm.py")
    assert done.returncode == 1
    assert "Add -y to go on without being asked" in done.stderr
    assert "Traceback" not in done.stderr
    assert "DEPLOYED" not in done.stdout


def test_from_a_subdirectory(project: Project) -> None:
    for words in (["--chdir", "..", "inventory", "deploys/llm.py"],
                  ["--config", "../config.py", "../inventory", "llm.py"]):  # fmt: skip
        done = project.pyinfra("-y", "--limit", "@local", *words, cwd="deploys")
        assert done.returncode == 0, done.stderr
        assert "DEPLOYED @local" in done.stdout
    done = project.pyinfra("-y", "../inventory", "llm.py", cwd="deploys")
    assert done.returncode != 0, "without its config.py pyinfra cannot know what inventory/ means"


MISTAKEN = """\
from farrier.spec import Model

gpu = [
    ("gpu01", {
        "ssh_hostname": "127.0.0.1",
        "nginx_prot": 8443,
    }),
    ("gpu02", {
        "models": [
            Model("tiny", source="path:/srv/models/tiny", gpus=[0],
                  port=8080),
        ],
    }),
]
"""
MISTAKEN_GROUP = """\
from farrier.spec import Model

models = [
    Model(
        "tiny",
        source="path:/srv/models/tiny",
        gpus=[0, 1],
        args={"tensor-parallel-size": 4},
    ),
]
accelerator = "cuda"
"""


def test_every_problem_at_once_with_its_line(project: Project) -> None:
    project.write("inventory/production.py", MISTAKEN)
    project.write("inventory/group_data/gpu.py", MISTAKEN_GROUP)
    lines = refusal(project.pyinfra("-y", "inventory", "deploys/llm.py")).splitlines()
    assert lines[0] == "5 problems in the inventory, nothing was touched:"
    assert [line.split()[:3] for line in lines[1:6]] == [
        ["inventory/production.py:6", "gpu01", "nginx_prot:"],
        ["inventory/group_data/gpu.py:7", "gpu01", "models[0].gpus:"],
        ["inventory/production.py:4", "gpu01", "api_keys_file:"],
        ["inventory/production.py:11", "gpu02", "models[0].port:"],
        ["inventory/production.py:8", "gpu02", "api_keys_file:"],
    ]
    assert "8080 is nginx's port; pick another, e.g. 8101" in lines[4]


def test_problems_as_json(project: Project) -> None:
    project.write("inventory/production.py", MISTAKEN)
    done = project.pyinfra("--json", "inventory", "deploys/llm.py")
    assert done.returncode == 1
    answer: dict[str, Any] = json.loads(done.stdout)
    assert answer["problems"][0] == {
        "file": "inventory/production.py",
        "line": 6,
        "host": "gpu01",
        "field": "nginx_prot",
        "message": "nothing reads 'nginx_prot'; did you mean 'nginx_port'?",
    }


def test_problems_are_found_in_an_inventory_file_named_outright(project: Project) -> None:
    file = project.write("elsewhere/site.py", MISTAKEN)
    said = refusal(project.pyinfra("-y", str(file), "deploys/llm.py"))
    assert "elsewhere/site.py:6" in said
    assert "elsewhere/site.py:11" in said


def test_data_of_the_command_line_is_checked_too(project: Project) -> None:
    done = project.pyinfra("-y", "--data", "nginx_port=none", "inventory", "deploys/llm.py")
    assert "--data nginx_port" in refusal(done)


@pytest.mark.parametrize("command", ["debug-inventory", "exec"])
def test_looking_is_not_refused(project: Project, command: str) -> None:
    project.write("inventory/production.py", MISTAKEN.replace('"gpu01"', '"@local"'))
    words = [command] if command == "debug-inventory" else [command, "--", "true"]
    done = project.pyinfra("-y", "--limit", "@local", "inventory", *words)
    assert done.returncode == 0, done.stderr
    assert "problem" not in done.stderr


def test_a_slip_in_python_is_placed(project: Project) -> None:
    project.write("inventory/group_data/gpu.py", "models = [\n  Model('a'\n")
    said = refusal(project.pyinfra("inventory", "deploys/llm.py"))
    assert said.startswith("inventory/group_data/gpu.py:")
    assert "not valid Python" in said


def test_a_key_stays_out_of_every_output(project: Project) -> None:
    key = "sk-farrier-very-secret-0123456789"
    project.write("inventory/production.py", HOSTS.replace(', "open_access": OPEN_ACCESS', ""))
    project.write("secrets/keys.toml", f'[keys]\nalice = "{key}"\nbob = "{key}"\n').chmod(0o600)
    project.write(
        "inventory/group_data/all.py", f"api_keys_file = '{project.directory}/secrets/keys.toml'\n"
    )
    said = refusal(project.pyinfra("--debug", "-vvv", "inventory", "deploys/llm.py"))
    assert "entry 2 under [keys] has the same key as entry 1" in said
    project.write("secrets/keys.toml", f'[keys]\nalice = "{key}"\n')
    words = ["--debug", "-vvv", "-y", "--limit", "@local", "inventory", "deploys/llm.py"]
    done = project.pyinfra(*words)
    assert done.returncode == 0, done.stderr
    assert key not in said + done.stdout + done.stderr


def test_hosts_that_cannot_be_reached_are_explained_and_fail_the_run(project: Project) -> None:
    done = project.pyinfra("-y", "inventory", "deploys/llm.py")
    assert done.returncode == 1
    assert "[gpu02]  cannot connect: 127.0.0.1 port 1 refuses" in done.stderr
    assert "next: " in done.stderr
    assert "DEPLOYED @local" in done.stdout, "the others go on"
    done = project.pyinfra("-y", "--limit", "gw01", "inventory", "deploys/llm.py")
    assert done.returncode == 1
    assert "No hosts remaining" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_private_key_that_is_missing_fails_its_host_alone(project: Project) -> None:
    project.write(
        "inventory/production.py",
        "gpu = ['@local', ('gpu02', {'ssh_hostname': '127.0.0.1', 'ssh_key': '/absent/key'})]\n",
    )
    done = project.pyinfra("-y", "inventory", "deploys/llm.py")
    assert done.returncode == 1
    assert "[gpu02]  cannot connect: No such private key file: /absent/key" in done.stderr
    assert "DEPLOYED @local" in done.stdout
