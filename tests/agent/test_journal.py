"""The agent's log: journald's protocol over a real socket, with a journald that has bad manners."""

from __future__ import annotations

import io
import logging
import os
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

import pytest
from farrier_agent.journal import MAX_MESSAGE, JournalHandler, encoded, is_journal
from hypothesis import given
from hypothesis import strategies as st

log = logging.getLogger("tests.journal")
log.propagate = False


def decoded(entry: bytes) -> dict[str, str]:
    """The fields of an entry, as journald takes it apart."""
    fields: dict[str, str] = {}
    while entry:
        line, _, rest = entry.partition(b"\n")
        name, equals, value = line.partition(b"=")
        if not equals:
            (size,) = struct.unpack_from("<Q", rest)
            value, rest = rest[8 : 8 + size], rest[8 + size :]
            assert rest[:1] == b"\n"
            rest = rest[1:]
        assert name.decode() not in fields
        fields[name.decode()] = value.decode()
        entry = rest
    return fields


class Journald:
    """A stand-in for journald's socket: reads when it is told to."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.setblocking(False)

    def entries(self) -> list[dict[str, str]]:
        found = []
        while True:
            try:
                found.append(decoded(self._socket.recv(1 << 20)))
            except BlockingIOError:
                return found

    def messages(self) -> list[str]:
        return [entry["MESSAGE"] for entry in self.entries()]

    def close(self, *, leave: bool = False) -> None:
        self._socket.close()
        if not leave:
            self._path.unlink(missing_ok=True)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "socket"


@pytest.fixture
def journald(path: Path) -> Iterator[Journald]:
    one = Journald(path)
    yield one
    one.close()


@pytest.fixture
def handler(path: Path) -> Iterator[JournalHandler]:
    one = JournalHandler(path)
    log.addHandler(one)
    log.setLevel(logging.DEBUG)
    yield one
    log.removeHandler(one)
    one.close()


def test_an_entry_has_its_fields(journald: Journald, handler: JournalHandler) -> None:
    log.warning("replica %s: gave up", "tiny", extra={"replica": "tiny", "cause": "failed"})
    (entry,) = journald.entries()
    assert int(entry.pop("CODE_LINE")) > 1
    assert entry == {
        "MESSAGE": "replica tiny: gave up",
        "PRIORITY": "4",
        "SYSLOG_IDENTIFIER": "farrier-agent",
        "FARRIER_REPLICA": "tiny",
        "FARRIER_CAUSE": "failed",
        "CODE_FILE": __file__,
        "CODE_FUNC": "test_an_entry_has_its_fields",
    }


@pytest.mark.parametrize(
    ("level", "priority"), [(50, "3"), (40, "3"), (30, "4"), (20, "6"), (10, "7"), (5, "7")]
)
def test_priorities(journald: Journald, handler: JournalHandler, level: int, priority: str) -> None:
    log.setLevel(1)
    log.log(level, "x")
    (entry,) = journald.entries()
    assert entry["PRIORITY"] == priority
    assert "FARRIER_REPLICA" not in entry


def test_a_traceback_is_one_entry(journald: Journald, handler: JournalHandler) -> None:
    try:
        raise KeyError("x")
    except KeyError:
        log.exception("a defect")
    (message,) = journald.messages()
    assert message.startswith("a defect\nTraceback (most recent call last):\n")
    assert message.endswith("KeyError: 'x'")


def test_a_message_without_end_is_shortened_in_its_middle(
    journald: Journald, handler: JournalHandler
) -> None:
    log.info("%s", "begin " + "\u00e9" * MAX_MESSAGE + " end")
    (message,) = journald.messages()
    assert len(message.encode()) < MAX_MESSAGE + 100
    assert message.startswith("begin \u00e9")
    assert message.endswith("\u00e9 end")
    assert f"… ({2 * MAX_MESSAGE + 10} bytes)" in message


names = st.from_regex(r"[A-Z][A-Z_]{0,10}", fullmatch=True)


@given(st.dictionaries(names, st.text(st.characters(codec="utf-8"))))
def test_whatever_a_value_is_it_comes_out_as_it_was(fields: dict[str, str]) -> None:
    assert decoded(encoded(iter(fields.items()))) == fields


@given(st.text())
def test_what_is_no_utf_8_is_escaped(text: str) -> None:
    message = decoded(encoded(iter([("MESSAGE", text)])))["MESSAGE"]
    assert message == text.encode("utf-8", "backslashreplace").decode()


def test_a_journald_that_hangs_holds_up_nobody(journald: Journald, handler: JournalHandler) -> None:
    begun = time.monotonic()
    for number in range(5000):
        log.info("entry %d", number)
    assert time.monotonic() - begun < 5
    taken = journald.messages()
    assert 0 < len(taken) < 5000
    assert taken == [f"entry {number}" for number in range(len(taken))]
    log.info("it reads again")
    assert journald.messages() == [
        f"{5000 - len(taken)} entries were lost: journald did not take them",
        "it reads again",
    ]
    assert handler.lost == 0


@pytest.mark.parametrize("leave", [True, False], ids=["nobody listens", "no socket"])
def test_a_journald_that_is_gone_and_another_one(path: Path, leave: bool) -> None:
    first = Journald(path)
    handler = JournalHandler(path)
    log.addHandler(handler)
    try:
        first.close(leave=leave)
        log.info("to nobody")
        assert handler.lost == 1
        path.unlink(missing_ok=True)
        second = Journald(path)
        log.info("to another")
        assert second.messages() == [
            "1 entries were lost: journald did not take them",
            "to another",
        ]
        second.close()
    finally:
        log.removeHandler(handler)
        handler.close()


def test_a_message_that_cannot_be_made_is_no_exception(
    journald: Journald, handler: JournalHandler, capfd: pytest.CaptureFixture[str]
) -> None:
    # not by way of the logger: pytest's own handler does raise
    handler.handle(log.makeRecord(log.name, 20, __file__, 1, "%d", ("no number",), None))
    (message,) = journald.messages()
    assert message.startswith("'%d' with ('no number',) cannot be logged: TypeError(")
    assert capfd.readouterr().err == ""


# -- which of the two --------------------------------------------------------------------------


@contextmanager
def pipe() -> Iterator[tuple[int, TextIO, str]]:
    """A pipe's end to read, its other end, and that as JOURNAL_STREAM names it."""
    reading, writing = os.pipe()
    with os.fdopen(writing, "w") as stream:
        found = os.fstat(writing)
        yield reading, stream, f"{found.st_dev}:{found.st_ino}"
    os.close(reading)


