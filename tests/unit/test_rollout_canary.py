"""The judgement of a canary, which host it is, and what is refused. No host."""

from __future__ import annotations

from fractions import Fraction
from math import comb

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from farrier.cli.rollout import rollout
from farrier.rollout.canary_plan import check_gateways, check_replicas
from farrier.rollout.comparing import Answers, by_chance, compare
from farrier.rollout.errors import RefusedError
from farrier.rollout.gateways import Counting
from farrier.rollout.ledger import (
    HostRecord,
    Ledger,
    Operator,
    Options,
    ReplicaRecord,
    decode,
    encode,
    name_canary,
)
from farrier.rollout.pages import compared_table, ledger_lines
from farrier.rollout.plan import Wanted, make_plan
from tests.unit.test_rollout_plan import host, replica

COUNTS = st.integers(0, 40)


def answers(good: int, bad: int = 0, *, ms: int = 100, broken: int = 0) -> Answers:
    return Answers(statuses={"200": good, "500": bad}, broken=broken, first_token={ms: good})


def judged(canary: Answers, rest: Answers, *, final: bool = True) -> str | None:
    return compare("tiny", "gpu01:tiny", canary, rest, seconds=60, final=final).verdict


# -- chance ------------------------------------------------------------------------------------


@given(COUNTS, COUNTS, COUNTS, COUNTS)
def test_chance_is_fishers_exact_test(bad: int, good: int, others_bad: int, others: int) -> None:
    count, others_count = bad + good, others_bad + others
    all_bad = bad + others_bad
    exact = sum(
        Fraction(
            comb(count, each) * comb(others_count, all_bad - each),
            comb(count + others_count, all_bad),
        )
        for each in range(bad, min(count, all_bad) + 1)
        if all_bad - each <= others_count
    )
    assert by_chance(bad, count, others_bad, others_count) == pytest.approx(float(exact), abs=1e-9)


def test_chance_of_a_quarter_of_a_million_answers_is_still_a_number() -> None:
    assert by_chance(2_000, 25_000, 2_000, 225_000) < 1e-100
    assert by_chance(200, 25_000, 1_800, 225_000) == pytest.approx(0.5, abs=0.05)


# -- worse, as well, not proven ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("canary", "rest", "verdict"),
    [
        (answers(100), answers(900), "as well"),
        (answers(20), answers(20), "as well"),
        (answers(19), answers(900), "not proven"),
        (answers(100), answers(19), "not proven"),
        (answers(0), answers(900), "not proven"),
        (answers(0), answers(0), "not proven"),
        # errors: it matters, and it is no chance
        (answers(90, 10), answers(900), "worse"),
        (answers(0, 3), answers(900), "worse"),
        (answers(100, broken=10), answers(900), "worse"),
        # one of many is chance, and so is one of few
        (answers(99, 1), answers(900), "as well"),
        (answers(39, 1), answers(200, 1), "as well"),
        # as bad as the rest is no worse
        (answers(90, 10), answers(810, 90), "as well"),
        # not chance, and too little to matter
        (answers(9_900, 100), answers(90_000), "as well"),
        # slower by half and by 0.1 s
        (answers(100, ms=260), answers(900, ms=100), "worse"),
        (answers(100, ms=190), answers(900, ms=100), "as well"),
        (answers(100, ms=1_400), answers(900, ms=1_000), "as well"),
        (answers(100, ms=1_600), answers(900, ms=1_000), "worse"),
        (answers(100, ms=10), answers(900, ms=1_000), "as well"),
        # errors are told first, and too few answers excuse none
        (answers(5, 5), answers(900), "worse"),
    ],
)
def test_the_verdict(canary: Answers, rest: Answers, verdict: str) -> None:
    assert judged(canary, rest) == verdict


def test_a_few_slow_answers_of_the_canary_are_chance_and_many_are_not() -> None:
    rest = Answers(statuses={"200": 200}, first_token={100: 190, 900: 10})
    for slow, verdict in ((2, "as well"), (15, "worse")):
        canary = Answers(statuses={"200": 40}, first_token={100: 40 - slow, 900: slow})
        assert judged(canary, rest) == verdict


def test_before_the_end_only_what_is_clear_is_told() -> None:
    rest = answers(300)
    unclear, clear = answers(37, 3), answers(20, 20)
    assert judged(unclear, rest) == "worse"
    assert judged(unclear, rest, final=False) is None
    assert judged(clear, rest, final=False) == "worse"
    assert judged(answers(40), rest, final=False) is None
    assert judged(answers(1), rest, final=False) is None


