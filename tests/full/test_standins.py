"""Ollama, SGLang, TensorRT-LLM, TGI: as roles bring them, with stand-ins as programs (20 min).

A release tarball from a mirror, wheels with locks, an image archive: each has the engine's name and
command, and is the stand-in, in the dialect of that engine. The GPUs are a fake NVML's. Everything
else is what it is on an operator's hosts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from farrier.lab import TINY_MODEL
from farrier.load import Background, Plan
from tests.agent.test_metrics_scraped import ask, prometheus
from tests.conftest import lab_of_tests
from tests.full.standins import CASES, CPU_HOST, GPU_HOST, Case, Standins
from tests.full.standins_made import Made, mirror
from tests.roles.fleet import until

HOSTS = (GPU_HOST, CPU_HOST)
each = pytest.mark.parametrize("case", CASES, ids=[f"{one.host}-{one.replica}" for one in CASES])
OWN, CODER, QWEN, TGI, PULLED = CASES
BURST = Plan(
    requests=4,
    streams=4,
    stream_seconds=(5.0, 5.0),
    seconds_per_token=0.05,
    posts=0,
    fresh=0,
    uploads=0,
)
"""Four streams of five seconds, and nothing after them."""


@pytest.fixture(scope="module")
def it(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standins]:
    """Both hosts after their first converge, from bare."""
    made = Made(tmp_path_factory.mktemp("standins"))
    with lab_of_tests("depot", HOSTS) as lab:
        address = str(lab.definition.gateway)
        with mirror(made.directory / "mirror", address, made.asked) as url:
            made.make(url)
            served = Standins(lab, made)
            served.prepare()
            try:
                run = served.fleet.converge(limit=HOSTS, timeout=1800)
                if run.returncode:
                    pytest.fail(f"the first converge failed:\n{run.last_words(60)}", pytrace=False)
                print(f"first converge: {run.seconds:.0f} s")
                for case in CASES:
                    if f"replica {case.replica} runs an older" in run.stderr:  # a lab that was kept
                        served.fleet.root(case.host, f"farrier-agent restart {case.replica} --wait")
                served.settled()
                yield served
            finally:
                made.forget()


@each
def test_it_serves_through_nginx(it: Standins, case: Case) -> None:
    assert it.chat(case) == 200
    path = f"/replicas/{case.replica}/v1/chat/completions"
    name = case.fields["name"]
    assert it.fleet.chat(case.host, path, model=name, stream=True).text.endswith("data: [DONE]\n\n")
    listens = it.fleet.root(case.host, f"ss -Hltn sport = :{case.port}").split()
    assert listens[3] == f"127.0.0.1:{case.port}"
    if case is not TGI:
        user = it.fleet.ssh(case.host, f"ps -o user:20= -p {it.main(case)}").strip()
        assert user == "farrier-engine"


def test_what_they_were_brought_from(it: Standins) -> None:
    said = it.made.settings[0]
    release = f"/v{said['ollama_version']}/ollama-linux-amd64.tar.zst"
    assert it.made.asked in ([release], []), "once for both hosts; a lab that was kept has it"
    for case in (OWN, PULLED):
        complete = f"cat /opt/farrier/ollama/{it.version(case)}/.complete"
        assert it.fleet.ssh(case.host, complete).strip() == said["ollama_sha256"]
        version = it.fleet.ssh(case.host, "/opt/farrier/ollama/current/bin/ollama --version")
        assert version.strip() == f"ollama version is {said['ollama_version']}-standin"
    words = it.argv(CODER)
    assert words[1:] == [
        *("-m", "sglang.launch_server", "--model-path", TINY_MODEL),
        *("--served-model-name", "coder", "--host", "127.0.0.1", "--port", "8102"),
        *("--enable-metrics", "--tp-size", "2"),
    ]
    assert "/opt/farrier/trtllm/serve.yaml" in it.argv(QWEN)
    for case, gpus in ((OWN, "0"), (CODER, "1,2"), (QWEN, "3")):
        env = it.fleet.root(case.host, f"tr '\\0' '\\n' < /proc/{it.main(case)}/environ")
        assert f"CUDA_VISIBLE_DEVICES={gpus}\n" in env
    inside = "cat /proc/$(pgrep -f '^/usr/bin/python3 /opt/standin/standin.py')/environ"
    assert "GPU_4=here" in it.fleet.root(GPU_HOST, inside), "CDI gave it its device"


def test_ollamas_models_are_those_that_are_pinned(it: Standins) -> None:
    for case, names in ((OWN, ["own"]), (PULLED, ["qwen3:8b"])):
        path = f"/replicas/{case.replica}/v1/models"
        listed = it.fleet.request(case.host, path, key=it.fleet.key).json()["data"]
        assert [one["id"].removesuffix(":latest") for one in listed] == names
    run = it.fleet.unit(CPU_HOST, PULLED.unit, "InvocationID")
    other = {**it.model(PULLED), "source": f"ollama:qwen3:8b@{'0' * 64}", "start_timeout": 30}
    changed = it.fleet.converge(models={CPU_HOST: [other]}, limit=[CPU_HOST])
    assert changed.returncode == 0, changed.last_words()
    # the tag means other weights than the inventory's: nothing is served
    it.fleet.root(CPU_HOST, f"systemctl restart {PULLED.unit}", check=False)
    words = f"and the inventory pins {'0' * 64}: nothing is served"
    told = f"journalctl -u {PULLED.unit} -o cat --no-pager -n 200"
    until(lambda: words in it.fleet.root(CPU_HOST, told), 30, "the unit says why it does not start")
    assert not it.fleet.gate(CPU_HOST, PULLED.replica)
    back = it.fleet.converge(limit=[CPU_HOST])
    assert back.returncode == 0, back.last_words()
    it.settled(PULLED)
    assert it.fleet.unit(CPU_HOST, PULLED.unit, "InvocationID") != run


@pytest.mark.parametrize("case", [OWN, PULLED], ids=HOSTS)
def test_ollamas_management_is_for_root_on_the_host_only(it: Standins, case: Case) -> None:
    for path in ("/api/tags", "/api/version", "/debug/pprof/"):
        assert "200" in it.fleet.ssh(
            case.host, f"curl -so /dev/null -w '%{{http_code}}' 127.0.0.1:{case.port}{path}"
        )
        for front in (path, f"/replicas/{case.replica}{path}", f"/v1{path}"):
            answer = it.fleet.request(case.host, front, key=it.fleet.key)
            assert answer.status == 404, (front, answer.text)
    before = it.fleet.ssh(case.host, f"curl -s 127.0.0.1:{case.port}/api/tags")
    for path in ("/api/pull", "/api/create", "/api/delete"):
        front = f"/replicas/{case.replica}{path}"
        body = {"model": "other", "from": "/etc/passwd"}
        assert it.fleet.request(case.host, front, key=it.fleet.key, body=body).status == 404
    assert it.fleet.ssh(case.host, f"curl -s 127.0.0.1:{case.port}/api/tags") == before


def test_a_second_converge_changes_nothing(it: Standins) -> None:
    run = it.fleet.converge(limit=HOSTS)
    assert run.returncode == 0, run.last_words()
    assert {host: run.changed(host) for host in HOSTS} == {host: [] for host in HOSTS}
    for name in ("SGLang | Environment", "TensorRT-LLM | Environment", "Ollama | Release"):
        assert name in run.unchanged(GPU_HOST)
    assert "Ollama | Release" in run.unchanged(CPU_HOST)


@each
def test_prometheus_has_what_it_tells(it: Standins, case: Case, tmp_path: Path) -> None:
    agent = {"agent": f"{it.fleet.addresses[case.host]}:9810"}
    mine = f'{{replica="{case.replica}"}}'
    queries = [f"sum({case.running}{mine}) >= 3"]
    queries += [f"rate({case.counts}{mine}[10s]) > 0"] if case.counts else []
    queries += [f'sum(rate(llm_requests_total{{replica="{case.replica}",code="200"}}[10s])) > 0']
    with it.loaded(case) as loads, prometheus(tmp_path, agent) as api:
        for query in queries:
            until(partial(ask, api, query), 60, query)
        ledger = loads[0][1].end()
        until(partial(ask, api, f"sum({case.running}{mine}) == 0"), 30, "its work is done")
        faulty = ask(api, f"farrier_replica_engine_faulty_lines{mine} > 0")
        assert not faulty
    assert not ledger.of("refused")
    it.nothing_lost(case, ledger)


# -- nothing is lost ---------------------------------------------------------------------------


def drain_and_ready(it: Standins, case: Case) -> None:
    before = it.main(case)
    it.fleet.root(case.host, f"farrier-agent drain {case.replica} --wait")
    established = f"ss -Htn state established sport = :{case.port}"
    assert it.fleet.ssh(case.host, established) == "", "nothing in flight"
    it.fleet.root(case.host, f"farrier-agent ready {case.replica} --wait")
    assert it.main(case) == before


def restart(it: Standins, case: Case) -> None:
    before = it.main(case)
    it.fleet.root(case.host, f"systemctl restart {case.unit}")
    assert it.main(case) not in {"0", before}


def serving_again(it: Standins, loads: list[tuple[Case, Background]]) -> None:
    it.settled(*(case for case, _ in loads))
    for case, load in loads:
        now = load.ledger.now
        again: Callable[[], Any] = partial(load.ledger.of, "complete", since=now)
        until(again, 60, f"{case.replica} serves again")


@each
@pytest.mark.parametrize("action", [drain_and_ready, restart], ids=lambda one: one.__name__)
def test_under_load_nothing_is_lost(
    it: Standins, case: Case, action: Callable[[Standins, Case], None]
) -> None:
    with it.loaded(case) as loads:
        action(it, case)
        serving_again(it, loads)
        ledger = loads[0][1].end()
    assert ledger.of("refused"), "its gate was closed meanwhile"
    it.nothing_lost(case, ledger)


@pytest.mark.parametrize("host", HOSTS)
def test_a_reboot_under_load_loses_nothing(it: Standins, host: str) -> None:
    """All of the host's replicas at once."""
    with it.loaded(*(case for case in CASES if case.host == host)) as loads:
        it.fleet.lab.reboot(host, patience=300)
        serving_again(it, loads)
        ledgers = [(case, load.end()) for case, load in loads]
    for case, ledger in ledgers:
        assert ledger.of("refused", "unreached")
        it.nothing_lost(case, ledger, rebooted=True)


