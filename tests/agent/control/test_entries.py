"""The journal read back: journalctl's JSON, and a stand-in for the program that prints it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing
from pathlib import Path

import pytest
from farrier_agent.control import entries as module
from farrier_agent.control.entries import MAX_LINE, MAX_MESSAGE, Lines, command, entries, entry_in
from farrier_agent.control.errors import ControlError
from farrier_agent.control.protocol import Entry
from hypothesis import given
from hypothesis import strategies as st

from tests.agent.host import until

GOOD = {
    "__REALTIME_TIMESTAMP": "1800000000250000",
    "PRIORITY": "4",
    "MESSAGE": "replica tiny: ready -> draining",
    "FARRIER_REPLICA": "tiny",
    "FARRIER_CAUSE": "draining",
    "_HOSTNAME": "gpu01",
}
ENTRY = Entry(
    at=1_800_000_000.25,
    priority=4,
    message="replica tiny: ready -> draining",
    replica="tiny",
    cause="draining",
)


def line(**changes: object) -> bytes:
    fields = {key: value for key, value in (GOOD | changes).items() if value is not ...}
    return json.dumps(fields).encode()


# -- a line ------------------------------------------------------------------------------------


def test_an_entry() -> None:
    assert entry_in(line()) == ENTRY


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("plain", "plain"),
        (list("caf\u00e9".encode()), "caf\u00e9"),
        ([255, 254, 65], "\ufffd\ufffdA"),
        (["first", "second"], "first"),
        ([[66, 255], "second"], "B\ufffd"),
        ([], ""),
        (None, ""),
        (..., ""),
        ([300], ""),
        ([True], ""),
        ({"a": 1}, ""),
        (7, ""),
    ],
)
def test_a_message_as_journald_may_write_it(value: object, text: str) -> None:
    entry = entry_in(line(MESSAGE=value))
    assert entry is not None
    assert entry.message == text


def test_a_message_without_end_is_shortened() -> None:
    entry = entry_in(line(MESSAGE="x" * (MAX_MESSAGE + 1)))
    assert entry is not None
    assert entry.message.endswith(f"x… ({MAX_MESSAGE + 1} characters)")


@pytest.mark.parametrize("priority", [..., "8", "-1", "x", [], None, 3, "9" * 5000])
def test_an_odd_priority_is_information(priority: object) -> None:
    entry = entry_in(line(PRIORITY=priority))
    assert entry is not None
    assert entry.priority == 6


@pytest.mark.parametrize("at", [..., "", "yesterday", None, 12, "-5", "1e9", "9" * 17])
def test_without_its_time_it_is_no_entry(at: object) -> None:
    assert entry_in(line(__REALTIME_TIMESTAMP=at)) is None


@given(st.binary(max_size=400))
def test_garbage_is_no_entry(data: bytes) -> None:
    assert entry_in(data) is None or json.loads(data)["__REALTIME_TIMESTAMP"]


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=10,
)


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(GOOD, values)))
def test_whatever_a_field_is_a_line_is_an_entry_or_none(fields: dict[str, object]) -> None:
    entry = entry_in(json.dumps(GOOD | fields).encode())
    if entry is not None:
        assert entry.at >= 0
        assert 0 <= entry.priority <= 7
        assert isinstance(entry.message, str)


@pytest.mark.parametrize("deep", [b"[" * 200_000, b'{"MESSAGE":' + b"[" * 100_000])
def test_nesting_without_end_is_no_entry(deep: bytes) -> None:
    assert entry_in(deep) is None


# -- lines out of pieces -----------------------------------------------------------------------


@given(st.lists(st.binary(max_size=40).filter(lambda one: b"\n" not in one)), st.data())
def test_lines_are_the_same_however_they_are_cut(lines: list[bytes], data: st.DataObject) -> None:
    whole = b"".join(one + b"\n" for one in lines)
    cuts = data.draw(st.lists(st.integers(0, len(whole)), max_size=8).map(sorted))
    pieces = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    one = Lines()
    assert [found for piece in pieces for found in one.add(piece)] == lines


def test_a_line_without_end_is_passed_over_and_not_kept() -> None:
    one = Lines()
    for _ in range(100):
        assert one.add(b"x" * MAX_LINE) == []
        assert len(one._heard) <= MAX_LINE
    assert one.add(b"rest of it\nnext\n") == [b"next"]
    assert one.add(b"y" * (MAX_LINE + 1) + b"\nlast\n") == [b"last"]


# -- journalctl --------------------------------------------------------------------------------


def test_the_command() -> None:
    asked = command("tiny", 5, follow=True)
    assert asked[0] == "journalctl"
    assert {"--output=json", "--all", "--lines=5", "--follow", "FARRIER_REPLICA=tiny"} <= set(asked)
    assert "--unit=farrier-agent.service" in asked
    assert not {"--follow", "FARRIER_REPLICA=tiny"} & set(command(None, 5, follow=False))
    # without --merge it shows nothing where the sandbox hides the boot's id; with it, other hosts
    followed = command(None, 5, follow=True, machine="0" * 32)
    assert {"--merge", "_MACHINE_ID=" + "0" * 32} <= set(followed)
    assert "--merge" not in command(None, 5, follow=False, machine="0" * 32)


def program(tmp_path: Path, script: str) -> list[str]:
    """A program in journalctl's place: writes its pid and arguments, and then does *script*."""
    text = f"echo $$ > {tmp_path}/pid; printf '%s\\n' \"$@\" > {tmp_path}/arguments\n{script}"
    path = tmp_path / "journalctl.sh"
    path.write_text(text)
    return ["sh", str(path)]


