"""Another version of the real vLLM and back, under load, its caches kept, on CPUs (40 min)."""

from __future__ import annotations

import json
import os
import re
import subprocess
import tomllib
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import pytest

from farrier.lab import TINY_MODEL, Lab
from farrier.load import Background, Endpoint, Plan
from tests.conftest import lab_of_tests
from tests.roles.converging import ROOT, Converge
from tests.roles.fleet import Answer, asked, until

GATEWAY, GPUS = "gw01", ("gpu01", "gpu02")
OLDER, NEWER = "0.31.0", "0.32.0"
"""NEWER is the role's own; of OLDER a lock is made here, as an operator would."""
WARM = 900
"""Seconds within which each engine is warm; one that compiles has few cores for it."""
UNIT = "engine-tiny.service"
PROGRAMS, CACHES = "/opt/farrier/vllm", "/var/lib/farrier/engines/tiny"
SAVED = "saved AOT compiled function to"
"""What vLLM says where it compiled the model."""
LOAD = Plan(
    models=("tiny",),
    seconds=3600,
    streams=4,
    stream_seconds=(1.0, 10.0),
    posts=2,
    fresh=0,
    uploads=0,
)
"""Enough that something is in flight at every deed, on two cores."""
MODEL: Mapping[str, Any] = {
    "name": "tiny",
    "source": f"path:{TINY_MODEL}",
    "gpus": [],
    "port": 8101,
    "args": {
        "dtype": "float32",  # bfloat16 needs AMX where the CPU names it, and not every VM lets it
        "max-model-len": 2048,
    },
    "env": {
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "OMP_NUM_THREADS": "1",
    },
    "start_timeout": WARM,
}
"""Compiled, not eager: the caches are what this is about."""


