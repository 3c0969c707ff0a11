"""Inventories read by the real pyinfra in a process of its own; no host is connected to."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from farrier.fleet import FleetTargets, InventoryError, Login, ReplicaOf, read_fleet_targets
from farrier.fleet.names import remember, remembered

ROOT = Path(__file__).parents[2]
FARRIER = Path(sys.executable).with_name("farrier")
KEY = "k" * 30

HOSTS = """\
from farrier.spec import Model

print("an inventory may print")
gpu = [
    ("gpu01", {"ssh_hostname": "192.0.2.1", "ssh_port": 2222, "ssh_user": "admin",
               "models": [Model("big/one", replica="one", gpus=[0], port=8105,
                                source="path:/srv/models/one")]}),
    ("gpu02", {"ssh_hostname": "alias", "ssh_password": "hunter2-hunter2", "nginx_port": 8090,
               "ssh_config_file": "ssh_config", "address": "192.0.2.22"}),
]
gateway = [("gw01", {"agent_port": 9999})]
"""
GROUP = """\
api_keys_file = "{directory}/keys.toml"
ssh_known_hosts_file = "~/known"
"""


@dataclass
class Project:
    directory: Path

    def write(self, name: str, text: str) -> None:
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o600)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    made = Project(tmp_path)
    made.write("inventory/production.py", HOSTS)
    made.write("inventory/group_data/all.py", GROUP.format(directory=tmp_path))
    made.write("keys.toml", f'[keys]\nalice = "{KEY}"\n')
    (tmp_path / "config.py").symlink_to(ROOT / "config.py")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FARRIER_ENV", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path))
    return made


def test_hosts_with_what_they_serve_and_how_to_log_in(
    project: Project, capfd: pytest.CaptureFixture[str]
) -> None:
    project.write("bits", "Host jump\n    HostName 192.0.2.99\n    Port 2200\n    User hop\n")
    project.write(
        "ssh_config",
        f"Include {project.directory}/bits\n"
        "Host alias\n    HostName 192.0.2.2\n    Port 2022\n    User other\n"
        "    ProxyJump jump\n    ConnectTimeout 3\n    IdentityFile ~/absent\n",
    )
    fleet = read_fleet_targets()
    assert [one.name for one in fleet] == ["gpu01", "gpu02", "gw01"]
    one = fleet.named("gpu01")
    assert one.replicas == (ReplicaOf("big/one", "one", "engine-one.service", 8105),)
    assert set(one.groups) >= {"gpu"}
    known = str(project.directory / "known")
    assert one.login == Login(
        "192.0.2.1", 2222, "admin", "192.0.2.1", known_hosts=(known,), timeout=10.0
    )
    two = fleet.named("gpu02")
    assert (two.address, two.nginx_port) == ("192.0.2.22", 8090)
    login = two.login
    assert (login.host, login.port, login.user, login.timeout) == ("192.0.2.2", 2022, "other", 3.0)
    assert login.keys == (), "a key file that is not there is passed over"
    (hop,) = login.jumps
    assert (hop.host, hop.port, hop.user, hop.known_hosts) == (
        *("192.0.2.99", 2200, "hop"),
        (str(project.directory / ".ssh/known_hosts"),),
    )
    assert fleet.named("gw01").agent_port == 9999
    assert fleet.of_model("big/one") == ((one, one.replicas[0]),)
    assert fleet.inventory == "inventory/production.py"
    assert "an inventory may print" in capfd.readouterr().err


def test_a_limit_picks_and_the_rest_is_still_known(project: Project) -> None:
    project.write("ssh_config", "")
    fleet = read_fleet_targets(limit=("gpu*",))
    assert [one.name for one in fleet] == ["gpu01", "gpu02"]
    assert len(fleet.every) == 3
    assert [one.name for one in read_fleet_targets(limit=("gateway",))] == ["gw01"]
    with pytest.raises(InventoryError, match="--limit nix matches no host") as error:
        read_fleet_targets(limit=("nix",))
    assert "Groups: " in str(error.value)


def test_no_secret_comes_over_the_pipe(project: Project) -> None:
    project.write("ssh_config", "")
    done = subprocess.run(
        [sys.executable, "-m", "farrier.fleet.resolve", "--inventory", "inventory"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert '"gpu02"' in done.stdout
    assert KEY not in done.stdout
    assert "hunter2" not in done.stdout


@pytest.mark.parametrize(
    ("hosts", "told"),
    [
        ("gpu = []\n", "has no hosts"),
        ("gpu = [\n", "production.py:1: not valid Python"),
        ('gpu = [("gpu01", {"accelerator": "cuda2"})]\n', "is neither 'cuda' nor 'cpu'"),
        (
            "from pyinfra.api.exceptions import InventoryError\nraise InventoryError('not up')\n",
            "not up",
        ),
    ],
)
def test_mistakes_are_told_as_preflight_tells_them(project: Project, hosts: str, told: str) -> None:
    project.write("inventory/production.py", hosts)
    with pytest.raises(InventoryError, match=told) as error:
        read_fleet_targets()
    for command in ("status", "preflight"):
        done = subprocess.run(
            [FARRIER, command],
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            check=False,
        )
        assert done.returncode == error.value.code == 1
        assert str(error.value) in done.stderr
        assert done.stdout == ""


def test_an_inventory_that_crashes_is_told_in_a_line(project: Project) -> None:
    project.write("inventory/production.py", "gpu = [1 / 0]\n")
    with pytest.raises(InventoryError, match=r"production\.py:1: ZeroDivisionError: "):
        read_fleet_targets()


def test_problems_come_as_json_too(project: Project) -> None:
    project.write("inventory/production.py", 'gpu = [("gpu01", {"nginx_port": 0})]\n')
    done = subprocess.run(
        [FARRIER, "status", "--json"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert '"field": "nginx_port"' in done.stdout


def test_names_are_remembered_for_completion(project: Project) -> None:
    project.write("ssh_config", "")
    assert remembered("inventory") == []
    remember("inventory", read_fleet_targets())
    assert remembered("inventory") == ["gpu01", "gpu02", "gw01"]
    assert remembered("inventory", replicas=True) == ["gpu01/one"]
    asked = {"_FARRIER_COMPLETE": "bash_complete", "COMP_CWORD": "2"}
    for typed, answer in (
        ("farrier drain gpu01/", "plain,gpu01/one"),
        ("farrier status gw", "plain,gw01"),
    ):
        done = subprocess.run(
            [FARRIER],
            env=os.environ | asked | {"COMP_WORDS": typed},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.stdout.split() == [answer]


def test_a_fleet_survives_its_json(project: Project) -> None:
    project.write("ssh_config", "Host alias\n    ProxyJump a@192.0.2.7:23,192.0.2.8\n")
    fleet = read_fleet_targets(limit=("gpu",))
    again = FleetTargets.from_json(fleet.to_json())
    assert again == fleet
    assert [(hop.user, hop.host, hop.port) for hop in again.named("gpu02").login.jumps][:1] == [
        ("a", "192.0.2.7", 23)
    ]