def test_only_a_stream_that_systemd_connected_is_the_journal() -> None:
    with pipe() as (_, stream, name), pipe() as (_, other, _name):
        assert is_journal({"JOURNAL_STREAM": name}, stream)
        assert not is_journal({"JOURNAL_STREAM": name}, other)
        assert not is_journal({"JOURNAL_STREAM": "8:1"}, stream)
        assert not is_journal({"JOURNAL_STREAM": ""}, stream)
        assert not is_journal({}, stream)
    assert not is_journal({"JOURNAL_STREAM": name}, io.StringIO())


PROGRAM = """
import logging, os, sys
from pathlib import Path
from farrier_agent import journal
if sys.argv[2] == "connected":
    found = os.fstat(2)
    os.environ["JOURNAL_STREAM"] = f"{found.st_dev}:{found.st_ino}"
elif sys.argv[2] == "inherited":
    os.environ["JOURNAL_STREAM"] = "8:1"
journal.set_up(path=Path(sys.argv[1]))
logging.getLogger("farrier-agent").info("one", extra={"replica": "tiny"})
logging.getLogger("asyncio").warning("noise")
"""


def said(path: Path, how: str) -> str:
    """What a program that was started *how* writes to its standard error."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(path), how],
        env={key: value for key, value in os.environ.items() if key != "JOURNAL_STREAM"},
        stderr=subprocess.PIPE,
        text=True,
        check=True,
        timeout=20,
    )
    return done.stderr


def test_under_systemd_it_goes_to_journald_and_nothing_to_standard_error(
    path: Path, journald: Journald
) -> None:
    assert said(path, "connected") == ""
    (entry,) = journald.entries()
    assert (entry["MESSAGE"], entry["FARRIER_REPLICA"]) == ("one", "tiny")


def test_where_systemd_has_no_journald_it_is_lines_with_their_priority(path: Path) -> None:
    assert said(path, "connected") == "<6>one\n"


def test_who_is_redirected_elsewhere_is_read_there(path: Path, journald: Journald) -> None:
    assert said(path, "inherited") == "<6>one\n"
    assert said(path, "not at all").endswith(" INFO one\n")
    assert journald.entries() == []
