"""An engine's life as the agent watches it, with a real engine that is asked."""

from __future__ import annotations

import asyncio
import time

import pytest
from farrier_agent.engines import ENGINES, Answer, Question
from farrier_agent.liveness import Patience
from farrier_agent.loopback import asker
from farrier_agent.vitals import Vitals, read_load

from tests.agent.host import free_port
from tests.agent.standin import Client, engine

PATIENCE = Patience(progress=0.6, probe=0.2, silence=1.0, gap=5)


def vitals(port: int, kind: str = "vllm") -> Vitals:
    return Vitals(asker(port), ENGINES[kind], "tiny", PATIENCE)


async def until(life: Vitals, *states: str, sockets: int = 1, run: str = "a") -> list[str]:
    """Look until the verdict is one of *states*; the verdicts until then, each told once."""
    seen: list[str] = []
    end = time.monotonic() + 10
    while not seen or seen[-1] not in states:
        assert time.monotonic() < end, seen
        verdict = await life.look(run, sockets=sockets, moved=0)
        if not seen or seen[-1] != verdict.state:
            seen.append(verdict.state)
        await asyncio.sleep(0.02)
    return seen


def test_a_suspect_engine_that_is_well_is_asked_and_cleared_again_and_again() -> None:
    async def watch(client: Client) -> None:
        life = vitals(client.port)
        for _ in range(3):
            assert await until(life, "suspect") == ["busy", "suspect"]
        life.close()

    with engine("--token-delay=0") as (client, _):
        asyncio.run(watch(client))
        assert 2 <= client.executed()["begun"] <= 3


def test_an_engine_that_wedged_while_idle_is_found_though_it_tells_nothing() -> None:
    async def watch(client: Client) -> None:
        life = vitals(client.port)
        assert await until(life, "wedged") == ["busy", "suspect", "wedged"]
        # a new run of the unit is another engine
        assert (await life.look("b", sockets=1, moved=0)).state == "busy"
        life.close()

    with engine("--answers=wedge") as (client, _):
        asyncio.run(watch(client))
        assert client.listens()


def test_an_engine_that_wedged_at_work_is_found_without_asking() -> None:
    async def watch(client: Client) -> list[str]:
        life = vitals(client.port)
        await until(life, "busy")
        await asyncio.to_thread(client.manners, answers="wedge")
        return await until(life, "wedged")

    with engine("--token-delay=0.01") as (client, _):
        running = client.begin("running", tokens=100_000)
        assert asyncio.run(watch(client)) == ["busy", "wedged"]
        assert client.executed()["begun"] == 1
        running.close()


def test_without_metrics_only_silence_counts() -> None:
    async def watch(client: Client) -> list[str]:
        return await until(vitals(client.port), "wedged")

    with engine("--no-metrics") as (client, _):
        begun = time.monotonic()
        assert asyncio.run(watch(client)) == ["busy", "wedged"]
        assert time.monotonic() - begun >= PATIENCE.silence
        assert client.executed()["begun"] == 0


def test_an_engine_without_generations_is_never_wedged_for_that() -> None:
    async def ask(question: Question, deadline: float) -> Answer:
        if question.path == "/metrics":
            text = b"vllm:num_requests_running 0\nvllm:num_requests_waiting 0\n"
            return Answer(200, text + b"vllm:generation_tokens_total 0\n")
        return Answer(404)

    async def watch() -> set[str]:
        life = Vitals(ask, ENGINES["vllm"], "tiny", PATIENCE)
        end = time.monotonic() + 1.5
        seen: set[str] = set()
        while time.monotonic() < end:
            seen.add((await life.look("a", sockets=1, moved=0)).state)
            await asyncio.sleep(0.02)
        return seen

    assert asyncio.run(watch()) == {"busy", "suspect"}


@pytest.mark.parametrize("options", [["--no-metrics"], None])
def test_no_load_is_none(options: list[str] | None) -> None:
    def load(port: int) -> object:
        return asyncio.run(read_load(asker(port), ENGINES["vllm"], deadline=5))

    if options is None:
        assert load(free_port()) is None
        return
    with engine(*options) as (client, _):
        assert load(client.port) is None
        client.manners(metrics=True)
        assert load(client.port) is not None


def test_the_page_that_an_engine_tells_its_load_with_is_handed_over() -> None:
    pages: list[bytes] = []

    async def load(port: int) -> object:
        return await read_load(asker(port), ENGINES["vllm"], deadline=5, told=pages.append)

    with engine() as (client, _):
        assert asyncio.run(load(client.port)) is not None
    assert [b"vllm:num_requests_running" in page for page in pages] == [True]
    assert asyncio.run(load(free_port())) is None
    assert len(pages) == 1
