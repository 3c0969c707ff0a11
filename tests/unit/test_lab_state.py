import json
import os
import subprocess
import sys
from pathlib import Path

from farrier.lab.disks import mounts_below
from farrier.lab.state import LabFiles, locked, read_json, write_private

HOLD = """
import sys
from pathlib import Path
from farrier.lab.state import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.readline()
"""


def test_a_second_command_waits_for_the_first_and_says_for_whom(tmp_path: Path) -> None:
    lock = tmp_path / "lab.lock"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(lock)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as first:
        assert first.stdin is not None
        assert first.stdout is not None
        assert first.stdout.readline() == "held\n"
        heard: list[str] = []

        def let_go(message: str) -> None:
            heard.append(message)
            assert first.stdin is not None
            first.stdin.write("\n")
            first.stdin.flush()

        with locked(lock, let_go):
            assert heard == [f"waiting for process {first.pid}, which holds {lock}"]
            assert lock.read_text() == f"{os.getpid()}\n"
    assert not lock.exists()


def test_the_lock_of_a_killed_command_is_free(tmp_path: Path) -> None:
    lock = tmp_path / "lab.lock"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(lock)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as first:
        assert first.stdout is not None
        first.stdout.readline()
        first.kill()
        first.wait()
    assert lock.exists()
    heard: list[str] = []
    with locked(lock, heard.append):
        assert heard == []


def test_private_files_are_replaced_whole_and_for_the_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "keys.toml"
    write_private(path, "one")
    write_private(path, "two")
    assert path.read_text() == "two"
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_a_record_cut_short_counts_as_none(tmp_path: Path) -> None:
    files = LabFiles("brief", tmp_path)
    assert files.hosts_up() == []
    files.directory.mkdir()
    files.lab.write_text('{"hosts": {"gpu')
    assert read_json(files.lab) is None
    assert files.hosts_up() == []
    files.lab.write_text(json.dumps({"hosts": {"gpu01": {}}}))
    assert files.hosts_up() == ["gpu01"]


def test_mounts_are_found_below_a_path_deepest_first(tmp_path: Path) -> None:
    table = tmp_path / "mountinfo"
    table.write_text(
        "20 1 0:1 / / rw - ext4 /dev/vda rw\n"
        "21 20 0:2 / /lab/one rw - overlay farrier-lab rw\n"
        "22 21 0:3 / /lab/one/with\\040space rw - tmpfs tmpfs rw\n"
        "23 20 0:4 / /lab/oneself rw - tmpfs tmpfs rw\n"
    )
    assert mounts_below(Path("/lab/one"), table) == [
        Path("/lab/one/with space"),
        Path("/lab/one"),
    ]
