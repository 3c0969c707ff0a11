"""HOST and HOST/REPLICA as typed, and what an agent's lines mean."""

from __future__ import annotations

import msgspec
import pytest
from farrier_agent.control import protocol
from farrier_agent.control.errors import ProtocolError

from farrier.fleet.answers import Hearing
from farrier.fleet.places import PlaceError, patterns, resolve, split
from farrier.fleet.target import FleetTargets, Login, ReplicaOf, Target


def target(name: str, *replicas: str, groups: tuple[str, ...] = ("gpu",)) -> Target:
    served = tuple(ReplicaOf(f"m-{one}", one, f"engine-{one}.service", 8101) for one in replicas)
    return Target(name, groups, name, Login(name), served)


EVERY = (
    target("@ssh/gpu09", "a"),
    target("gpu01", "a", "b"),
    target("gpu02", "a"),
    target("gw01", groups=("gateway",)),
)
FLEET = FleetTargets("inventory", EVERY, EVERY)


@pytest.mark.parametrize(
    ("word", "parts"),
    [
        ("gpu01", ("gpu01", None)),
        ("gpu01/a", ("gpu01", "a")),
        ("@ssh/gpu09", ("@ssh/gpu09", None)),
        ("@ssh/gpu09/a", ("@ssh/gpu09", "a")),
        ("gpu*/a", ("gpu*", "a")),
        ("gpu01/", ("gpu01", "")),
    ],
)
def test_words(word: str, parts: tuple[str, str | None]) -> None:
    assert split(word) == parts


def meant(*words: str, serving: bool = False) -> list[str]:
    return [
        f"{place.target.name}:{','.join(one.replica for one in place.replicas)}"
        for place in resolve(words, FLEET, serving=serving)
    ]


def test_hosts_patterns_groups_and_replicas() -> None:
    assert meant("gpu01") == ["gpu01:a,b"]
    assert meant("gpu02", "gpu01/b") == ["gpu01:b", "gpu02:a"]
    assert meant("gpu01/b", "gpu01/a") == ["gpu01:a,b"]
    assert meant("gpu01/a", "gpu01") == meant("gpu01", "gpu01/a") == ["gpu01:a,b"]
    assert meant("gpu") == ["@ssh/gpu09:a", "gpu01:a,b", "gpu02:a"]
    assert meant("gpu*/b") == ["gpu01:b"], "hosts without it are passed over"
    assert meant("g*", serving=True) == ["gpu01:a,b", "gpu02:a"]
    assert meant("gateway") == ["gw01:"]
    assert patterns(["gpu01/a", "gpu01/b", "gw01"]) == ("gpu01", "gw01")


@pytest.mark.parametrize(
    ("word", "serving", "told"),
    [
        ("gpu01/c", False, "no replica c there; there is gpu01/a, gpu01/b"),
        ("gpu01/", False, "no replica  there"),
        ("gw01/a", False, "gw01/a: nothing is served there"),
        ("gw01", True, "gw01: nothing is served there"),
        ("nix", False, "nix: there is no such host"),
    ],
)
def test_words_that_mean_nothing(word: str, serving: bool, told: str) -> None:
    with pytest.raises(PlaceError, match=told):
        resolve(["gpu01", word], FLEET, serving=serving)


def line(reply: protocol.Reply) -> str:
    return protocol.encode(reply).decode().strip()


def test_news_come_at_once_and_the_last_word_last() -> None:
    heard: list[protocol.News] = []
    hearing = Hearing(heard.append)
    news = protocol.Progress(replica="a", state="draining", in_flight=3)
    done = protocol.Done(results=(protocol.Result(replica="a", state="drained"),))
    for one in (protocol.Accepted(agent="1"), protocol.Beat(), news):
        hearing.line(line(one))
    assert heard == [news]
    hearing.line('{"kind":"of-tomorrow","x":1}')
    hearing.line(line(done))
    reply = hearing.reply(0, "")
    assert (reply.code, reply.final, reply.lines) == (0, done, ())


def test_lines_that_are_no_replies_are_kept() -> None:
    hearing = Hearing()
    hearing.line('{"id": "r-1"}')
    hearing.line("plain")
    reply = hearing.reply(0, "")
    assert reply.lines == ('{"id": "r-1"}', "plain")
    assert reply.final == protocol.Told(lines=reply.lines)


def test_an_agent_that_only_failed() -> None:
    final = Hearing().reply(3, "one\ntwo\n\nthree\nfour\n").final
    assert final == protocol.Failed(code=3, error="two; three; four")
    assert msgspec.to_builtins(Hearing().reply(255, "").final)["code"] == 1


def test_a_newer_protocol_is_not_guessed_at() -> None:
    with pytest.raises(ProtocolError, match="version 99"):
        Hearing().line('{"kind":"accepted","version":99,"agent":"9"}')
    with pytest.raises(ProtocolError, match="newer"):
        Hearing().line('{"schema":99,"host":"x"}')
