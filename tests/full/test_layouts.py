"""The real vLLM laid out: models and replicas on one host, LoRA adapters (25 min)."""

from __future__ import annotations

import subprocess
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from farrier.lab import TINY_MODEL, Lab
from farrier.load import Background, Endpoint, Plan
from tests.conftest import lab_of_tests
from tests.full.adapter import write_adapter
from tests.roles.converging import Converge
from tests.roles.fleet import Answer, asked, until
from tests.roles.nginx_config import parse, weaknesses

LAW, WIDE = "/srv/adapters/law", "/srv/adapters/wide"
GPUS = ("gpu01", "gpu02", "gpu03")
WARM = 900
"""Seconds within which each engine is warm; several start at once on few cores."""
CACHES = "/var/lib/farrier/engines/tiny-1/*/pycache"
LOAD = Plan(
    models=("tiny", "law", "small"),
    seconds=3600,
    streams=4,
    stream_seconds=(1.0, 10.0),
    posts=3,
    fresh=1,
    uploads=1,
)
"""Enough that something of every kind is in flight at every deed, on two cores."""


def tiny(replica: str = "tiny", port: int = 8101, **more: Any) -> dict[str, Any]:
    """A replica of the lab's tiny model, served by the real vLLM."""
    return {
        "name": "tiny",
        "replica": replica,
        "source": f"path:{TINY_MODEL}",
        "gpus": [],
        "port": port,
        "args": {"enforce-eager": True, "max-model-len": 2048},
        "lora": {"law": f"path:{LAW}"},
        "env": {
            "VLLM_CPU_KVCACHE_SPACE": "1",
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            "OMP_NUM_THREADS": "1",
        },
        "start_timeout": WARM,
        **more,
    }


MODELS = {
    "gpu01": [tiny(), tiny("small", 8102, name="small", lora={})],
    "gpu02": [tiny("tiny-1"), tiny("tiny-2", 8102)],
    "gpu03": [tiny()],
}
"""Two models on one host, two replicas of one on the next, and that one on all three."""


class Layouts:
    """The lab ``bench`` with these models, and how tests ask and command it."""

    def __init__(self, lab: Lab, converge: Converge) -> None:
        self.lab = lab
        self.converge = converge
        self.addresses = {host.name: str(host.address) for host in lab.hosts}
        self.keys = tomllib.loads(lab.keys_file.read_text())["keys"]
        self.key = next(iter(self.keys.values()))
        converge.models |= MODELS
        converge.data |= {host: {"nginx_clients": "keys", "agent_tick": 1.0} for host in GPUS}

    def bring_adapters(self, directory: Path) -> None:
        """Adapters are the operator's to bring, as models are."""
        write_adapter(directory / "law")
        write_adapter(directory / "wide", rank=64)
        for host in GPUS:
            packed = subprocess.run(
                ["tar", "-C", str(directory), "-cf", "-", "law", "wide"],
                check=True,
                capture_output=True,
            ).stdout
            subprocess.run(
                [
                    *("ssh", "-F", str(self.lab.ssh_config), host),
                    "sudo mkdir -p /srv/adapters && sudo tar -C /srv/adapters -xf -",
                ],
                input=packed,
                check=True,
                capture_output=True,
            )

    def root(self, host: str, command: str) -> str:
        """What *command* printed on *host* as root; it has to end well."""
        done = self.lab.ssh(host, f"sudo sh -c '{command}'", check=False)
        assert done.returncode == 0, f"{host}: {command}:\n{done.stdout}{done.stderr}"
        return done.stdout

    def serves(self, host: str) -> bool:
        """Every gate of *host* is open."""
        gates = set(self.lab.ssh(host, "ls /run/farrier/open", check=False).stdout.split())
        return gates == {model["replica"] for model in MODELS[host]}

    def settled(self) -> None:
        """Return when everything serves, and the gateway knows it."""
        for host in GPUS:
            until(partial(self.serves, host), WARM, f"{host} serves")
        until(lambda: self.listed() == {"tiny", "law", "small"}, 60, "the gateway knows all")

    def ask(self, path: str, body: Any = None, host: str = "gw01", port: int = 80) -> Answer:
        """One request with the lab's key."""
        return asked((self.addresses[host], port), path, key=self.key, body=body)

    def listed(self) -> set[str]:
        """What the gateway says that can be asked for."""
        return {one["id"] for one in self.ask("/v1/models").json()["data"]}

    def words(self, model: str) -> str:
        """What *model* says to always the same."""
        body = {"model": model, "prompt": "apple", "max_tokens": 12, "temperature": 0}
        answer = self.ask("/v1/completions", body)
        assert answer.status == 200, answer.text
        text: str = answer.json()["choices"][0]["text"]
        return text

    def load(self, url: str, plan: Plan = LOAD) -> Background:
        """Clients of *url*."""
        return Background(plan, Endpoint(url, dict(self.keys)))