class Versions:
    """Two hosts of the lab ``demo`` behind its gateway, and how tests ask and command them."""

    def __init__(self, lab: Lab, converge: Converge) -> None:
        self.lab = lab
        self.converge = converge
        self.addresses = {host.name: str(host.address) for host in lab.hosts}
        self.keys = tomllib.loads(lab.keys_file.read_text())["keys"]
        self.locks = converge.directory / "locks"
        converge.models |= {host: [MODEL] for host in GPUS}
        converge.everywhere = {"agent_tick": 1.0}

    def make_lock(self) -> None:
        """A lock of OLDER, by the documented line."""
        environment = dict(os.environ)
        if "PIP_FIND_LINKS" in environment:  # uv does not read what pip is told
            environment.setdefault("UV_FIND_LINKS", environment["PIP_FIND_LINKS"])
        line = [str(ROOT / "scripts" / "lock"), "vllm", OLDER, str(self.locks), "cpu"]
        done = subprocess.run(line, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    def older(self) -> Mapping[str, Any]:
        """The data of a host that says OLDER."""
        return {"vllm_version": OLDER, "vllm_locks": str(self.locks)}

    def root(self, host: str, command: str, *, check: bool = True) -> str:
        """What *command* printed on *host* as root."""
        done = self.lab.ssh(host, f"sudo sh -c '{command}'", check=False)
        if check:
            assert done.returncode == 0, f"{host}: {command}:\n{done.stdout}{done.stderr}"
        return done.stdout

    def serves(self, host: str) -> bool:
        """Its gate is open."""
        return self.lab.ssh(host, "ls /run/farrier/open", check=False).stdout.split() == ["tiny"]

    def settled(self) -> None:
        """Return when both hosts serve, and the gateway knows it."""
        for host in GPUS:
            until(partial(self.serves, host), WARM, f"{host} serves")
        until(lambda: self.ask("/v1/models").status == 200, 60, "the gateway knows it")

    def ask(self, path: str, body: Any = None) -> Answer:
        """One request through the gateway."""
        key = next(iter(self.keys.values()))
        return asked((self.addresses[GATEWAY], 80), path, key=key, body=body)

    def releases(self, host: str, where: str = PROGRAMS) -> dict[str, str]:
        """Each version that lies in *where* on *host*, with the name of its directory."""
        names = self.root(host, f"ls {where}").split()
        return {name.partition("-")[0]: name for name in names if re.match(r"\d.*-", name)}

    def runs(self, host: str) -> str:
        """The version that the engine of *host* says itself."""
        said = json.loads(self.root(host, "curl -sS 127.0.0.1:8101/version"))
        return str(said["version"]).partition("+")[0]

    def compiled(self, host: str, version: str) -> dict[str, str]:
        """The files in the caches of *version* on *host*: which, and when it was written."""
        there = f"{CACHES}/{self.releases(host, CACHES)[version]}"
        said = self.root(host, f'find {there} -type f -printf "%i:%T@ %P\\\\n"')
        return {name: which for which, name in (line.split(" ", 1) for line in said.splitlines())}

    def both(self, host: str) -> dict[str, dict[str, str]]:
        """The same of both versions."""
        return {version: self.compiled(host, version) for version in (OLDER, NEWER)}

    def started_from_caches(
        self, host: str, version: str, before: Mapping[str, Mapping[str, str]]
    ) -> None:
        """The engine of *host* found what *version* had compiled, and no C++ was compiled again.

        vLLM on CPUs looks for its graph, cannot load what it saved itself ("'function' object has
        no attribute 'finalize_loading'", 0.31.0 and 0.32.0), and saves it once more, of the same
        libraries.
        """
        there = f"{CACHES}/{self.releases(host, CACHES)[version]}/"
        assert re.search(f"(load failure|AOT compilation) from (path )?{there}", self.journal(host))
        now = self.both(host)
        for each in (OLDER, NEWER):
            changed = {name for name, which in before[each].items() if now[each].get(name) != which}
            changed = {name for name in changed if not name.endswith("/model")}
            assert not changed, f"{host}: {each}: {sorted(changed)[:5]}"
            assert libraries(before[each]) == libraries(now[each]) != set()

    def told(self, **farrier: Any) -> dict[str, str]:
        """The version of each host's replica, as ``farrier status`` has it."""
        rows = self.farrier("status", *GPUS, **farrier)
        return {row["host"]: row["replicas"][0]["engine_version"] for row in rows}

    def journal(self, host: str) -> str:
        """What the present run of the engine of *host* said."""
        run = self.root(host, f"systemctl show -P InvocationID {UNIT}").strip()
        return self.root(host, f"journalctl -q -o cat _SYSTEMD_INVOCATION_ID={run}")

    def farrier(self, *words: str, data: Mapping[str, Any] | None = None, **model: Any) -> Any:
        """What ``farrier … --json`` prints by lines; *model*: what it has otherwise."""
        done = subprocess.run(
            [str(ROOT / ".venv" / "bin" / "farrier"), *words, "--json"],
            cwd=ROOT,
            env=self.converge.environment(
                models={host: [{**MODEL, **model}] for host in GPUS},
                data={host: data or {} for host in GPUS},
            ),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=3000,
            check=False,
        )
        assert done.returncode == 0, f"{words}: exit {done.returncode}\n{done.stdout}{done.stderr}"
        return [json.loads(line) for line in done.stdout.splitlines()]

    def rolled(self, *words: str, **farrier: Any) -> None:
        """``farrier rollout`` with these *words* under load, and nothing is lost."""
        url = f"http://{self.addresses[GATEWAY]}/v1"
        with Background(LOAD, Endpoint(url, dict(self.keys))) as load:
            until(lambda: len(load.ledger.of("complete")) > 10, 300, "the load runs")
            ledger = self.farrier("rollout", *words, "-y", **farrier)[-1]
            now = load.ledger.now
            until(lambda: len(load.ledger.of("complete", since=now)) > 10, 300, "it goes on")
            clients = load.end()
        print(*words, dict(clients.outcomes), times(ledger))
        assert set(clients.outcomes) == {"complete"}, [str(one) for one in clients.losses()][:5]
        assert (ledger["outcome"], ledger["lost"]) == ("done", 0)

    def unnamed(self, host: str) -> list[str]:
        """What docs/rollouts.md has to find versions that nothing on *host* names any more."""
        text = (ROOT / "docs" / "rollouts.md").read_text()
        (lines,) = re.findall(r"^    cd /opt/farrier/vllm &&.*\n(?:    .*\n?)+", text, re.MULTILINE)
        done = self.lab.ssh(host, "sudo sh", input=lines)
        return [name.rstrip("/") for name in done.stdout.split()]


def libraries(files: Mapping[str, str]) -> set[str]:
    """What of a version's caches is compiled C++."""
    return {name for name in files if name.endswith(".so")}


def times(ledger: Mapping[str, Any]) -> str:
    """How long it all took, and each replica's parts of it."""
    parts = [f"{ledger['ended_at'] - ledger['began_at']:.0f} s"]
    for host in ledger["hosts"]:
        (one,) = host["replicas"]
        took = {part: one[f"{part}_seconds"] for part in ("drain", "stop", "start", "warm")}
        parts.append(f"{host['host']} " + " ".join(f"{k} {v:.1f}" for k, v in took.items()))
    return "; ".join(parts)


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Versions]:
    """The hosts after a converge that says OLDER; taken down, unless FARRIER_KEEP_LAB=1."""
    with lab_of_tests("demo", [GATEWAY, *GPUS]) as lab:
        it = Versions(lab, Converge(lab, tmp_path_factory.mktemp("versions")))
        it.make_lock()
        run = it.converge(data={host: it.older() for host in GPUS}, timeout=2400)
        if run.returncode:
            pytest.fail(f"the first converge failed:\n{run.last_words(60)}", pytrace=False)
        print(f"first converge: {run.seconds:.0f} s")
        it.settled()
        yield it


