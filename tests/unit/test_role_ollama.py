"""The role ollama: the unit, the store that is filled before it starts, the release it runs from.

Ollama's own program is a stand-in here (tests/fakes/ollama); tar, sh and the agent are real.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from farrier_agent.engines import ENGINES
from farrier_agent.loopback import asker
from farrier_agent.warmup import warm_up

from farrier.converge.releases import Release, unpack_script
from farrier.preflight.wanted import wanted
from farrier.spec import OPEN_ACCESS, HostSpec, Model, read_host
from farrier.tarballs import TarballError, fetch
from roles import engine
from roles import ollama as role
from roles.agent.configuration import agent_config
from roles.engine.commands import environment, ollama_store, prepared
from tests.agent.host import FAKES, free_port
from tests.unit.ggufs import gguf

FILL = Path(role.__file__).parent / "templates" / "fill"
PROGRAM = "/opt/farrier/ollama/0.33.0-abcdef01"
MANIFEST = b'{"schemaVersion": 2, "layers": []}'
DIGEST = hashlib.sha256(MANIFEST).hexdigest()
CUDA = HostSpec("gpu01", groups=("gpu",))
FIELDS: dict[str, Any] = {
    "name": "qwen",
    "engine": "ollama",
    "source": f"ollama:qwen3:8b@{DIGEST}",
    "gpus": [0],
    "port": 8105,
}
PULLED = Model(**FIELDS)
OWN = Model("own", engine="ollama", source="path:/srv/models/own.gguf", gpus=[1], port=8106)
SETTINGS = engine.DEFAULTS.data()


def problems(model: Model, **data: Any) -> dict[str, str]:
    data = {"models": [model], "open_access": OPEN_ACCESS} | data
    return {one.field: one.message for one in read_host("gpu01", ["gpu"], data)[1]}


def test_what_the_inventory_may_say() -> None:
    assert problems(PULLED) == problems(OWN) == {}
    hub = FIELDS | {"source": f"ollama:hf.co/a/b:Q4_K_M@sha256:{DIGEST}"}
    assert problems(Model(**hub)) == {}


@pytest.mark.parametrize(
    ("fields", "field", "words"),
    [
        ({"source": "ollama:qwen3:8b"}, "source", "is not pinned"),
        ({"source": "ollama:qwen3:8b@500a1f067a9f"}, "source", "with the 64 digits"),
        ({"source": "path:/srv/models/x"}, "source", "a GGUF file: write path:/srv/models/NAME"),
        ({"source": "hf:a/b@main"}, "source", "or ollama:NAME:TAG@DIGEST"),
        ({"args": {"num-ctx": 1}}, "args", "its settings are variables in env"),
        ({"command": ["/x"]}, "command", "has its own"),
        ({"env": {"OLLAMA_HOST": "0.0.0.0"}}, "env.OLLAMA_HOST", "listens on 127.0.0.1"),
        ({"env": {"OLLAMA_MODELS": "/x"}}, "env.OLLAMA_MODELS", "a directory of its own"),
        ({"engine": "vllm"}, "source", "no model of Ollama's library; engines that do: ollama"),
    ],
)
def test_what_it_may_not(fields: dict[str, Any], field: str, words: str) -> None:
    found = problems(Model(**FIELDS | fields))
    assert found.keys() == {f"models[0].{field}"}
    assert words in found[f"models[0].{field}"]


def test_its_unit_fills_the_store_and_serves_on_loopback() -> None:
    unit = engine.unit_text(PULLED, CUDA, SETTINGS, PROGRAM)
    fill = f"ExecStartPre=/opt/farrier/ollama/fill {PROGRAM}/bin/ollama qwen pull qwen3:8b {DIGEST}"
    lines = unit.splitlines()
    assert lines.index(fill) < lines.index(f"ExecStart={PROGRAM}/bin/ollama serve")
    assert "TimeoutStartSec=600" in lines
    assert "Environment=OLLAMA_HOST=127.0.0.1:8105" in lines
    assert "Environment=OLLAMA_KEEP_ALIVE=-1" in lines
    assert (
        environment(replace(PULLED, env={"OLLAMA_KEEP_ALIVE": "5m"}), CUDA, PROGRAM)[
            "OLLAMA_KEEP_ALIVE"
        ]
        == "5m"
    )


def test_another_pin_is_another_store_and_another_configuration() -> None:
    other = replace(PULLED, source=f"ollama:qwen3:8b@{'0' * 64}")
    assert ollama_store(other) != ollama_store(PULLED)
    hashes = {
        engine.config_hash(engine.unit_text(model, CUDA, SETTINGS, PROGRAM))
        for model in (PULLED, other)
    }
    assert len(hashes) == 2
    assert "TimeoutStartSec" not in engine.unit_text(
        Model("x", source="path:/m", gpus=[0]), CUDA, SETTINGS, PROGRAM
    )


def test_the_agent_is_told_whether_the_cpu_is_an_accident() -> None:
    for spec, adapter in ((CUDA, "ollama"), (replace(CUDA, accelerator="cpu"), "ollama-on-cpu")):
        config = agent_config(
            replace(spec, models=(PULLED,)),
            {"agent_address": "0.0.0.0", "agent_tick": 5.0, "agent_web_config": None},
            {"qwen": "h"},
            {"engine_drain_seconds": 900.0, "engine_drain_policy": "extend"},
            gateways=False,
        )
        assert config.replicas[0].engine == adapter


# -- the store ---------------------------------------------------------------------------------


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A replica's state directory, with a program and a library."""
    library = tmp_path / "library"
    library.mkdir()
    (library / "qwen3:8b").write_bytes(MANIFEST)
    program = tmp_path / "bin" / "ollama"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} {FAKES}/ollama/ollama.py "$@"\n')
    program.chmod(0o755)
    return tmp_path