@pytest.mark.parametrize("case", [OWN, CODER, PULLED], ids=["ollama", "sglang", "ollama-cpu"])
def test_another_version_and_back_under_load(it: Standins, case: Case) -> None:
    versions = [it.version(case)]
    names = [one[f"{case.thing}_version"] for one in it.made.settings]
    plain = it.fleet.converge.data[case.host]
    other = {
        **plain,
        **{
            name: value
            for name, value in it.made.settings[1].items()
            if name.startswith(f"{case.thing}_")
        },
    }
    with it.loaded(case) as loads:
        for data, wanted in ((other, names[1]), (plain, names[0])):
            before = it.version(case)
            run = it.fleet.converge(data={case.host: data}, limit=[case.host])
            assert run.returncode == 0, run.last_words()
            told = run.last_section("Restart pending")
            assert f"replica {case.replica} runs an older configuration" in told
            assert it.version(case) == before
            it.fleet.root(case.host, f"farrier-agent restart {case.replica} --wait")
            versions.append(it.version(case))
            assert versions[-1].rpartition("-")[0] == wanted
        serving_again(it, loads)
        ledger = loads[0][1].end()
    it.nothing_lost(case, ledger)
    assert versions[0] == versions[2] != versions[1]
    assert it.there(case) >= set(versions), "side by side"