def test_it_is_said_in_a_sentence() -> None:
    worse = compare("tiny", "gpu01:tiny", answers(90, 10), answers(900), seconds=60, final=True)
    assert worse.why == (
        "gpu01:tiny is worse than the rest of tiny:"
        " 10 of its 100 answers were errors, 0 of 900 of the rest"
    )
    few = compare("tiny", "gpu01:tiny", answers(3), answers(900), seconds=60, final=True)
    assert few.why == "gpu01:tiny: not proven: 20 answers are needed, and it gave 3"


SIDES = st.builds(
    lambda times, bad: Answers(
        statuses={"200": sum(times.values()), "502": bad}, first_token=times, broken=0
    ),
    st.dictionaries(st.integers(0, 60_000), st.integers(1, 50), max_size=8),
    st.integers(0, 30),
)


@given(SIDES, st.booleans())
def test_what_is_like_the_rest_is_never_worse(side: Answers, final: bool) -> None:
    assert judged(side, side, final=final) != "worse"


@given(SIDES, SIDES)
def test_what_is_clear_before_the_end_is_clear_at_the_end(canary: Answers, rest: Answers) -> None:
    if judged(canary, rest, final=False) == "worse":
        assert judged(canary, rest) == "worse"


@given(st.lists(st.integers(0, 10_000), min_size=1, max_size=60), st.sampled_from([0.5, 0.95]))
def test_a_quantile_is_one_of_the_times(times: list[int], share: float) -> None:
    side = Answers()
    for each in times:
        side.add(Answers(first_token={each: 1}))
    found = side.quantile(share)
    assert found is not None
    within = sum(each / 1000 <= found for each in times)
    assert within >= share * len(times) > sum(each / 1000 < found for each in times)


# -- what gateways saw ---------------------------------------------------------------------------


def test_answers_are_counted_by_replica_as_haproxy_tells_of_them() -> None:
    counting = Counting(("tiny",))
    counting.take(
        [
            ("gpu01:tiny", 200, "--", 80, 7),
            ("gpu01:tiny", 200, "SD", 80, 2),  # broke off after its head
            ("gpu01:tiny", 200, "CD", 90, 1),  # the client left
            ("gpu01:tiny", 502, "SH", -1, 1),
            ("gpu01:tiny", 200, "CH", -1, 3),  # it left before there was an answer: 499
            ("gpu01:tiny", 503, "--", 5, 4),  # a gate
            ("gpu02:tiny", 200, "--", 80, 50),
            ("gpu03:tiny", 200, "--", 70, 50),
            ("<NOSRV>", 429, "PR", -1, 9),
        ]
    )
    counting.take([("gpu01:tiny", 200, "--", 80, 3)])
    canary, rest = counting.sides("gpu01:tiny", ("gpu02:tiny", "gpu03:tiny", "gpu04:tiny"))
    assert (canary.count, canary.errors, canary.timed) == (14, 3, 13)
    assert (rest.count, rest.errors, rest.first_token) == (100, 0, {80: 50, 70: 50})
    again, _ = counting.sides("gpu01:tiny", ())
    assert again.count == 14, "asked twice it is no more"


# -- which host it is ----------------------------------------------------------------------------


def ledger(*batches: int, canary: int | None = 10) -> Ledger:
    hosts = [HostRecord(host=f"gpu{n:02}", batch=batch) for n, batch in enumerate(batches, 1)]
    return Ledger(
        id="r-1",
        kind="converge",
        options=Options(canary=canary, hold=900.0),
        operators=[Operator(holder="alice@laptop", since_at=0)],
        hosts=hosts,
        planned_at=0,
    )


def end(one: HostRecord, *changed: str) -> None:
    one.state = "done"
    one.replicas = [ReplicaRecord(name=name, model=name) for name in changed]


def test_the_first_host_in_which_something_is_changed_is_the_canary_alone() -> None:
    it = ledger(0, 1, 1, 1, 2)
    name_canary(it, 0)
    assert [one.canary for one in it.hosts] == [True, False, False, False, False]
    end(it.hosts[0])  # nothing was to be changed there
    name_canary(it, 1)
    assert [one.canary for one in it.hosts] == [True, True, False, False, False]
    assert [one.batch for one in it.hosts] == [0, 1, 2, 2, 3]
    name_canary(it, 1)
    assert [one.batch for one in it.hosts] == [0, 1, 2, 2, 3], "asked twice is once"
    end(it.hosts[1], "tiny")
    name_canary(it, 2)
    assert [one.canary for one in it.hosts] == [True, True, False, False, False]


def test_without_canary_nobody_is() -> None:
    it = ledger(0, 1, canary=None)
    name_canary(it, 0)
    assert not any(one.canary for one in it.hosts)


