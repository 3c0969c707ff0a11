"""What a head's agent says of its run, and what a member makes of the answer."""

from __future__ import annotations

import socket

import pytest
from farrier_agent.agentcheck import AgentCheck
from farrier_agent.spanning import runs
from farrier_agent.spanning.follow import ask
from farrier_agent.spanning.runs import ENDED, is_over, joinable, read, told
from farrier_agent.status import Unit
from hypothesis import given
from hypothesis import strategies as st

ONE, TWO = "1" * 32, "2" * 32


def unit(active: str, sub: str, run: str | None = ONE) -> Unit:
    return Unit(
        name="engine-big.service",
        load_state="loaded",
        active_state=active,
        sub_state=sub,
        invocation_id=run,
    )


@pytest.mark.parametrize(
    ("active", "sub"),
    [
        ("activating", "start-pre"),
        ("activating", "start"),
        ("active", "running"),
        ("deactivating", "stop"),
        ("deactivating", "stop-sigterm"),
    ],
)
def test_a_head_runs_from_its_start_to_the_end_of_its_process(active: str, sub: str) -> None:
    """While it drains, its members are still needed."""
    assert told(unit(active, sub)) == b"running " + ONE.encode() + b"\n"


@pytest.mark.parametrize(
    ("active", "sub"),
    [
        ("inactive", "dead"),
        ("failed", "failed"),
        ("deactivating", "stop-post"),
        ("deactivating", "final-sigkill"),
        ("activating", "auto-restart"),
    ],
)
def test_a_run_is_over_once_its_process_has_ended(active: str, sub: str) -> None:
    assert told(unit(active, sub)) == b"ended\n"


def test_a_run_without_a_name_is_not_told() -> None:
    assert told(unit("active", "running", None)) is None


def test_answers_are_read_as_they_are_told() -> None:
    assert read(told(unit("active", "running")) or b"") == ONE
    assert read(told(unit("inactive", "dead")) or b"") == ENDED


@given(st.binary(max_size=80))
def test_what_is_no_answer_is_no_news(answer: bytes) -> None:
    heard = read(answer)
    assert heard is None or answer in {b"ended\n", b"running " + heard.encode() + b"\n"}


def test_only_another_run_or_none_ends_a_member() -> None:
    assert not is_over(ONE, ONE)
    assert not is_over(ONE, None)
    assert is_over(ONE, TWO)
    assert is_over(ONE, ENDED)
    assert [one for one in (None, ENDED, ONE) if joinable(one)] == [ONE]


def test_the_agents_port_answers_it() -> None:
    answers = {"big": b"running " + ONE.encode() + b"\n", "old": b"ended\n"}
    with socket.create_server(("127.0.0.1", 0)) as listener:
        check = AgentCheck(lambda _name: True, listener, run=answers.get)
        assert check.answer(runs.RUN + b"big") == answers["big"]
        assert check.answer(runs.RUN + b"old\r") == b"ended\n"
        assert check.answer(runs.RUN + b"lost") is None
        assert check.answer(runs.RUN + b"../big") is None
        assert check.answer(b"big") == b"up ready 100%\n"
        assert AgentCheck(lambda _name: True, listener).answer(runs.RUN + b"big") is None


def test_asking_costs_no_more_than_its_patience() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert ask(("127.0.0.1", silent.getsockname()[1]), "big", 0.2) is None
        port = silent.getsockname()[1]
    assert ask(("127.0.0.1", port), "big", 0.2) is None
