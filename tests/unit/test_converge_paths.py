"""What a host says of its paths, and when an entry differs from what stands there."""

from __future__ import annotations

import hashlib
import os
import pwd
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from farrier.converge.paths import (
    Absent,
    Directory,
    Link,
    PathState,
    PathStates,
    Text,
    differs,
    mark,
    parse_states,
)

DIGEST = hashlib.sha256(b"hello\n").hexdigest()
TEXT = Text("/etc/x", "hello\n")
THERE = PathState("f", "644", "root", "root", "", DIGEST)


def asked(*paths: Path) -> dict[str, PathState]:
    """The fact's own command, run by a real shell on this machine, and parsed."""
    command = PathStates().command([str(path) for path in paths])
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True)
    return parse_states(done.stdout.splitlines())


def test_the_fact_reads_every_kind_of_path(tmp_path: Path) -> None:
    file, folder, link, dangling = (tmp_path / name for name in ("f", "d", "l", "dangling"))
    file.write_text("hello\n")
    file.chmod(0o640)
    folder.mkdir(mode=0o700)
    link.symlink_to("f")
    dangling.symlink_to("/nowhere")
    states = asked(file, folder, link, dangling, tmp_path / "absent")
    me = pwd.getpwuid(os.geteuid()).pw_name
    assert set(states) == {str(path) for path in (file, folder, link, dangling)}
    assert states[str(file)] == PathState("f", "640", me, states[str(file)].group, "", DIGEST)
    assert (states[str(folder)].kind, states[str(folder)].mode) == ("d", "700")
    assert (states[str(link)].kind, states[str(link)].target) == ("l", "f")
    assert (states[str(dangling)].kind, states[str(dangling)].sha256) == ("l", None)


@pytest.mark.parametrize("name", ["with space", "it's", 'quo"te', "semi;colon", "do$llar", "ünï"])
def test_names_that_a_shell_could_trip_over(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text("hello\n")
    assert asked(path)[str(path)].sha256 == DIGEST


def test_no_path_at_all_is_no_state() -> None:
    assert parse_states(["=="]) == {}


def test_a_text_as_it_should_be_does_not_differ() -> None:
    assert not differs(TEXT, THERE)
    assert not differs(replace(TEXT, mode="0644"), THERE)


@pytest.mark.parametrize(
    "now",
    [
        None,
        replace(THERE, mode="600"),
        replace(THERE, user="www-data"),
        replace(THERE, group="adm"),
        replace(THERE, sha256=hashlib.sha256(b"hello").hexdigest()),
        replace(THERE, sha256=None),
        # A link to a file with the right content is not the file: it is replaced.
        replace(THERE, kind="l", target="/etc/y"),
    ],
)
def test_a_text_differs_in_each_of_its_properties(now: PathState | None) -> None:
    assert differs(TEXT, now)


def test_directories_links_and_what_has_to_be_gone() -> None:
    directory = PathState("d", "700", "root", "root", "")
    link = PathState("l", "777", "root", "root", "0.1.0")
    assert not differs(Directory("/d", mode="0700"), directory)
    assert differs(Directory("/d"), directory)
    assert differs(Directory("/d"), None)
    assert differs(Directory("/d", mode="700"), THERE)
    assert not differs(Link("/l", "0.1.0"), link)
    assert differs(Link("/l", "0.2.0"), link)
    assert differs(Link("/l", "0.1.0"), directory)
    assert differs(Absent("/x"), THERE)
    assert not differs(Absent("/x"), None)


def test_a_secret_is_in_no_repr() -> None:
    assert "hunter2" not in repr(Text("/etc/x", "hunter2", secret=True))


def test_each_service_has_a_mark_of_its_own() -> None:
    assert mark("nginx.service") != mark("farrier-agent.service")
    assert mark("nginx.service").startswith("/var/lib/farrier/applied/")


def test_a_directory_given_as_a_text_is_seen_as_a_directory(tmp_path: Path) -> None:
    assert differs(Text(str(tmp_path), ""), asked(tmp_path)[str(tmp_path)])
