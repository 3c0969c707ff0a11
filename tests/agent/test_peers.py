"""The fleet's breaker: one host after another, and only while somebody else serves."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress

from farrier_agent.agentcheck import AgentCheck
from farrier_agent.config import Peer
from farrier_agent.serving.peers import MOMENT, MOMENTS, ask, its_moment
from hypothesis import given
from hypothesis import strategies as st


def peer(host: str, port: int = 1) -> Peer:
    return Peer(host=host, model="m", address=f"127.0.0.1:{port}", replica="tiny")


hosts = st.lists(
    st.from_regex(r"gpu[0-9]{1,3}", fullmatch=True), min_size=2, max_size=MOMENTS, unique=True
)


@given(hosts, st.floats(0, 2e9))
def test_a_moment_belongs_to_one_host_at_the_most(names: list[str], now: float) -> None:
    deciding = [
        name
        for name in names
        if its_moment(name, [peer(other) for other in names if other != name], now)
    ]
    assert len(deciding) <= 1


@given(hosts, st.integers(0, 2_000_000_000))
def test_everybody_has_a_moment_in_each_round(names: list[str], now: int) -> None:
    for name in names:
        others = [peer(other) for other in names if other != name]
        assert any(its_moment(name, others, now + turn * MOMENT) for turn in range(len(names)))


def test_a_host_without_others_decides_early_in_any_second() -> None:
    assert its_moment("gpu01", [], 1000.1)
    assert not its_moment("gpu01", [], 1000.9)


def listening() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0))


def answers(takes: Callable[[str], bool]) -> dict[str, bool | None]:
    """What two peers say: an agent, and a port where somebody listens and never answers."""

    async def asked() -> dict[str, bool | None]:
        with listening() as real, listening() as silent, listening() as closed:
            port = closed.getsockname()[1]
            closed.close()
            serving = asyncio.ensure_future(AgentCheck(takes, real).serve())
            peers = [
                peer("gpu02", real.getsockname()[1]),
                peer("gpu03", silent.getsockname()[1]),
                peer("gpu04", port),
            ]
            try:
                return await ask(peers)
            finally:
                serving.cancel()
                with suppress(asyncio.CancelledError):  # before its socket goes
                    await serving

    return asyncio.run(asked())


def test_a_peer_that_serves_says_so_and_one_that_says_nothing_is_unknown() -> None:
    assert answers(lambda name: name == "tiny") == {
        "gpu02/tiny": True,
        "gpu03/tiny": None,
        "gpu04/tiny": None,
    }


def test_a_peer_that_drains_says_so() -> None:
    assert answers(lambda _name: False)["gpu02/tiny"] is False
