"""What the role base says to needrestart, as the preflight reads it, and of its directories."""

from __future__ import annotations

import getpass
import grp
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from farrier.facts.updates import spared_by
from roles.base import NEEDRESTART
from roles.base.operations import Amiss, Place


@pytest.mark.parametrize(
    "unit",
    [
        "engine-tiny.service",
        "nginx.service",
        "farrier-agent.service",
        "farrier-driver.service",
        "nvidia-fabricmanager.service",
        "nvidia-persistenced.service",
        "nvlsm.service",
    ],
)
def test_needrestart_spares_what_serves(unit: str) -> None:
    assert spared_by(NEEDRESTART, unit)


@pytest.mark.parametrize("unit", ["ssh.service", "prometheus-node-exporter.service", "engine"])
def test_needrestart_may_restart_others(unit: str) -> None:
    assert not spared_by(NEEDRESTART, unit)


@pytest.mark.parametrize(
    ("place", "line", "found"),
    [
        (
            Place("/run/farrier/open", 755, "farrier-agent", "farrier-agent"),
            "d /run/farrier/open 0755 farrier-agent farrier-agent -",
            "/run/farrier/open 755 farrier-agent farrier-agent",
        ),
        (
            Place("/var/lib/farrier/evidence", 750, "root", "farrier-agent"),
            "d /var/lib/farrier/evidence 0750 root farrier-agent -",
            "/var/lib/farrier/evidence 750 root farrier-agent",
        ),
    ],
)
def test_a_directory_for_tmpfiles_and_as_find_shows_it(place: Place, line: str, found: str) -> None:
    assert (str(place), place.stat) == (line, found)


def test_the_question_sees_what_is_amiss(tmp_path: Path) -> None:
    """With this machine's own users; the host's answer is tried by tests/roles."""
    user, group = getpass.getuser(), grp.getgrgid(os.getgid()).gr_name
    directory = tmp_path / "replicas"
    directory.mkdir(mode=0o750)
    place = Place(str(directory), 750, user, group)

    def asked(owner: str = user) -> set[str]:
        question = Amiss()
        owned = Place(str(directory), 750, owner, group)
        command = question.command(user, group, [place], owned)
        done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True)
        return set(question.process(done.stdout.splitlines()))

    good = {place.stat, f"member {group}"}
    assert asked() == good
    private = directory / "tiny.json"
    private.touch(mode=0o600)
    assert asked() == good
    assert asked("nobody") == {*good, f"{private} unreadable"}
    directory.chmod(0o700)
    assert asked() != good
    shutil.rmtree(directory)
    assert asked() == {f"member {group}"}
