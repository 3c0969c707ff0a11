"""The real llama-server, built on a host: drains, a reboot, an upgrade (10 min; built first, 30).

Most of it is the build. What was built is kept in ~/.cache/farrier/built under its hash, and a host
gets it from there the next time, as one that has it already. Its model is made on the spot. The
tests are one story, in order, on one host (Debian 12).
"""

from __future__ import annotations

import hashlib
import io
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from farrier.lab.tiny_gguf import tiny_gguf
from farrier.tarballs import cache_directory, fetch
from roles import llama_cpp as role
from tests.agent.test_metrics_scraped import ask, prometheus
from tests.conftest import lab_of_tests
from tests.full.test_drains import Action, prove, reboot, restart_engine, stop_engine, verb
from tests.roles.converging import Converge, Run
from tests.roles.fleet import Fleet, until
from tests.roles.proof import assert_nothing_lost, at_work
from tests.roles.traffic import Plan

HOST = "gpu01"
SETTINGS = role.DEFAULTS.data()
BUILT = role.llama_cpp_release(SETTINGS, "cpu")
SERVER = f"{BUILT.path}/{BUILT.program}"
GGUF = "/srv/models/tiny.gguf"
MODEL = {
    "name": "tiny",
    "engine": "llama_cpp",
    "source": f"path:{GGUF}",
    "gpus": [],
    "port": 8101,
    # a slot and a thousand tokens for each of the clients at once
    "args": {"parallel": 48, "ctx-size": 48 * 1024, "threads": 1},
}
LOAD = Plan(tokens=250, posts=10, pause=2.0)
LABELS = '{replica="tiny",model="tiny"}'


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """The host after its first converge, which built llama-server or found it there."""
    with lab_of_tests("nginx", [HOST]) as lab:
        fleet = Fleet(lab, Converge(lab, tmp_path_factory.mktemp("llama_cpp")))
        fleet.put_bytes(HOST, GGUF, tiny_gguf())
        fleet.converge.models |= {HOST: [MODEL]}
        fleet.converge.data |= {HOST: {"agent_tick": 1.0}}
        bring(fleet)
        run = fleet.converge(limit=[HOST], timeout=4500)
        if run.returncode:
            pytest.fail(f"the first converge failed:\n{run.last_words(60)}", pytrace=False)
        print(f"first converge: {run.seconds:.0f} s")
        keep(fleet)
        yield fleet


def kept() -> Path:
    """Where what was built lies on the machine of the tests."""
    return cache_directory().parent / "built" / f"{BUILT.name}.tar.gz"


def bring(fleet: Fleet) -> None:
    """Bring what an earlier run built to the host, as the role would have left it there."""
    if not kept().is_file():
        return
    fleet.put_bytes(HOST, "/root/built.tar.gz", kept().read_bytes())
    parent = BUILT.path.rpartition("/")[0]
    fleet.root(HOST, f"mkdir -p {parent} && tar -xf /root/built.tar.gz -C {parent}")
    print(f"{BUILT.name} was built by an earlier run")


def keep(fleet: Fleet) -> None:
    """Keep what the host has for the next run."""
    if kept().is_file():
        return
    kept().parent.mkdir(parents=True, exist_ok=True)
    half = kept().with_suffix(".half")
    with tarfile.open(half, "w:gz") as archive:
        archive.add(on_disk(fleet, BUILT.path), arcname=BUILT.name)
    half.rename(kept())


def on_disk(fleet: Fleet, path: str) -> Path:
    """*path* of the host, as this machine sees it."""
    (root,) = (host.root for host in fleet.lab.hosts if host.name == HOST)
    return Path(root / path.lstrip("/"))


def program(fleet: Fleet) -> str:
    """The program that the replica runs."""
    main = fleet.unit(HOST, "engine-tiny", "MainPID")
    return fleet.root(HOST, f"readlink /proc/{main}/exe").strip()


def value(fleet: Fleet, name: str) -> float:
    """A number of the engine's own on the agent's page; -1 without it."""
    found = re.search(rf"^{name}{re.escape(LABELS)} (\S+)$", fleet.metrics(HOST), re.MULTILINE)
    return float(found[1]) if found else -1


def answered(fleet: Fleet) -> float:
    """The whole answers that the agent has counted."""
    counted = r'^llm_requests_total\{[^}]*code="200"[^}]*\} (\S+)$'
    found = re.search(counted, fleet.metrics(HOST), re.MULTILINE)
    return float(found[1]) if found else 0


