"""Models that cannot start: each is refused with its message, and nothing was changed (5 min).

The files are real and lie on a lab's host; its GPUs are a tree of files that stands for T4s. All of
them are in one inventory: a look and a converge tell them all at once.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from farrier.engine_refusals import REFUSALS
from farrier.lab.tiny_gguf import tiny_gguf
from farrier.lab.tiny_model import write_tiny_model
from tests.conftest import lab_of_tests
from tests.full.adapter import write_adapter
from tests.roles.converging import ROOT, Converge, Run
from tests.roles.fleet import GPU_TREE, Fleet
from tests.roles.gpus import DRIVER_LOADED

FARRIER = Path(sys.executable).with_name("farrier")
HOST = "gpu01"
MODELS = "/srv/models"
T4 = {"vendor": "0x10de", "device": "0x1eb8", "class": "0x030200"}
GPUS = 14
CASES = [name for name, one in REFUSALS.items() if one.shown_by == "bad_input"]
STATE = (
    "dpkg-query -W; systemctl list-unit-files --no-legend; getent passwd;"
    " find /etc /opt /usr /srv /var/lib/farrier -printf '%p %s %T@\\n' 2>/dev/null | sort"
)
"""What of a host a deploy could have changed."""


def _configured(directory: Path, **fields: Any) -> None:
    said = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(said | fields))


def _cut(size: int) -> Callable[[Path], None]:
    def cut(directory: Path) -> None:
        file = directory / "model.safetensors"
        file.write_bytes(file.read_bytes()[:size])

    return cut


def _folder(directory: Path) -> None:
    (directory / "config.json").unlink()
    (directory / "config.json").mkdir()


BREAK: dict[str, Callable[[Path], object]] = {
    "architecture": lambda at: _configured(
        at, architectures=["NoSuchForCausalLM"], model_type="nosuch"
    ),
    "quantisation": lambda at: _configured(at, quantization_config={"quant_method": "mxfp4"}),
    "heads": lambda at: _configured(at, num_attention_heads=3, num_key_value_heads=3),
    "rank": lambda _: None,
    "context": lambda _: None,
    "page": lambda at: (at / "config.json").write_text("<html>Not found</html>"),
    "empty": lambda at: (at / "config.json").write_text(""),
    "folder": _folder,
    "header": _cut(50),
    "data": _cut(-1000),
    "pointer": lambda at: (at / "model.safetensors").write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 10\n"
    ),
}
"""What is done to the tiny model."""
FIELDS: dict[str, dict[str, Any]] = {
    "rank": {"lora": {"wide": f"path:{MODELS}/wide"}},
    "context": {"args": {"max-model-len": 131_072}},
    "gguf": {
        "engine": "llama_cpp",
        "source": f"path:{MODELS}/gguf.gguf",
        "command": [
            *("/opt/own/llama-server", "--model", "{path}", "--metrics"),
            *("--host", "{host}", "--port", "{port}"),
        ],
    },
}


@dataclass(frozen=True)
class Seen:
    """What the commands told, and the host before and after."""

    status: int
    verdict: str
    reasons: tuple[dict[str, Any], ...]
    run: Run
    before: str
    after: str
    words: dict[str, dict[str, str]]


def models() -> list[dict[str, Any]]:
    """Each case as a model with GPUs of its own."""
    found: list[dict[str, Any]] = []
    gpu = 0
    for number, name in enumerate(CASES):
        gpus = [gpu, gpu + 1] if name == "heads" else [gpu]
        gpu += len(gpus)
        own = {"name": name, "source": f"path:{MODELS}/{name}", "gpus": gpus, "port": 8101 + number}
        found.append(own | FIELDS.get(name, {}))
    return found


def bring(fleet: Fleet, directory: Path) -> dict[str, dict[str, str]]:
    """The files, and the GPUs; what the messages say of each."""
    words: dict[str, dict[str, str]] = {}
    whole = tiny_gguf()
    (directory / "gguf.gguf").write_bytes(whole[:-100_000])
    write_adapter(directory / "wide", rank=64)
    words["gguf"] = {
        "path": f"{MODELS}/gguf.gguf",
        "size": str(len(whole) - 100_000),
        "whole": str(len(whole)),
        "folder": MODELS,
        "file": "gguf.gguf",
    }
    for name, damage in BREAK.items():
        at = directory / name
        write_tiny_model(at)
        tensors = (at / "model.safetensors").read_bytes()
        damage(at)
        header = 8 + int.from_bytes(tensors[:8], "little")
        words[name] = {
            "path": f"{MODELS}/{name}",
            "adapter": f"{MODELS}/wide",
            "size": str(len(tensors) - 1000),
            "whole": str(header if name == "header" else len(tensors)),
        }
    packed = subprocess.run(
        ["tar", "-C", str(directory), "-cf", "-", "."], check=True, capture_output=True
    ).stdout
    fleet.put_bytes(HOST, "/srv/bad.tar", packed)
    fleet.put(HOST, f"{GPU_TREE}/proc/driver/nvidia/version", DRIVER_LOADED)
    libraries = f"{GPU_TREE}/usr/lib/x86_64-linux-gnu"
    slots = " ".join(f"{16 + number:02x}" for number in range(GPUS))
    files = "; ".join(f"echo {value} > $d/{name}" for name, value in T4.items())
    fleet.root(
        HOST,
        f"mkdir -p {MODELS} {libraries} {GPU_TREE}/sys/bus/pci/drivers/nvidia {GPU_TREE}/dev;"
        f" tar -C {MODELS} --no-same-owner -xf /srv/bad.tar && rm /srv/bad.tar;"
        f" touch {libraries}/libcuda.so.580.95.05;"
        f" ln -sfn libcuda.so.580.95.05 {libraries}/libcuda.so.1;"
        f" for s in {slots}; do d={GPU_TREE}/sys/bus/pci/devices/0000:$s:00.0; mkdir -p $d;"
        f" {files}; ln -sfn ../../drivers/nvidia $d/driver; done",
    )
    return words


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    """A look and a converge of a bare host that is to serve all of them."""
    directory = tmp_path_factory.mktemp("bad")
    with lab_of_tests("nginx", [HOST]) as lab:
        converge = Converge(lab, tmp_path_factory.mktemp("converge"))
        fleet = Fleet(lab, converge)
        words = bring(fleet, directory)
        converge.models[HOST] = models()
        converge.data[HOST] = {
            "accelerator": "cuda",
            "nvidia_driver_source": "none",
            "nginx_clients": "keys",
            "roots": {name: f"{GPU_TREE}/{name}" for name in ("proc", "sys", "usr", "dev")},
        }
        before = fleet.root(HOST, STATE)
        look = subprocess.run(
            [str(FARRIER), "preflight", "--json", HOST],
            cwd=ROOT,
            env=converge.environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert look.stdout, look.stderr
        told = json.loads(look.stdout)
        run = converge(limit=[HOST], timeout=900)
        after = fleet.root(HOST, STATE)
        (at,) = [one for one in lab.hosts if one.name == HOST]
        ssh = f"ssh -i {lab.user_key} farrier@{at.address}"
        for one in words:
            words[one] |= {"name": one, "ssh": ssh}
        yield Seen(
            look.returncode, told["verdict"], tuple(told["reasons"]), run, before, after, words
        )


@pytest.mark.parametrize("name", CASES)
def test_it_is_refused_with_its_message(seen: Seen, name: str) -> None:
    wanted, words = REFUSALS[name], seen.words[name]
    mine = [one for one in seen.reasons if one["message"].startswith(f"model {name}:")]
    (reason,) = [one for one in mine if one["severity"] == "refuse"]
    assert reason["code"] == wanted.code
    assert reason["message"] == wanted.message.format(**words)
    assert reason["repair"] == wanted.repair.format(**words)
    told = " ".join(seen.run.last_section("Failed:").split())
    assert " ".join(reason["message"].split()) in told
    assert " ".join(reason["repair"].split()) in told


def test_nothing_else_is_refused_and_the_exit_code_says_so(seen: Seen) -> None:
    assert (seen.verdict, seen.status, seen.run.returncode) == ("refused", 3, 3)
    refused = [one["message"] for one in seen.reasons if one["severity"] == "refuse"]
    assert len(refused) == len(CASES), refused


def test_nothing_was_changed(seen: Seen) -> None:
    assert seen.run.changed(HOST) == []
    assert seen.after == seen.before
    assert "/opt/farrier" not in seen.after
    assert "engine-" not in seen.after