@pytest.fixture(scope="module")
def layouts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Layouts]:
    """The lab after its converge; taken down in the end, unless FARRIER_KEEP_LAB=1."""
    directory = tmp_path_factory.mktemp("layouts")
    with lab_of_tests("bench") as lab:
        it = Layouts(lab, Converge(lab, directory))
        it.bring_adapters(directory / "adapters")
        run = it.converge(timeout=2400)
        if run.returncode:
            pytest.fail(f"the first converge failed:\n{run.last_words(60)}", pytrace=False)
        print(f"first converge: {run.seconds:.0f} s")
        it.settled()
        yield it


def test_models_and_adapters_are_served_by_their_names(layouts: Layouts) -> None:
    assert layouts.listed() == {"tiny", "law", "small"}
    said = {name: layouts.words(name) for name in ("tiny", "law", "small")}
    assert said["tiny"] == said["small"], "the same weights"
    assert said["law"] != said["tiny"], "the adapter counts"
    message = layouts.ask("/v1/completions", {"model": "lost"}).json()["error"]["message"]
    assert message.endswith(("law, small, tiny", "small, tiny, law")), message


def test_every_replica_is_scraped(layouts: Layouts) -> None:
    for host in GPUS:
        for model in MODELS[host]:
            path = f"/replicas/{model['replica']}/v1/completions"
            body = {"model": model["name"], "prompt": "apple", "max_tokens": 1}
            assert layouts.ask(path, body, host, 8080).status == 200

            def mine(host: str = host, replica: str = model["replica"]) -> list[str]:
                page = asked((layouts.addresses[host], 9810), "/metrics").text.splitlines()
                return [line for line in page if f'replica="{replica}"' in line]

            def counted(mine: Callable[[], list[str]] = mine) -> bool:
                return any(line.startswith("llm_requests_total{") for line in mine())

            until(counted, 30, f"{host}'s agent has read of it in nginx's log")
            engine = mine()
            assert any(line.startswith("vllm:num_requests_running{") for line in engine)
            lora = any(line.startswith("vllm:lora_requests_info{") for line in engine)
            assert lora == bool(model["lora"])


def test_nothing_of_nginx_hides_a_request(layouts: Layouts) -> None:
    printed = layouts.root("gpu02", "nginx -T 2>/dev/null")
    assert weaknesses(parse(printed), {8101: "tiny-1", 8102: "tiny-2"}) == []
    assert "farrier_any_1_2" in printed


def drain(it: Layouts) -> None:
    it.root("gpu01", "farrier-agent drain tiny --wait --reason test")
    it.root("gpu01", "farrier-agent ready tiny --wait")


def restart_each_replica(it: Layouts) -> None:
    for replica in ("tiny-1", "tiny-2"):
        it.root("gpu02", f"farrier-agent restart {replica} --wait")
        until(partial(it.serves, "gpu02"), WARM, f"{replica} serves")


def restart_both_models(it: Layouts) -> None:
    it.root("gpu01", "systemctl restart engine-tiny engine-small")


def reboot(it: Layouts) -> None:
    it.lab.reboot("gpu02", patience=600)