def environ(place: Path, pin: str, port: int) -> Mapping[str, str]:
    return os.environ | {
        "OLLAMA_HOST": f"127.0.0.1:{port}",
        "OLLAMA_MODELS": str(place / f"models-{pin}"),
        "FAKE_OLLAMA_LIBRARY": str(place / "library"),
    }


def fill(place: Path, *words: str, pin: str = "a") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", str(FILL), str(place / "bin/ollama"), *words],
        env=environ(place, pin, free_port()),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_a_pull_is_compared_with_its_pin_and_done_once(place: Path) -> None:
    done = fill(place, "qwen", "pull", "qwen3:8b", DIGEST)
    assert done.returncode == 0, done.stderr
    manifests = place / "models-a/manifests/registry.ollama.ai/library"
    assert (manifests / "qwen/latest").read_bytes() == MANIFEST
    (place / "bin/ollama").write_text("#!/bin/sh\nexit 9\n")
    assert fill(place, "qwen", "pull", "qwen3:8b", DIGEST).returncode == 0, "it is filled"


def test_other_weights_under_the_same_tag_are_not_served(place: Path) -> None:
    (place / "library/qwen3:8b").write_bytes(b"{}")
    done = fill(place, "qwen", "pull", "qwen3:8b", DIGEST)
    assert done.returncode == 1
    assert f"and the inventory pins {DIGEST}: nothing is served" in done.stderr
    assert not (place / "models-a/.complete").exists()
    (place / "library/qwen3:8b").write_bytes(MANIFEST)
    assert fill(place, "qwen", "pull", "qwen3:8b", DIGEST).returncode == 0


def test_what_cannot_be_had_is_said(place: Path) -> None:
    done = fill(place, "x", "pull", "nothing:1b", DIGEST)
    assert "fill: error: nothing:1b could not be pulled" in done.stderr
    done = fill(place, "x", "create", str(place / "none.gguf"), "-")
    assert "none.gguf cannot be read: is it on the host, and readable for" in done.stderr
    (place / "page.gguf").write_text("<html>")
    done = fill(place, "x", "create", str(place / "page.gguf"), "-")
    assert "no model could be made of" in done.stderr
    (place / "bin/ollama").write_text("#!/bin/sh\necho no GPU >&2; exit 1\n")
    done = fill(place, "x", "pull", "qwen3:8b", DIGEST)
    assert "fill: error: ollama serve ended" in done.stderr
    assert done.returncode == 1


def test_a_gguf_that_was_replaced_is_taken_anew(place: Path) -> None:
    file = place / "own.gguf"
    file.write_bytes(gguf())
    assert fill(place, "own", "create", str(file), "-").returncode == 0
    before = (place / "models-a/.complete").read_text()
    file.write_bytes(gguf() + b"\0" * 32)
    assert fill(place, "own", "create", str(file), "-").returncode == 0
    assert (place / "models-a/.complete").read_text() != before


def test_the_store_before_stays_and_older_ones_go(place: Path) -> None:
    for number, pin in enumerate("abc"):
        assert fill(place, "qwen", "pull", "qwen3:8b", DIGEST, pin=pin).returncode == 0
        os.utime(place / f"models-{pin}", (number, number))
    assert sorted(path.name for path in place.glob("models-*")) == ["models-b", "models-c"]


@contextmanager
def served(place: Path, port: int, on_gpus: float) -> Iterator[None]:
    env = {**environ(place, "a", port), "FAKE_OLLAMA_ON_GPUS": str(on_gpus)}
    with subprocess.Popen([place / "bin/ollama", "serve"], env=env, stderr=-3) as process:
        try:
            yield
        finally:
            process.terminate()