# -- what ends them ----------------------------------------------------------------------------


installed = pytest.mark.parametrize(
    "case", [one for one in CASES if one is not TGI], ids=lambda one: f"{one.host}-{one.replica}"
)
"""Of one in an image tests/full/test_images.py says what SIGTERM and SIGKILL do."""


@installed
def test_what_a_bare_sigterm_does(it: Standins, case: Case) -> None:
    """What its adapter says, and why it is drained first: systemctl stop is another matter."""
    with it.load(case, BURST) as load:
        until(lambda: load.ledger.at_work("stream") == 4, 30, "four streams run")
        pid = it.main(case)
        it.fleet.root(case.host, f"kill -TERM {pid}")
        if case.sigterm == "served, and new ones too":
            asks = f"curl -so /dev/null -w '%{{http_code}}' 127.0.0.1:{case.port}"
            assert it.fleet.ssh(case.host, f"{asks}/ready") == "503"
            one = '{"model":"coder","prompt":"x","max_tokens":2}'
            assert it.fleet.ssh(case.host, f"{asks}/v1/completions -d '{one}'") == "200"
        ledger = load.end()
    ends = dict(ledger.outcomes)
    print(case.replica, ends)
    assert ends == ({"incomplete": 4} if case.sigterm == "cut" else {"complete": 4})
    gone = partial(it.fleet.unit, case.host, case.unit, "ActiveState")
    until(lambda: gone() == "inactive", 30, "a person told it to end: nobody starts it again")
    assert it.fleet.unit(case.host, case.unit, "Result") == "success"
    assert not it.fleet.gate(case.host, case.replica)
    it.fleet.root(case.host, f"systemctl start {case.unit}")
    it.settled(case)


@installed
def test_one_that_is_killed_comes_back_warm(it: Standins, case: Case) -> None:
    before = it.main(case)
    it.fleet.root(case.host, f"kill -9 {before}")
    until(lambda: not it.fleet.gate(case.host, case.replica), 60, "its gate is closed")
    it.settled(case)
    assert it.main(case) not in {"0", before}
    assert it.chat(case) == 200
