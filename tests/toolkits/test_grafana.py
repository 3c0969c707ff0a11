"""The role grafana on a host, with a stand-in for its package from a repository like its own."""

from __future__ import annotations

import json
import secrets
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from farrier.lab import Lab
from tests.roles.converging import Converge
from tests.roles.fleet import Fleet, until
from tests.toolkits.conftest import Role
from tests.toolkits.grafana_standin import grafana_repository

HOST = "gpu01"


@pytest.fixture(scope="module")
def repository(lab: Lab) -> Iterator[dict[str, Any]]:
    with grafana_repository(str(lab.definition.gateway)) as data:
        yield data


@pytest.fixture(scope="module")
def role(converge: Converge) -> Role:
    return Role("grafana", HOST, converge)


@pytest.fixture
def password(tmp_path: Path) -> tuple[str, str]:
    """A password and its file."""
    word = secrets.token_hex(16)
    path = tmp_path / "password"
    path.touch(mode=0o600)
    path.write_text(f"{word}\n")
    return word, str(path)


def ask(hosts: Fleet, path: str, word: str | None = None) -> Any:
    """What Grafana answers on the host itself; the password travels by standard input."""
    config = f"user = admin:{word}\n" if word else ""
    said = hosts.root(
        HOST, f"curl -s -K - {shlex.quote(f'http://127.0.0.1:3000/api/{path}')}", stdin=config
    )
    return json.loads(said)


def health(hosts: Fleet) -> bool:
    return "ok" in hosts.root(HOST, "curl -s http://127.0.0.1:3000/api/health", check=False)


def test_grafana_is_installed_shows_the_dashboards_and_is_removed(
    role: Role, hosts: Fleet, repository: dict[str, Any], password: tuple[str, str]
) -> None:
    word, file = password
    data = {**repository, "grafana": True, "grafana_admin_password_file": file}

    run = role.run("--diff", "-vvv", **data)
    assert run.returncode == 0, run.last_words()
    assert word not in run.stdout + run.stderr
    again = role.run(**data)
    assert (again.returncode, again.changed(HOST)) == (0, []), again.last_words()

    until(lambda: health(hosts), 20, "Grafana answers")
    assert ask(hosts, "search", word) == [
        *("Farrier fleet", "Farrier gateway", "Farrier host", "Farrier model")
    ]
    assert ask(hosts, "datasources", word) == ["http://localhost:9090"]
    assert ask(hosts, "search") == {"message": "Unauthorized"}
    listening = hosts.root(HOST, "ss -Hltn sport = :3000 | awk '{print $4}'").split()
    assert listening == ["127.0.0.1:3000"]
    secret = hosts.root(HOST, "stat -c '%a %U' /etc/grafana/farrier/admin_password")
    assert secret == "600 grafana\n"
    main = hosts.unit(HOST, "grafana-server", "MainPID")
    assert word not in hosts.root(HOST, f"tr '\\0' ' ' < /proc/{main}/environ")

    hosts.root(HOST, "touch /etc/grafana/farrier/dashboards/old.json")
    assert role.run(**data).changed(HOST) == ["Grafana | Dashboards of before", "Grafana | Service"]

    role.removed(**data)
    assert hosts.unit(HOST, "grafana-server", "ActiveState") == "inactive"
    left = "/etc/grafana/farrier /etc/apt/sources.list.d/farrier-grafana.sources"
    assert hosts.root(HOST, f"ls -d {left} 2>/dev/null", check=False) == ""


def test_it_is_off_unless_asked_for(role: Role) -> None:
    run = role.run()
    assert (run.returncode, run.changed(HOST)) == (0, []), run.last_words()


def test_another_key_is_refused(
    role: Role, repository: dict[str, Any], password: tuple[str, str]
) -> None:
    data = {**repository, "grafana_repo_fingerprint": "B53AE77BADB630A683046005963FA27710458545"}
    role.refused(
        "was not made known to apt", grafana=True, grafana_admin_password_file=password[1], **data
    )


def test_without_a_password_nothing_is_touched(role: Role, repository: dict[str, Any]) -> None:
    run = role.run(grafana=True, **repository)
    assert run.returncode == 1
    assert "needs grafana_admin_password_file" in run.stderr
    assert run.operations == []