@pytest.mark.parametrize(("share", "warm"), [(1.0, True), (0.0, False)])
def test_what_was_filled_is_served_and_warmed_up(place: Path, share: float, warm: bool) -> None:
    assert fill(place, "qwen", "pull", "qwen3:8b", DIGEST).returncode == 0
    port = free_port()
    with served(place, port, share):
        result = asyncio.run(
            warm_up(
                asker(port),
                ENGINES["ollama"],
                "qwen",
                deadline=5 if not warm else 30,
                again=(0.1, 0.1),
            )
        )
    assert result.warm == warm, result
    if not warm:
        assert "the rest runs on the CPU" in (result.why or "")


def test_the_unit_and_the_store_agree() -> None:
    words = prepared(PULLED, PROGRAM)
    assert words == [
        *("/opt/farrier/ollama/fill", f"{PROGRAM}/bin/ollama", "qwen", "pull", "qwen3:8b", DIGEST)
    ]
    assert prepared(OWN, PROGRAM)[2:] == ["own", "create", "/srv/models/own.gguf", "-"]
    assert prepared(Model("x", source="path:/m", gpus=[0]), PROGRAM) == []


# -- the release -------------------------------------------------------------------------------


def tarball(path: Path, name: str = "bin/ollama") -> str:
    with tarfile.open(path, "w") as archive:
        info = tarfile.TarInfo(name)
        info.size, info.mode = 10, 0o775
        archive.addfile(info, io.BytesIO(b"#!/bin/sh\n"))
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_tarball_is_fetched_once_and_another_one_is_not_kept(tmp_path: Path) -> None:
    digest = tarball(tmp_path / "ollama.tar")
    cache = tmp_path / "cache"
    for url in (str(tmp_path / "ollama.tar"), (tmp_path / "ollama.tar").as_uri()):
        kept = fetch(url, digest, cache)
        assert kept.read_bytes() == (tmp_path / "ollama.tar").read_bytes()
    (tmp_path / "ollama.tar").unlink()
    assert fetch(str(tmp_path / "ollama.tar"), digest, cache) == kept
    tarball(tmp_path / "ollama.tar", "bin/other")
    with pytest.raises(TarballError, match=r"the inventory wants 0000.*Nothing was kept"):
        fetch(str(tmp_path / "ollama.tar"), "0" * 64, cache)
    with pytest.raises(TarballError, match=r"could not be fetched: .*name its path on this one"):
        fetch(str(tmp_path / "none.tar"), "1" * 64, cache)
    with pytest.raises(TarballError, match="only https:"):
        fetch("ftp://x/y.tar", "1" * 64, cache)
    assert [path.name for path in cache.iterdir()] == [kept.name]


def unpacked(tmp_path: Path, digest: str) -> tuple[Release, subprocess.CompletedProcess[str]]:
    wanted = Release("ollama", "1.0", "", digest, "bin/ollama", 1, root=str(tmp_path / "opt"))
    script = unpack_script(wanted, str(tmp_path / "a.tar"))
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=False)
    return wanted, done


def test_a_release_is_complete_or_not_there(tmp_path: Path) -> None:
    digest = tarball(tmp_path / "a.tar")
    wanted, done = unpacked(tmp_path, digest)
    assert done.returncode == 0, done.stderr
    path = Path(wanted.path)
    assert (path / ".complete").read_text().strip() == digest
    assert (path.parent / "current").resolve() == path
    assert (path / "bin/ollama").stat().st_mode & 0o777 == 0o755
    assert not (tmp_path / "a.tar").exists()
    assert unpacked(tmp_path, digest)[1].returncode == 0, "it is there"


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("bin/other", b"", "there is no program bin/ollama in it"),
        ("bin/ollama", b"\0", "did NOT match"),
    ],
)
def test_a_release_that_is_not_what_was_meant(
    tmp_path: Path, name: str, change: bytes, words: str
) -> None:
    digest = tarball(tmp_path / "a.tar", name)
    with (tmp_path / "a.tar").open("ab") as file:
        file.write(change)
    wanted, done = unpacked(tmp_path, digest)
    assert done.returncode != 0
    assert words in done.stderr
    assert [one.name for one in Path(wanted.path).parent.iterdir()] == []


def test_a_host_is_refused_until_the_tarball_is_pinned() -> None:
    spec = replace(CUDA, models=(PULLED,))
    (program,) = wanted(spec, {}).programs
    assert not program.pinned
    assert program.name == "ollama 0.33.0"
    (program,) = wanted(spec, {"ollama_sha256": "ab" * 32}).programs
    assert program.pinned
    assert program.path == "/opt/farrier/ollama/0.33.0-abababab"
    made = role.ollama_release(role.DEFAULTS.data() | {"ollama_sha256": "ab" * 32})
    assert made.url.endswith("/v0.33.0/ollama-linux-amd64.tar.zst")