@pytest.mark.parametrize("deed", [drain, restart_each_replica, restart_both_models, reboot])
def test_nothing_is_lost(layouts: Layouts, deed: Callable[[Layouts], None]) -> None:
    """*small* has one replica: while that is away its clients get 503, and lose nothing."""
    layouts.settled()
    with layouts.load(f"http://{layouts.addresses['gw01']}/v1") as it:
        until(lambda: len(it.ledger.of("complete")) > 10, 120, "the load runs")
        deed(layouts)
        for host in GPUS:
            until(partial(layouts.serves, host), WARM, f"{host} serves")
        now = it.ledger.now
        until(lambda: len(it.ledger.of("complete", since=now)) > 10, 300, "all serve again")
        ledger = it.end()
    print(f"{deed.__name__}: {dict(ledger.outcomes)}")
    assert ledger.lost == 0, [str(one) for one in ledger.losses()][:5]
    refused = {one.model for one in ledger.of("refused")}
    assert refused <= {"small"}, "of the others somebody served all the time"


def test_one_whose_core_is_killed_comes_back_by_itself(layouts: Layouts) -> None:
    """vLLM ends with 0 then: systemd would take that for the end that somebody wanted."""
    until(partial(layouts.serves, "gpu03"), WARM, "gpu03 serves")
    layouts.root("gpu03", "pkill -KILL -f ^VLLM::EngineCore")
    until(lambda: not layouts.serves("gpu03"), 60, "its gate is closed")
    until(partial(layouts.serves, "gpu03"), WARM, "systemd starts it, the agent warms it up")
    show = layouts.lab.ssh("gpu03", "systemctl show -P NRestarts engine-tiny")
    assert show.stdout.strip() == "1"


def test_a_host_s_own_v1_loses_nothing_and_refuses_nothing(layouts: Layouts) -> None:
    """Two replicas behind one address, without a gateway, restarted one after the other."""
    layouts.settled()
    plan = replace(LOAD, models=("tiny", "law"), streams=3, posts=2)
    with layouts.load(f"http://{layouts.addresses['gpu02']}:8080/v1", plan) as it:
        until(lambda: len(it.ledger.of("complete")) > 10, 120, "the load runs")
        before = layouts.root("gpu02", f"find {CACHES} -type f -printf %i:%T@: | md5sum")
        restart_each_replica(layouts)
        after = layouts.root("gpu02", f"find {CACHES} -type f -printf %i:%T@: | md5sum")
        ledger = it.end()
    print(dict(ledger.outcomes))
    assert set(ledger.outcomes) == {"complete"}, [str(one) for one in ledger.losses()][:5]
    assert before == after, "what was compiled is what it was"


def test_caches_of_a_version_that_is_gone_go_with_the_next_converge(layouts: Layouts) -> None:
    gone = "/var/lib/farrier/engines/tiny/0.1.0-0a1b2c3d"
    layouts.root("gpu03", f"mkdir -p {gone}/vllm")
    run = layouts.converge(limit=["gpu03"], timeout=1200)
    assert run.returncode == 0, run.last_words()
    assert [name for name in run.changed("gpu03") if "Caches" in name] == run.changed("gpu03")
    kept = layouts.root("gpu03", "ls /var/lib/farrier/engines/tiny").split()
    assert not [name for name in kept if name.startswith("0.1.0-")]
    assert [name for name in kept if name.startswith("0.32.0-")]
    again = layouts.converge(limit=["gpu03"], timeout=1200)
    assert (again.returncode, again.changed("gpu03")) == (0, [])


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "wide": (
        {"lora": {"wide": f"path:{WIDE}"}},
        'models: tiny args={"max-lora-rank": 64}',
    ),
    "lost": ({"lora": {"lost": "path:/srv/adapters/lost"}}, "lost/adapter_config.json does not"),
    "context": (
        {"args": {"max-model-len": 131_072}},
        'models: tiny args={"max-model-len": 2048}',
    ),
    "quantisation": (
        {"args": {"quantization": "bitsandbytes"}},
        "does not know the quantisation 'bitsandbytes'",
    ),
    "servers": ({"args": {"api-server-count": 2}}, "one API server for a unit"),
    "names": ({"lora": {"small": f"path:{LAW}"}}, "'small' is a model of this fleet"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_is_refused_before_anything_is_changed(layouts: Layouts, what: str) -> None:
    fields, message = REFUSED[what]
    run = layouts.converge(models={"gpu03": [tiny(**fields)]}, limit=["gpu03"], timeout=600)
    assert run.returncode != 0
    assert message in run.stderr + run.stdout
    assert run.changed("gpu03") == []
    assert layouts.serves("gpu03")