def test_it_is_known_by_its_hash_and_it_runs(served: Fleet) -> None:
    assert served.ssh(HOST, f"cat {BUILT.path}/.complete").strip() == SETTINGS["llama_cpp_sha256"]
    assert program(served) == SERVER
    assert "built with GNU" in served.ssh(HOST, f"{SERVER} --version 2>&1")
    current = served.ssh(HOST, f"readlink {BUILT.path.rpartition('/')[0]}/current")
    assert current.strip() == BUILT.name


def test_it_serves_through_nginx(served: Fleet) -> None:
    until(lambda: served.gate(HOST), 120, "its gate is open")
    answer = served.chat(HOST, max_tokens=12)
    assert answer.status == 200, answer.text
    (choice,) = answer.json()["choices"]
    assert (choice["finish_reason"], answer.json()["usage"]["completion_tokens"]) == ("length", 12)
    assert choice["message"]["content"].isprintable()
    stream = served.chat(HOST, stream=True)
    assert stream.text.endswith("data: [DONE]\n\n")
    models = served.request(HOST, "/v1/models", key=served.key).json()
    assert [one["id"] for one in models["data"]] == ["tiny"]
    assert served.request(HOST, "/v1/models").status == 401


def test_a_second_converge_changes_nothing(served: Fleet) -> None:
    run = served.converge(limit=[HOST])
    assert run.returncode == 0, run.last_words()
    assert run.changed(HOST) == []
    assert "llama.cpp | Release" in run.unchanged(HOST)


def test_prometheus_has_its_own_metrics_and_the_agents(served: Fleet, tmp_path: Path) -> None:
    decoded = value(served, "llamacpp:n_decode_total")
    agent = {"agent": f"{served.addresses[HOST]}:9810"}
    with prometheus(tmp_path, agent) as api, served.traffic(HOST, LOAD) as traffic:
        at_work(traffic)
        for query in (
            "llamacpp:requests_processing >= 10",
            'farrier_replica_health{state="busy"} == 1',
            "farrier_replica_in_flight >= 10",
            "rate(llamacpp:tokens_predicted_total[10s]) > 0",
        ):
            until(lambda: ask(api, query), 60, query)  # noqa: B023
    assert_nothing_lost(served, HOST, traffic, counted=False)
    until(lambda: value(served, "llamacpp:requests_processing") == 0, 20, "its work is done")
    assert value(served, "llamacpp:n_decode_total") > decoded
    page = served.metrics(HOST)
    assert 'farrier_replica_engine_faulty_lines{replica="tiny"} 0\n' in page
    assert 'farrier_replica_info{replica="tiny",model="tiny",engine="llama_cpp"} 1\n' in page
    whole = len(traffic.of("whole"))
    until(lambda: answered(served) >= whole, 10, f"nginx's log of {whole} answers is counted")


@pytest.mark.parametrize(
    "action", [restart_engine, stop_engine, verb, reboot], ids=lambda it: it.__name__
)
def test_no_way_to_stop_it_loses_a_request(served: Fleet, action: Action) -> None:
    prove(served, HOST, action, {})


def test_sigterm_by_itself_cuts_what_runs(served: Fleet) -> None:
    """What the adapter says of it, and why it is drained first."""
    with served.traffic(HOST, LOAD) as traffic:
        at_work(traffic)
        before = served.unit(HOST, "engine-tiny", "MainPID")
        served.root(HOST, f"kill -TERM {before}")
        until(lambda: traffic.of("cut"), 30, "its streams are cut")
        until(lambda: not served.root(HOST, "ss -Hltn sport = :8101"), 30, "it listens no more")
        # it waits for some of its threads from there on: what systemd does at the end of its time
        served.root(HOST, f"kill -KILL {before}", check=False)
    assert {one.kind for one in traffic.of("cut")} >= {"stream"}
    # one that did end was told to by a person: that is no failure, and nobody starts it again
    served.root(HOST, "systemctl start engine-tiny")
    until(lambda: served.unit(HOST, "engine-tiny", "MainPID") not in {"0", before}, 60, "it runs")
    until(lambda: served.gate(HOST), 120, "it is warm again")