def test_it_starts_with_a_version_of_the_operators_own(versions: Versions) -> None:
    assert versions.told(data=versions.older()) == dict.fromkeys(GPUS, OLDER)
    for host in GPUS:
        assert versions.runs(host) == OLDER
        assert set(versions.releases(host)) == set(versions.releases(host, CACHES)) == {OLDER}
        assert SAVED in versions.journal(host)
    again = versions.converge(data={host: versions.older() for host in GPUS}, timeout=1200)
    assert again.returncode == 0, again.last_words()
    assert [again.changed(host) for host in GPUS] == [[], []]


def test_an_upgrade_loses_nothing_and_leaves_what_was_there(versions: Versions) -> None:
    before = {host: versions.compiled(host, OLDER) for host in GPUS}
    versions.rolled("converge")
    assert versions.told() == dict.fromkeys(GPUS, NEWER)
    for host in GPUS:
        assert versions.runs(host) == NEWER
        assert set(versions.releases(host)) == set(versions.releases(host, CACHES))
        assert set(versions.releases(host)) == {OLDER, NEWER}
        assert SAVED in versions.journal(host)
        assert before[host].items() <= versions.compiled(host, OLDER).items()


def test_the_way_back_loses_nothing_and_compiles_nothing(versions: Versions) -> None:
    before = {host: versions.both(host) for host in GPUS}
    versions.rolled("rollback")
    for host in GPUS:
        assert versions.runs(host) == OLDER
        versions.started_from_caches(host, OLDER, before[host])


def test_the_way_forward_again_compiles_nothing_either(versions: Versions) -> None:
    before = {host: versions.both(host) for host in GPUS}
    versions.rolled("converge")
    for host in GPUS:
        assert versions.runs(host) == NEWER
        versions.started_from_caches(host, NEWER, before[host])


def test_what_is_cleaned_away_is_what_nothing_names(versions: Versions) -> None:
    """The unit before still names OLDER; after another change of the unit nothing does."""
    before = {host: versions.both(host) for host in GPUS}
    assert [versions.unnamed(host) for host in GPUS] == [[], []]
    versions.rolled("converge", env={**MODEL["env"], "ROLLED": "1"})
    for host in GPUS:
        older = versions.releases(host)[OLDER]
        assert versions.unnamed(host) == [older]
        assert versions.releases(host, CACHES)[OLDER] == older, "as long as its program is there"
        versions.started_from_caches(host, NEWER, before[host])
        versions.root(host, f"rm -rf {PROGRAMS}/{older}")
    runs = [versions.root(host, f"systemctl show -P InvocationID {UNIT}") for host in GPUS]
    rolled = [{**MODEL, "env": {**MODEL["env"], "ROLLED": "1"}}]
    run = versions.converge(models=dict.fromkeys(GPUS, rolled), timeout=1200)
    assert run.returncode == 0, run.last_words()
    for host in GPUS:
        assert run.changed(host) == ["vLLM | Caches of versions that are gone"]
        assert set(versions.releases(host, CACHES)) == {NEWER}
        assert versions.compiled(host, NEWER).items() >= before[host][NEWER].items()
    assert runs == [versions.root(host, f"systemctl show -P InvocationID {UNIT}") for host in GPUS]
