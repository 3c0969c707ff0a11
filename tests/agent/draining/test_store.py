"""Records on the disk: whole or not at all, one writer at a time, garbage refused with words."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from farrier_agent.draining.record import Now, Phase, Record, initial
from farrier_agent.draining.store import LockedError, Store, StoreError, UnreadableError
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.agent.draining.stories import Story
from tests.agent.host import until

NOW = Now("boot1", 1.0, 2.0)


def record(replica: str = "tiny") -> Record:
    return initial(replica, NOW, gate_open=False)


def test_what_is_kept_is_read_back(tmp_path: Path) -> None:
    store = Store(tmp_path / "replicas")
    assert store.load("tiny") is None
    whole = Story().serves().drain(settle=0).looks(3).stop().record
    with store.locked("tiny"):
        store.save(whole)
    assert store.load("tiny") == whole
    assert store.path("tiny").stat().st_mode & 0o777 == 0o644
    assert sorted(path.name for path in (tmp_path / "replicas").iterdir()) == [
        "tiny.json",
        "tiny.lock",
    ]


@pytest.mark.parametrize("name", ["", "../tiny", "a/b", "Tiny", "a" * 64, "tiny\n", "-a"])
def test_a_name_that_is_none(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="name of a replica"):
        Store(tmp_path).path(name)


def garbage(tmp_path: Path, data: bytes) -> str:
    (tmp_path / "tiny.json").write_bytes(data)
    with pytest.raises(UnreadableError) as caught:
        Store(tmp_path).load("tiny")
    assert "tiny.json" in str(caught.value)
    return str(caught.value)


def test_garbage_is_refused_with_the_field(tmp_path: Path) -> None:
    good = msgspec.to_builtins(record())
    assert "truncated" in garbage(tmp_path, b"")
    assert "malformed" in garbage(tmp_path, b"\x00" * 512)
    assert "phase" in garbage(tmp_path, msgspec.json.encode(good | {"phase": "happy"}))
    assert "since_at" in garbage(tmp_path, msgspec.json.encode(good | {"since_at": "now"}))
    assert "schema 2 is newer" in garbage(tmp_path, msgspec.json.encode(good | {"schema": 2}))
    assert "'other'" in garbage(tmp_path, msgspec.json.encode(good | {"replica": "other"}))
    assert "larger" in garbage(tmp_path, b" " * 300_000)
    garbage(tmp_path, b"[" * 200_000)


def test_a_field_of_a_later_version_of_this_schema_is_no_garbage(tmp_path: Path) -> None:
    more = msgspec.to_builtins(record()) | {"colour": "green"}
    (tmp_path / "tiny.json").write_bytes(msgspec.json.encode(more))
    assert Store(tmp_path).load("tiny") == record()


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_any_damage_is_a_record_or_refused(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    directory = tmp_path_factory.getbasetemp() / "damage"
    store = Store(directory)
    directory.mkdir(exist_ok=True)
    store.save(Story().serves().drain(settle=0).looks(3).record, durable=False)
    text = bytearray(store.path("tiny").read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        text[data.draw(st.integers(0, len(text) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.one_of(st.none(), st.integers(0, len(text))))
    store.path("tiny").write_bytes(text[:cut])
    try:
        assert isinstance(store.load("tiny"), Record)
    except UnreadableError as error:
        assert "tiny.json" in str(error)  # noqa: PT017 - either is right


def test_no_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_bytes(msgspec.json.encode(record()))
    store = Store(tmp_path)
    for name in ("tiny.json", "tiny.lock", "tiny.new"):
        (tmp_path / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreError, match=r"tiny\.json"):
        store.load("tiny")
    with pytest.raises(StoreError, match=r"tiny\.lock"), store.locked("tiny"):
        pass
    before = (tmp_path / "elsewhere").read_bytes()
    store.save(msgspec.structs.replace(record(), phase=Phase.FAILED))
    assert (tmp_path / "elsewhere").read_bytes() == before
    assert not (tmp_path / "tiny.json").is_symlink()


def test_what_a_killed_writer_left_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "tiny.new").write_text("half a rec")
    Store(tmp_path).save(record())
    assert Store(tmp_path).load("tiny") == record()
    assert not (tmp_path / "tiny.new").exists()


def test_a_disk_that_is_full_leaves_the_old_record(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.save(record())
    program = (
        "import resource, signal, sys\n"
        "from pathlib import Path\n"
        "from farrier_agent.draining.store import Store, StoreError\n"
        "store = Store(Path(sys.argv[1]))\n"
        "old = store.load('tiny')\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (64, 64))\n"
        "try: store.save(old)\n"
        "except StoreError as error: print(error)\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout
    assert "tiny.json: cannot be written: File too large" in said
    assert store.load("tiny") == record()
    assert not (tmp_path / "tiny.new").exists()


HOLDER = """
import sys
from pathlib import Path
from farrier_agent.draining.store import Store
with Store(Path(sys.argv[1])).locked("tiny"):
    print("locked", flush=True)
    sys.stdin.read()
"""


def test_a_lock_is_one_s_own_until_its_holder_dies(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"locked\n"
        impatient = Store(tmp_path, patience=0.1)
        with pytest.raises(LockedError, match="held by another process"):
            impatient.locked("tiny").__enter__()
        with impatient.locked("other"):
            pass
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        with impatient.locked("tiny"):
            pass


def test_two_writers_lose_nothing(tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "import msgspec\n"
        "from farrier_agent.draining.store import Store\n"
        "store = Store(Path(sys.argv[1]), patience=30)\n"
        "for _ in range(100):\n"
        "    with store.locked('tiny'):\n"
        "        old = store.load('tiny')\n"
        "        store.save(msgspec.structs.replace(old, run_since=old.run_since + 1),\n"
        "                   durable=False)\n"
    )
    Store(tmp_path).save(record())
    command = [sys.executable, "-c", program, str(tmp_path)]
    writers = [subprocess.Popen(command) for _ in range(3)]
    assert [writer.wait(timeout=60) for writer in writers] == [0, 0, 0]
    last = Store(tmp_path).load("tiny")
    assert last is not None
    assert last.run_since == 300


def test_a_writer_that_is_killed_at_any_moment_leaves_a_whole_record(tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from farrier_agent.draining.store import Store\n"
        "store = Store(Path(sys.argv[1]))\n"
        "old = store.load('tiny')\n"
        "print('go', flush=True)\n"
        "while True:\n"
        "    with store.locked('tiny'): store.save(old)\n"
    )
    store = Store(tmp_path)
    store.save(record())
    for _ in range(5):
        command = [sys.executable, "-c", program, str(tmp_path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            writer.stdout.readline()
            inode = store.path("tiny").stat().st_ino
            until(lambda inode=inode: store.path("tiny").stat().st_ino != inode)  # type: ignore[misc]
            os.kill(writer.pid, signal.SIGKILL)
        assert store.load("tiny") == record()
