"""Which unit a replica goes back to, and what that is in words. No host."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from farrier_agent.draining.record import Asker, Drain, Phase, Record
from farrier_agent.rollout.previous import (
    PreviousError,
    config_hash,
    differences,
    mark_in,
    proven,
    read_unit,
)

HASH, OTHER = "1" * 64, "2" * 64


def unit(
    version: str = "0.32.0-aaaaaaaa", arguments: str = "--port 8101", digest: str = HASH, **env: str
) -> str:
    lines = "".join(f"Environment={name}={value}\n" for name, value in env.items())
    return (
        f"[Unit]\nX-FarrierConfigHash={digest}\n[Service]\nExecStartPre=+/bin/true\n"
        f"ExecStart=/opt/farrier/vllm/{version}/bin/python -m vllm {arguments}\n{lines}"
    )


def record(phase: Phase, *, warm: bool | None = None, runs: bool = True) -> Record:
    drain = None
    if warm is not None:
        drain = Drain(
            askers=(Asker("root", "person", "a fan"),),
            policy="extend",
            begun_at=1,
            begun=1,
            settle_ends=1,
            deadline=9,
            warm=warm,
        )
    return Record(
        replica="tiny",
        phase=phase,
        reason="",
        by="",
        since_at=1,
        boot_id="b",
        engine_runs=runs,
        drain=drain,
    )


@pytest.mark.parametrize(
    ("now", "then", "told"),
    [
        (unit(), unit("0.31.0-bbbbbbbb"), "vllm 0.32.0-aaaaaaaa → 0.31.0-bbbbbbbb"),
        (unit(), unit(arguments="--port 8102"), "--port 8101 → --port 8102"),
        (unit(arguments="--port 1 --eager"), unit(arguments="--port 1"), "--eager → nothing"),
        (unit(arguments="--port 1"), unit(arguments="--port 1 --eager"), "nothing → --eager"),
        # values of an environment are nobody's business here
        (unit(TOKEN="geheim"), unit(TOKEN="secret"), "environment: TOKEN"),
        (unit(), unit(SEED="1"), "environment: SEED"),
        (unit(), unit(digest=OTHER), "configuration 11111111 → 22222222"),
        (
            unit("0.32.0-a", "--a 1 --b 2 --c 3 --d 4 --e 5"),
            unit("0.31.0-b", "--a 0 --b 2 --c 0 --d 4 --e 0"),
            "vllm 0.32.0-a → 0.31.0-b; --a 1 → --a 0; --c 3 → --c 0; --e 5 → --e 0",
        ),
    ],
)
def test_what_is_otherwise_in_words(now: str, then: str, told: str) -> None:
    assert differences(now, then) == told


def test_another_program_is_named() -> None:
    other = unit().replace("/opt/farrier/vllm/0.32.0-aaaaaaaa/bin/python -m vllm", "/bin/llama")
    assert differences(unit(), other).startswith("vllm 0.32.0-aaaaaaaa → /bin/llama")


@pytest.mark.parametrize(
    ("known", "started", "found"),
    [
        (record(Phase.READY), HASH, True),
        (record(Phase.DRAINING, warm=True), HASH, True),
        (record(Phase.DRAINED, warm=True), HASH, True),
        (record(Phase.DRAINED, warm=False), HASH, False),
        (record(Phase.DRAINED, warm=True, runs=False), HASH, False),
        (record(Phase.WARMING), HASH, False),
        (record(Phase.STARTING), HASH, False),
        (record(Phase.FAILED), HASH, False),
        (record(Phase.STOPPED), HASH, False),
        # it runs with another one than its unit's
        (record(Phase.READY), OTHER, False),
        (record(Phase.READY), None, False),
        (None, HASH, False),
    ],
)
def test_only_what_was_warm_with_it_proves_a_unit(
    known: Record | None, started: str | None, found: bool
) -> None:
    assert proven(known, started, HASH) is found
    assert proven(known, started, None) is False


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xfe",
        b"[Unit]\n",
        unit().replace(HASH, "none").encode(),
        unit().encode() + f"X-FarrierConfigHash={OTHER}\n".encode(),
        b"X-FarrierConfigHash=" + HASH.encode() + b"\n",
        unit().encode() + b"#" * 2**20,
    ],
)
def test_what_is_no_unit_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "engine-tiny.service"
    path.write_bytes(data)
    with pytest.raises(PreviousError, match="not the unit of an engine"):
        read_unit(path)


def test_a_unit_is_read(tmp_path: Path) -> None:
    path = tmp_path / "engine-tiny.service"
    assert read_unit(path) is None
    path.write_text(unit())
    assert config_hash(read_unit(path) or "") == HASH


@pytest.mark.parametrize("data", ["", "{}", "[]", '{"to":5}', "\x00"])
def test_a_mark_that_is_none_says_nothing(tmp_path: Path, data: Any) -> None:
    (tmp_path / "engine-tiny.put-back").write_text(data)
    assert mark_in(tmp_path, "engine-tiny.service") is None
    (tmp_path / "engine-tiny.put-back").write_text(f'{{"to":"{HASH}","later":1}}')
    found = mark_in(tmp_path, "engine-tiny.service")
    assert found is not None
    assert found.to == HASH
