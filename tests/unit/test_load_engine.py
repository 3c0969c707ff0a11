"""The load on the stand-in engine: each of its manners, and its account against the ledger."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from farrier.load import Background, Endpoint, Ledger, Outcome, Plan, Request, run
from tests.agent.host import until
from tests.agent.standin import Client, engine

SOME: dict[str, Any] = {
    "models": ("tiny",),
    "streams": 4,
    "posts": 4,
    "uploads": 2,
    "fresh": 5.0,
    "seconds": 3.0,
    "stream_seconds": (0.2, 1.0),
    "upload_seconds": 0.5,
    "pause": 0.1,
}


def load(client: Client, **more: Any) -> Ledger:
    return asyncio.run(run(Plan(**(SOME | more)), Endpoint(f"http://127.0.0.1:{client.port}")))


def executed(client: Client) -> dict[str, int]:
    found: dict[str, int] = client.executed()["requests"]
    return found


def test_all_kinds_are_served_and_both_accounts_agree() -> None:
    with engine("--token-delay=0.01") as (client, _):
        ledger = load(client, slow=1, vanish=1)
        account = executed(client)
    kinds = {kind for kind, outcome in ledger.counts if outcome == "complete"}
    assert kinds == {"stream", "post", "fresh", "upload", "slow"}
    assert set(ledger.outcomes) == {"complete", "vanished"}
    assert ledger.lost == 0
    assert ledger.faults(account) == []
    assert len(account) == len(ledger.requests)
    # the same, told wrongly, is seen
    served = ledger.of("complete")[0].name
    assert "no engine executed" in ledger.faults(account | {served: 0})[0]
    assert "executed 2 times" in ledger.faults(account | {served: 2})[0]
    assert "nobody asked" in ledger.faults(account | {f"{ledger.prefix}-x": 1})[0]


def test_the_length_of_streams_is_learned() -> None:
    with engine("--token-delay=0.02") as (client, _):
        ledger = load(client, streams=2, posts=0, uploads=0, fresh=0.0, stream_seconds=(1.5, 1.5))
    first, *_, last = ledger.requests
    assert first.tokens == 16
    assert last.tokens > 50
    assert 1.0 < last.ended - last.began < 3.0


MANNERS: list[tuple[str, Outcome, Outcome]] = [
    ("abort", "aborted", "aborted"),
    ("500", "wrong", "wrong"),
    ("503", "wrong", "wrong"),
    ("close", "dropped", "dropped"),
    ("break", "incomplete", "complete"),
    ("undone", "incomplete", "complete"),
    ("garbage", "wrong", "wrong"),
    ("wedge", "incomplete", "dropped"),
]


@pytest.mark.parametrize(("manner", "stream", "post"), MANNERS)
def test_bad_manners_are_seen(manner: str, stream: Outcome, post: Outcome) -> None:
    with engine(f"--answers={manner}") as (client, _):
        silence = 1.5 if manner == "wedge" else 20.0
        ledger = load(client, seconds=1.0, silence=silence, patience=20.0)
        account = executed(client)
    for kind, outcome in {"stream": stream, "post": post, "upload": post, "fresh": post}.items():
        assert {end for of, end in ledger.counts if of == kind} == {outcome}, ledger.counts
    assert bool(ledger.lost)
    assert max(account.values()) == 1, "something was sent twice"
    assert len(account) == len(ledger.requests)
    assert ledger.faults(account) == []


def test_an_engine_that_is_killed_loses_what_it_was_executing(tmp_path: Path) -> None:
    """Each request that was let in and not served is a loss, and no other."""
    file = tmp_path / "account"
    with engine("--on-sigterm=cut", f"--account={file}") as (client, process):
        endpoint = Endpoint(f"http://127.0.0.1:{client.port}")
        with Background(Plan(**(SOME | {"seconds": 30.0})), endpoint) as background:
            ledger = background.ledger
            until(lambda: ledger.at_work("stream") == 4)
            process.terminate()
            process.wait()
            until(lambda: ledger.outcomes["unreached"] > 4)
    entries = [json.loads(line) for line in file.read_text().splitlines()]
    begun = [entry["begun"] for entry in entries if "begun" in entry]
    cut = set(begun) - {entry["ended"] for entry in entries if "ended" in entry}
    lost = {one.name for one in ledger.losses()}
    assert len(cut) >= 4
    # besides, an upload or a POST on its way may be dropped before it was executed
    assert cut <= lost
    assert {one.outcome for one in ledger.losses()} <= {"incomplete", "dropped"}
    assert ledger.faults(dict.fromkeys(begun, 1)) == []


def test_a_request_belongs_to_its_key_and_its_key_to_its_models() -> None:
    from farrier.load import Key

    with engine() as (client, _):
        keys = {"alice": Key("a" * 20), "bob": Key("b" * 20, ("other",))}
        endpoint = Endpoint(f"http://127.0.0.1:{client.port}", keys)
        plan = Plan(**(SOME | {"models": ("tiny", "other"), "seconds": 2.0}))
        ledger = asyncio.run(run(plan, endpoint))
    assert {one.model for one in ledger.requests if one.key == "bob"} == {"other"}
    assert {one.model for one in ledger.requests if one.key == "alice"} == {"tiny", "other"}
    for one in ledger.requests:
        assert one.outcome == ("complete" if one.model == "tiny" else "refused"), one


# -- the command ---------------------------------------------------------------------------------

FARRIER = Path(sys.executable).with_name("farrier")
LITTLE = ["--streams=2", "--posts=2", "--uploads=1", "--fresh=2", "--stream-seconds=0.2-0.5"]


def command(*argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(FARRIER), "load", *argv], capture_output=True, text=True, timeout=60, check=False
    )


def test_the_command_prints_a_table_and_writes_the_ledger(tmp_path: Path) -> None:
    with engine() as (client, _):
        url = f"http://127.0.0.1:{client.port}"
        done = command(url, *LITTLE, "--seconds=2", f"--ledger={tmp_path / 'ledger.json'}")
    assert done.returncode == 0, done.stderr
    assert "lost 0" in done.stdout
    assert "first token" in done.stdout
    ledger = json.loads((tmp_path / "ledger.json").read_text())
    assert len(ledger["ledger"]) == ledger["requests"] > 10
    assert {one["outcome"] for one in ledger["ledger"]} == {"complete"}


def test_what_is_lost_is_named_and_told_by_the_exit_code() -> None:
    with engine("--answers=undone") as (client, _):
        url = f"http://127.0.0.1:{client.port}"
        done = command(url, *LITTLE, "--seconds=1")
        told = command(url, *LITTLE, "--seconds=1", "--json")
    assert (done.returncode, told.returncode) == (1, 1)
    assert "no [DONE] at its end" in done.stdout
    value = json.loads(told.stdout)
    assert value["lost"] == value["kinds"]["stream"]["outcomes"]["incomplete"] > 0
    assert value["kinds"]["post"]["latency"]["p50"] > 0


@pytest.mark.parametrize("interrupts", [1, 2])
def test_ctrl_c_ends_new_requests_and_a_second_one_the_running_ones(interrupts: int) -> None:
    with engine("--token-delay=0.1") as (client, _):
        argv = [str(FARRIER), "load", f"http://127.0.0.1:{client.port}", "--json", "--posts=0"]
        argv += ["--streams=3", "--uploads=0", "--fresh=0", "--seconds=60", "--token-seconds=0.1"]
        argv += ["--stream-seconds=4" if interrupts == 1 else "--stream-seconds=300"]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            until(lambda: client.executed()["running"] == 3)
            for number in range(interrupts):
                os.kill(process.pid, signal.SIGINT)
                if not number:
                    assert process.stderr
                    line = process.stderr.readline() + process.stderr.readline()
                    assert b"no new requests" in line
            out, _ = process.communicate(timeout=30)
    value = json.loads(out)
    assert value["requests"] == 3
    assert value["outcomes"] == ({"complete": 3} if interrupts == 1 else {"incomplete": 3})
    assert process.returncode == (0 if interrupts == 1 else 1)


def test_nothing_served_is_no_success() -> None:
    with engine() as (client, _):
        done = command(f"http://127.0.0.1:{client.port}", "--model=big", *LITTLE, "--seconds=1")
    assert done.returncode == 1
    assert "nothing was served" in done.stdout


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["ftp://x"], "no address"),
        (["http://alice:key@127.0.0.1"], "key file"),
        (["http://127.0.0.1", "--stream-seconds=9-1"], "shorter one first"),
        (["http://127.0.0.1", "--stream-seconds=long"], "range of seconds"),
        (["http://127.0.0.1", "--streams=-1"], "streams is negative"),
        (["http://127.0.0.1", "--ca=/dev/null"], "not https"),
        (["https://127.0.0.1", "--ca=/dev/null", "--model=x"], "CA certificates"),
        (["http://127.0.0.1", "--keys=/nowhere/keys.toml"], "/nowhere/keys.toml"),
        (["http://127.0.0.1", "--key-file=/nowhere/key"], "/nowhere/key"),
        (["http://127.0.0.1", "--key-file=a", "--keys=b"], "one of them"),
        (
            ["http://127.0.0.1", *(f"--{k}=0" for k in ("streams", "posts", "fresh", "uploads"))],
            "0",
        ),
    ],
)
def test_wrong_usage(argv: list[str], said: str) -> None:
    done = command(*argv)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr


def test_keys_come_from_files_that_nobody_else_reads(tmp_path: Path) -> None:
    file = tmp_path / "keys.toml"
    file.write_text('[keys]\nalice = "a-key-of-twenty-letters"\n')
    file.chmod(0o644)
    assert "chmod 600" in command("http://127.0.0.1", f"--keys={file}").stderr
    file.chmod(0o600)
    with engine() as (client, _):
        url = f"http://127.0.0.1:{client.port}"
        done = command(url, *LITTLE, "--seconds=1", f"--keys={file}", "--json")
    assert done.returncode == 0, done.stderr
    assert "twenty" not in done.stdout + done.stderr


def test_a_request_reads_as_a_line() -> None:
    one = Request("p-1", "post", 1.0, "tiny", 4, ended=2.5, outcome="dropped", detail="closed")
    one.server, one.reused = "gpu01:tiny", True
    assert str(one) == (
        "post p-1, 1.00 to 2.50 s: dropped, - from gpu01:tiny: closed, on a kept connection"
    )


def test_open_files_are_allowed_for_or_asked_for() -> None:
    with engine("--token-delay=0.01") as (client, _):
        url = f"http://127.0.0.1:{client.port}"
        argv = [str(FARRIER), "load", url, "--streams=150", "--seconds=6", "--posts=0", "--json"]
        argv += ["--stream-seconds=0.5", "--uploads=0", "--fresh=0"]
        done, refused = (
            subprocess.run(
                ["bash", "-c", f'ulimit {limit} 120; exec "$@"', "bash", *argv],
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            for limit in ("-Sn", "-n")
        )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["outcomes"]["complete"] >= 150
    assert refused.returncode == 1
    assert "ulimit -Hn 250" in refused.stderr
