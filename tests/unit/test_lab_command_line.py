"""``farrier lab`` as its user meets it, where no lab is needed for that."""

import shutil
import subprocess
import sys

import pytest

FARRIER = [sys.executable, "-c", "from farrier.cli import main; main()"]


def farrier(*words: str, before: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*before, *FARRIER, *words], capture_output=True, text=True, check=False, timeout=60
    )


def test_help_names_the_subcommands() -> None:
    done = farrier("lab", "--help")
    assert done.returncode == 0
    assert {"up", "down", "status", "ssh"} <= set(done.stdout.split())


@pytest.mark.parametrize("command", ["up", "down", "status"])
def test_without_root_it_says_what_for_and_the_command(command: str) -> None:
    if shutil.which("unshare") is None:
        pytest.fail("unshare (util-linux) is missing")
    done = farrier("lab", command, "--name", "brief", before=("unshare", "--user"))
    assert done.returncode == 1
    assert "root is needed" in done.stderr
    assert f"lab {command} --name brief" in done.stderr.split("run: sudo ")[1]
    assert "Traceback" not in done.stderr


def test_an_unknown_lab_is_wrong_usage() -> None:
    done = farrier("lab", "up", "--name", "nope")
    assert done.returncode == 2
    assert "'demo', 'test', " in done.stderr


def test_ssh_to_a_host_there_is_not() -> None:
    done = farrier("lab", "ssh", "--name", "brief", "gpu09", "true")
    assert done.returncode == 1
    assert done.stderr == "farrier lab: lab brief has no host gpu09; it has gpu01\n"


def test_missing_tools_are_named_with_their_packages(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    bare = tmp_path_factory.mktemp("bin")
    # /usr/sbin and /sbin are searched too: hide them as well as the PATH
    done = subprocess.run(
        [sys.executable, "-c", f"""
import os, sys
from farrier.lab import commands
os.environ["PATH"] = {str(bare)!r}
try:
    commands.require_root_and_tools()
except commands.LabError as error:
    sys.exit(str(error))
"""],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 1
    assert (
        "apt-get install -y --no-install-recommends "
        "iproute2 mmdebstrap mount nftables openssh-client systemd-container\n"
    ) in done.stderr + "\n"