def test_nobody_s_stream_goes_on_without_its_client(served: Fleet) -> None:
    """llama-server would keep a stream that has a conversation's name, for whoever knows it."""
    body = '{"messages":[{"role":"user","content":"hello"}],"max_tokens":4,"stream":true}'
    asked = f"curl -sN -H 'X-Conversation-Id: own' -d '{body}' 127.0.0.1:8101/v1/chat/completions"
    assert "[DONE]" in served.ssh(HOST, asked)
    there = "/v1/stream?conv_id="
    assert served.request(HOST, f"{there}own", key=served.key).status == 200
    message = {"role": "user", "content": "hello"}
    answer = served.request(
        HOST,
        "/v1/chat/completions",
        key=served.key,
        body={"model": "tiny", "messages": [message], "max_tokens": 4, "stream": True},
        headers={"X-Conversation-Id": "through-nginx"},
    )
    assert answer.text.endswith("data: [DONE]\n\n")
    assert served.request(HOST, f"{there}through-nginx", key=served.key).status == 404


def test_another_version_and_back_lose_nothing(served: Fleet, tmp_path: Path) -> None:
    """The other one is unpacked as a release: the same program under a version of its own."""
    tarball = tmp_path / "llama-b1-bin.tar.gz"
    with tarfile.open(tarball, "w:gz") as archive:
        archive.add(on_disk(served, SERVER), arcname="llama-b1/llama-server")
    data = {
        **served.converge.data[HOST],
        "llama_cpp_from": "release",
        "llama_cpp_version": "b1",
        "llama_cpp_url": str(tarball),
        "llama_cpp_sha256": hashlib.sha256(tarball.read_bytes()).hexdigest(),
    }
    other = role.llama_cpp_release({**SETTINGS, **data}, "cpu")
    for inventory, wanted in ((data, f"{other.path}/llama-server"), (None, SERVER)):
        before = program(served)
        with served.traffic(HOST, LOAD) as traffic:
            at_work(traffic)
            run = served.converge(limit=[HOST], data={HOST: inventory} if inventory else None)
            assert run.returncode == 0, run.last_words()
            assert "replica tiny runs an older configuration" in run.last_section("Restart pending")
            assert program(served) == before != wanted
            said = served.root(HOST, "farrier-agent restart tiny --wait 2>&1")
            assert served.gate(HOST), said
        assert_nothing_lost(served, HOST, traffic, counted=False)
        assert program(served) == wanted
    there = set(served.ssh(HOST, "ls /opt/farrier/llama_cpp").split())
    assert there == {BUILT.name, other.name, "current"}


def refused(fleet: Fleet, words: str, **changes: Any) -> Run:
    """A converge that fails with *words* and leaves the replica alone."""
    before = (fleet.unit(HOST, "engine-tiny", "InvocationID"), program(fleet))
    there = fleet.ssh(HOST, "ls /opt/farrier/llama_cpp")
    run = fleet.converge(limit=[HOST], **changes)
    assert run.returncode != 0
    assert words in run.stderr, run.last_words()
    assert (fleet.unit(HOST, "engine-tiny", "InvocationID"), program(fleet)) == before
    assert fleet.ssh(HOST, "ls /opt/farrier/llama_cpp") == there
    assert fleet.chat(HOST).status == 200
    return run


def test_a_gguf_that_is_cut_short_is_refused(served: Fleet) -> None:
    whole = tiny_gguf()
    served.put_bytes(HOST, "/srv/models/cut.gguf", whole[:-100_000])
    words = f"/srv/models/cut.gguf is cut short: {len(whole) - 100_000} of at least {len(whole)}"
    run = refused(served, words, models={HOST: [{**MODEL, "source": "path:/srv/models/cut.gguf"}]})
    assert run.returncode == 3
    assert run.changed(HOST) == []


def test_a_tarball_with_another_hash_is_refused(served: Fleet, tmp_path: Path) -> None:
    tarball = tmp_path / "llama_cpp_python-0.3.36.tar.gz"
    with tarfile.open(tarball, "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("llama_cpp_python-0.3.36/README"), io.BytesIO())
    found = hashlib.sha256(tarball.read_bytes()).hexdigest()
    wanted = "ab" * 32
    data = {"llama_cpp_url": str(tarball), "llama_cpp_sha256": wanted}
    words = f"has the SHA-256 {found}, and the inventory wants {wanted}"
    refused(served, words, data={HOST: {**served.converge.data[HOST], **data}})
    assert not (cache_directory() / f"{wanted[:16]}-{tarball.name}").exists()


def test_the_sources_are_those_that_the_role_names() -> None:
    """The address is PyPI's: what lies there has the hash (77 MB, from the cache if there)."""
    archive = fetch(str(SETTINGS["llama_cpp_url"]), str(SETTINGS["llama_cpp_sha256"]))
    with tarfile.open(archive) as names:
        assert any(name.endswith("/vendor/llama.cpp/CMakeLists.txt") for name in names.getnames())