def alive(tmp_path: Path) -> bool:
    pid = int((tmp_path / "pid").read_text())
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def read(these: AsyncIterator[Entry]) -> list[Entry]:
    return [entry async for entry in these]


def test_entries_of_a_replica(tmp_path: Path) -> None:
    text = line().decode()
    shell = program(tmp_path, f"cat <<'END'\n{text}\n-- No entries --\n{text}\nEND")
    assert asyncio.run(read(entries("tiny", 7, program=shell))) == [ENTRY, ENTRY]
    arguments = (tmp_path / "arguments").read_text().splitlines()
    assert arguments == command("tiny", 7, follow=False)[1:]


def test_what_journalctl_complains_of_is_said(tmp_path: Path) -> None:
    why = "No journal files were opened due to insufficient permissions."
    shell = program(tmp_path, f"echo 'Hint: x' >&2; echo '{why}' >&2; exit 1")
    with pytest.raises(ControlError, match="insufficient permissions") as caught:
        asyncio.run(read(entries(None, 1, program=shell)))
    assert caught.value.next == "journalctl --unit=farrier-agent.service"


def test_no_journalctl(tmp_path: Path) -> None:
    with pytest.raises(ControlError, match="cannot be run: No such file"):
        asyncio.run(read(entries(None, 1, program=[str(tmp_path / "none")])))


FOLLOWING = f"echo '{line().decode()}'; exec sleep 600"
STUBBORN = f"trap '' TERM; echo '{line().decode()}'; while :; do sleep 0.1; done"


@pytest.mark.parametrize("script", [FOLLOWING, STUBBORN], ids=["following", "stubborn"])
def test_it_ends_with_the_one_who_asked(
    tmp_path: Path, script: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PATIENCE", 0.2)
    heard: list[Entry] = []

    async def ask() -> None:
        shell = program(tmp_path, script)
        async with aclosing(entries(None, 1, follow=True, program=shell)) as following:
            heard.append(await anext(following))
            await anext(following)

    async def go_away() -> None:
        asking = asyncio.create_task(ask())
        while not heard:
            await asyncio.sleep(0.01)
        assert alive(tmp_path)
        asking.cancel()
        await asyncio.wait({asking})
        assert asking.cancelled()

    asyncio.run(go_away())
    assert heard == [ENTRY]
    until(lambda: not alive(tmp_path))


def test_also_when_nobody_closes_the_iterator(tmp_path: Path) -> None:
    async def first() -> Entry:
        async for entry in entries(None, 1, follow=True, program=program(tmp_path, FOLLOWING)):
            return entry
        raise AssertionError("no entry")

    async def agent() -> None:
        assert await first() == ENTRY
        while alive(tmp_path):
            await asyncio.sleep(0.01)

    asyncio.run(asyncio.wait_for(agent(), 10))


def test_a_journalctl_that_is_killed_is_no_end_of_the_journal(tmp_path: Path) -> None:
    async def ask() -> None:
        async for _ in entries(None, 1, follow=True, program=program(tmp_path, FOLLOWING)):
            os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)

    with pytest.raises(ControlError, match="ended with -9"):
        asyncio.run(ask())


def test_there_are_never_more_readers_than_a_few(tmp_path: Path) -> None:
    async def ask() -> None:
        shell = program(tmp_path, FOLLOWING)
        async with AsyncExitStack() as stack:
            readers = [
                await stack.enter_async_context(
                    aclosing(entries(None, 1, follow=True, program=shell))
                )
                for _ in range(module.MAX_READERS + 1)
            ]
            *others, one_more = readers
            for reader in others:
                await anext(reader)
            with pytest.raises(ControlError, match="read by 8 others already"):
                await anext(entries(None, 1, program=shell))
            await others[0].aclose()
            assert await anext(one_more) == ENTRY

    asyncio.run(ask())
