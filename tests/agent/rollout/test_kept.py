"""What is kept of rollouts on the disk, and what becomes of it when it is spoilt."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from farrier_agent.control.errors import ControlError, UsageError
from farrier_agent.draining.record import Now
from farrier_agent.rollout import audit as audits
from farrier_agent.rollout import lease as rules
from farrier_agent.rollout import ledgers
from farrier_agent.rollout.audit import AuditLine, AuditLog
from farrier_agent.rollout.keeping import LeaseFile, LeaseFileError
from farrier_agent.rollout.lease import State
from farrier_agent.rollout.ledgers import LedgerShelf

NOW = Now("boot-1", 1000.0, 1_795_000_000.0)


def lent(token: int = 6) -> State:
    return rules.lend(State(token=token), "r-1", "alice@laptop", 60, NOW)


def line(**fields: object) -> AuditLine:
    known: dict[str, object] = {"at": 1.0, "by": "root", "verb": "drain", "outcome": "done"}
    return AuditLine(**known | fields)  # type: ignore[arg-type]


# -- the lease ---------------------------------------------------------------------------------


def test_a_state_reads_back(tmp_path: Path) -> None:
    file = LeaseFile(tmp_path / "rollout")
    assert file.load(NOW) == (State(), None)
    state = rules.begun(lent(), 7, "restart", NOW)
    file.save(state)
    assert file.load(NOW) == (state, None)
    assert (tmp_path / "rollout/lease.json").stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "rollout/token").read_text() == "7\n"


@pytest.mark.parametrize("garbage", [b"", b"{", b"\xff\xfe", b'{"schema":1,"token":"x"}', b"[]"])
def test_garbage_is_moved_aside_and_may_have_been_a_rollout_at_work(
    tmp_path: Path, garbage: bytes
) -> None:
    file, path = LeaseFile(tmp_path), tmp_path / "lease.json"
    file.save(lent())
    path.write_bytes(garbage)
    state, wrong = file.load(NOW)
    assert wrong is not None
    assert f"it was moved to {tmp_path / 'lease.bad'}" in wrong
    assert (tmp_path / "lease.bad").read_bytes() == garbage
    assert state.acting is not None
    assert (state.token, state.lease, state.acting.deed) == (7, None, "unknown")
    assert LeaseFile(tmp_path).load(NOW) == (state, None), "and stays so"
    assert rules.lend(state, "r-2", "bob", 60, NOW, takeover=True).token == 8


def test_a_state_that_is_gone_was_somebodys(tmp_path: Path) -> None:
    LeaseFile(tmp_path).save(lent())
    (tmp_path / "lease.json").unlink()
    state, wrong = LeaseFile(tmp_path).load(NOW)
    assert wrong is not None
    assert state.acting is not None
    assert state.token == 7


def test_the_audit_remembers_tokens_too(tmp_path: Path) -> None:
    LeaseFile(tmp_path).save(lent())
    AuditLog(tmp_path).write(line(token=7))
    (tmp_path / "lease.json").write_bytes(b"x")
    (tmp_path / "token").write_bytes(b"x")
    assert LeaseFile(tmp_path).load(NOW)[0].token == 7


def test_a_newer_agents_state_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "lease.json"
    path.write_text('{"schema": 2, "token": {}}')
    with pytest.raises(LeaseFileError, match="schema 2 is newer than this agent's"):
        LeaseFile(tmp_path).load(NOW)
    assert path.read_text() == '{"schema": 2, "token": {}}'


def test_a_power_cut_leaves_the_old_state_or_the_new_one(tmp_path: Path) -> None:
    file = LeaseFile(tmp_path)
    file.save(lent())
    (tmp_path / "lease.new").write_bytes(b'{"schema"')
    assert file.load(NOW) == (lent(), None)
    file.save(lent(7))
    assert file.load(NOW)[0].token == 8


def test_what_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(LeaseFileError, match=r"cannot be written: .*next: df -h"):
        LeaseFile(tmp_path / "file").save(lent())


# -- the audit ---------------------------------------------------------------------------------


def test_lines_are_kept_in_order_and_a_torn_one_spoils_no_other(tmp_path: Path) -> None:
    log = AuditLog(tmp_path)
    assert log.last(10) == ()
    log.write(line(at=1.0))
    with (tmp_path / "audit.jsonl").open("ab") as file:
        file.write(b'{"at":1.5,"by":"ro')  # power was lost here
    log.write(line(at=2.0, reason="a\nlie"))
    assert [one.at for one in log.last(10)] == [1.0, 2.0]
    assert [one.at for one in log.last(1)] == [2.0]
    assert len((tmp_path / "audit.jsonl").read_text().splitlines()) == 3


def test_it_does_not_grow_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audits, "MOST", 2000)
    log = AuditLog(tmp_path)
    for number in range(100):
        log.write(line(at=float(number), token=number + 1))
    assert sum(one.stat().st_size for one in tmp_path.iterdir()) < 4200
    assert log.last(3)[-1].at == 99.0
    assert len(log.last(1000)) > 10
    assert log.highest_token() == 100


# -- ledgers -----------------------------------------------------------------------------------


def test_a_ledger_reads_back_and_the_newest_is_first(tmp_path: Path) -> None:
    shelf = LedgerShelf(tmp_path / "ledgers")
    assert shelf.all() == ()
    content = json.dumps({"hosts": ["gpu01"], "name": "ä"}, indent=1, ensure_ascii=False)
    put = shelf.put("r-1", content.encode())
    assert (put.id, put.size_bytes, put.content) == ("r-1", len(content.encode()), None)
    assert shelf.get("r-1").content == content
    assert (tmp_path / "ledgers/r-1.json").stat().st_mode & 0o777 == 0o640
    shelf.put("r-1.5", b"{}")
    assert {one.id for one in shelf.all()} == {"r-1", "r-1.5"}


def test_what_is_no_json_is_not_kept(tmp_path: Path) -> None:
    shelf = LedgerShelf(tmp_path)
    for content in (b"", b"{", b"\xff"):
        with pytest.raises(UsageError, match="the ledger r-1 is no JSON"):
            shelf.put("r-1", content)
    with pytest.raises(ControlError, match="this host has no ledger r-1"):
        shelf.get("r-1")
    assert shelf.all() == ()


def test_old_ledgers_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledgers, "MOST", 3)
    shelf = LedgerShelf(tmp_path)
    for number in range(6):
        shelf.put(f"r-{number}", b"{}")
    assert len(shelf.all()) == 3
    assert "r-5" in {one.id for one in shelf.all()}
