"""What is a rollback's own: what hosts' files say, what it goes back to, what it takes over."""

from __future__ import annotations

from typing import Any

import pytest

from farrier.rollout.counts import Counts
from farrier.rollout.host import Look
from farrier.rollout.ledger import HostRecord, Ledger, Operator, Options, Outcome
from farrier.rollout.pages import STILL_WANTED, back_lines, ledger_lines
from farrier.rollout.questions import question_of_units, texts_of_units
from farrier.rollout.rollback import failed_before, words
from farrier.rollout.seen import HostSeen
from farrier.rollout.units_seen import UnitSeen, units_in
from tests.unit.test_rollout_resuming import record

OLD, NEW = "0" * 64, "f" * 64
UNITS, PREVIOUS = "/etc/systemd/system", "/var/lib/farrier/previous"


def unit(digest: str, argument: str) -> str:
    return (
        f"X-FarrierConfigHash={digest}\nExecStart=/opt/farrier/vllm/1-a/bin/python --n {argument}"
    )


def test_what_grep_says_of_units() -> None:
    mark = f'{{"to":"{OLD}","left":"{NEW}","rollout":"r-1","at":1.0}}'
    lines = "\n".join(
        (
            f"{UNITS}/engine-tiny.service:X-FarrierConfigHash={OLD}",
            f"{PREVIOUS}/engine-tiny.service:X-FarrierConfigHash={NEW}",
            f"{PREVIOUS}/engine-tiny.put-back:{mark}",
            f"{UNITS}/engine-my-embed.service:X-FarrierConfigHash={NEW}",
            f"{PREVIOUS}/engine-my-embed.service:X-FarrierConfigHash=garbage",
            f"{PREVIOUS}/engine-my-embed.put-back:nonsense",
            "grep: /root: Is a directory",
            "",
        )
    )
    assert units_in(lines) == {
        "tiny": UnitSeen(OLD, NEW, OLD),
        "my-embed": UnitSeen(NEW, None, None),
    }
    assert units_in("") == {}


def test_the_texts_of_units_come_by_one_command() -> None:
    asked = question_of_units(["tiny", "embed"])
    assert asked.count("cat ") == 4
    answer = "\n".join(
        f"\n== farrier rollout: {at}\n{text}"
        for at, text in enumerate(("now", "before", "one", ""))
    )
    found = texts_of_units(["tiny", "embed"], answer)
    assert {name: tuple(one.strip() for one in both) for name, both in found.items()} == {
        "tiny": ("now", "before"),
        "embed": ("one", ""),
    }


def test_what_it_goes_back_to_in_words() -> None:
    now, before = unit(NEW, "2"), unit(OLD, "1")
    assert words(now, before, back=OLD, put_back=False) == "--n 2 → --n 1"
    forward = words(before, now, back=NEW, put_back=True)
    assert forward == "forward again, to what was put back from: --n 1 → --n 2"
    again = words(before, now, back=OLD, put_back=True)
    assert again == "its unit was put back already, and is to be started"
    assert words(now, "", back=OLD, put_back=False) == "configuration 00000000"


def ledger(kind: Any, *hosts: HostRecord, outcome: Outcome = "planned", id: str = "r-2") -> Ledger:  # noqa: A002
    return Ledger(
        id=id,
        kind=kind,
        options=Options(),
        operators=[Operator(holder="alice@laptop", since_at=0)],
        hosts=list(hosts),
        outcome=outcome,
        planned_at=0,
    )


@pytest.mark.parametrize(
    ("outcome", "state", "acting", "of", "found"),
    [
        ("failed", "failed", "restart", "r-1", {"gpu01"}),
        ("aborted", "failed", "restart", "r-1", {"gpu01"}),
        # its process may live, or was killed: nobody knows how far it came
        ("running", "failed", "restart", "r-1", set()),
        ("failed", "running", "restart", "r-1", set()),
        ("done", "done", "restart", "r-1", set()),
        # of a rollout that no ledger tells of
        ("failed", "failed", "restart", "r-0", set()),
        # nothing is half done
        ("failed", "failed", None, "r-1", set()),
    ],
)
def test_only_what_is_known_to_have_failed_is_taken_over(
    outcome: Outcome, state: Any, acting: str | None, of: str, found: set[str]
) -> None:
    left = record("drain", "act")
    left.state = state
    other = ledger("converge", left, outcome=outcome, id="r-1")
    mine = ledger("rollback", HostRecord(host="gpu01", batch=0))
    look = Look(HostSeen(host="gpu01", rollout=of, acting=acting), Counts())
    assert failed_before(mine, {"gpu01": look}, [other, mine]) == found


def test_a_rollback_says_what_went_back_and_what_is_wanted_still() -> None:
    one = record("put-back", "drain", "act")
    one.replicas[0].goes_back = "--n 2 → --n 1"
    said = ledger("rollback", one, outcome="done")
    assert [line.plain for line in back_lines(said)] == ["goes back  gpu01:tiny: --n 2 → --n 1"]
    assert STILL_WANTED in [line.plain for line in ledger_lines(said)]
    said.outcome = "failed"
    assert STILL_WANTED not in [line.plain for line in ledger_lines(said)]