def test_the_canarys_batch_is_one_host() -> None:
    fleet = {name: host(name, replica()) for name in ("gpu01", "gpu02", "gpu03")}
    wanted = Wanted(kind="converge", first=("gpu03", "gpu02"), batch="3", canary=True)
    batches = make_plan(wanted, fleet).batches
    assert [[one.host for one in batch] for batch in batches] == [["gpu03"], ["gpu02", "gpu01"]]


# -- what is refused -----------------------------------------------------------------------------

REST = {"tiny": ("gpu02:tiny", "gpu03:tiny"), "solo": ()}
TINY, SOLO = ("tiny", "tiny"), ("solo", "solo")


def test_what_nobody_else_serves_cannot_be_compared() -> None:
    with pytest.raises(RefusedError, match="nobody else serves solo"):
        check_replicas("gpu01", [SOLO], REST.__getitem__, certain=False)
    # of both it may be tiny alone that is changed: that is known after the converge
    check_replicas("gpu01", [TINY, SOLO], REST.__getitem__, certain=False)
    with pytest.raises(RefusedError, match="nobody else serves solo"):
        check_replicas("gpu01", [TINY, SOLO], REST.__getitem__, certain=True)
    check_replicas("gpu01", [TINY], REST.__getitem__, certain=True)
    with pytest.raises(RefusedError, match="more than one replica of tiny"):
        check_replicas("gpu01", [TINY, ("other", "tiny")], REST.__getitem__, certain=True)


def test_a_gateway_that_cannot_share_refuses_it() -> None:
    known = {"gw01": {"gpu01:tiny", "gpu02:tiny"}}
    check_gateways("gpu01", [TINY], REST.__getitem__, known, {"gw01": {}})
    # its own of before is set anew, and another model's is none of ours
    mine = {"gw01": {"gpu01:tiny": 10, "gpu02:other": 5}}
    check_gateways("gpu01", [TINY], REST.__getitem__, known, mine)
    with pytest.raises(RefusedError, match="the inventory has none") as none:
        check_gateways("gpu01", [TINY], REST.__getitem__, {}, {})
    assert none.value.code == 3
    with pytest.raises(RefusedError, match="gw01 does not know gpu01:new") as unknown:
        check_gateways("gpu01", [("new", "tiny")], REST.__getitem__, known, {})
    assert unknown.value.next == "pyinfra inventory deploys/llm.py --limit gw01"
    with pytest.raises(RefusedError, match="gpu02:tiny has 20 % of tiny already") as taken:
        check_gateways("gpu01", [TINY], REST.__getitem__, known, {"gw01": {"gpu02:tiny": 20}})
    assert "/etc/haproxy/farrier/share gpu02:tiny 100" in str(taken.value.next)


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["converge", "--canary", "10%"], "need each other"),
        (["converge", "--hold", "15m"], "need each other"),
        (["converge", "--canary", "0%", "--hold", "15m"], "from 1% to 50%"),
        (["converge", "--canary", "51", "--hold", "15m"], "from 1% to 50%"),
        (["converge", "--canary", "ten", "--hold", "15m"], "from 1% to 50%"),
        (["converge", "--canary", "10%", "--hold", "0"], "a time like 15m"),
        (["converge", "--canary", "10%", "--hold", "2d"], "a time like 15m"),
        (["converge", "--canary", "10%", "--hold", "25h"], "a time like 15m"),
        (["restart", "--canary", "10%", "--hold", "15m"], "No such option"),
    ],
)
def test_wrong_usage(argv: list[str], said: str) -> None:
    done = CliRunner().invoke(rollout, argv)
    assert done.exit_code == 2
    assert said in done.output


# -- told ----------------------------------------------------------------------------------------


def test_the_comparison_is_in_the_ledger_and_told() -> None:
    it = ledger(0)
    it.hosts[0].compared = [
        compare("tiny", "gpu01:tiny", answers(90, 10), answers(900), seconds=60, final=True)
    ]
    it.hosts[0].shared = ["gpu01:tiny"]
    read = decode(encode(it))
    assert read.hosts[0].compared == it.hosts[0].compared
    table = compared_table(read)
    assert table is not None
    cells = [list(column.cells) for column in table.columns]
    assert cells == [
        ["tiny", ""],
        ["gpu01:tiny", "the rest"],
        ["100", "900"],
        ["10 (10.0 %)", "0 (0.0 %)"],
        ["0.100 s", "0.100 s"],
        ["0.100 s", "0.100 s"],
    ]
    lines = [line.plain for line in ledger_lines(read)]
    assert any("canary worse, 60 s:" in line for line in lines)
    assert any("gpu01:tiny may have a share of its own" in line for line in lines)
    assert compared_table(ledger(0)) is None
