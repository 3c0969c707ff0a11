"""Hosts that serve with programs which have the names of engines, and are stand-ins for them.

Ollama's is a release tarball from a mirror, SGLang's and TensorRT-LLM's are wheels with locks,
TGI's is an image; the GPUs are a fake NVML's and, for the image, CDI devices that are none.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from farrier.lab import TINY_MODEL, Lab
from farrier.lab.tiny_gguf import tiny_gguf
from farrier.load import Background, Endpoint, Ledger, Plan
from tests.full.standins_made import Made
from tests.roles.converging import Converge
from tests.roles.fleet import Fleet, until
from tests.roles.gpus import believes_in_gpus

__all__ = ["CASES", "CPU_HOST", "GPU_HOST", "LOAD", "Case", "Standins"]

GPU_HOST, CPU_HOST = "gpu01", "gpu02"
GGUF, LIBRARY = "/srv/models/own.gguf", "/srv/library"
MANIFEST = b'{"schemaVersion": 2, "layers": []}'
"""What the stand-in's library has as qwen3:8b; its hash is the model's digest."""
WARM = 120.0
STOP_SECONDS = 10
LOAD = Plan(
    seconds=3600,
    streams=4,
    stream_seconds=(1.0, 6.0),
    posts=2,
    fresh=0,
    uploads=0,
)


@dataclass(frozen=True)
class Case:
    """One replica: its *host*, its *thing* (the role that brings it), its model's *fields*.

    *running* is the sample on the agent's page that tells its requests, *counts* one that grows as
    it generates ("" without), *sigterm* what becomes of its requests after a bare SIGTERM.
    """

    host: str
    thing: str
    fields: Mapping[str, Any]
    running: str
    counts: str
    sigterm: str

    @property
    def replica(self) -> str:
        """Its name."""
        return str(self.fields["replica"])

    @property
    def unit(self) -> str:
        """Its engine's unit."""
        return f"engine-{self.replica}"

    @property
    def port(self) -> int:
        """The engine's, on loopback."""
        return int(self.fields["port"])

    @property
    def account(self) -> str:
        """The file of what the stand-in executed."""
        return f"/var/lib/farrier/engines/{self.replica}/executed"


def _fields(replica: str, port: int, **fields: Any) -> Mapping[str, Any]:
    env = {
        "STANDIN_ACCOUNT": f"/var/lib/farrier/engines/{replica}/executed",
        "STANDIN_TOKEN_DELAY": "0.05",
        **fields.pop("env", {}),
    }
    return {"name": "tiny", "replica": replica, "port": port, "env": env, **fields}


_TINY = f"path:{TINY_MODEL}"
_IN_FLIGHT = "farrier_replica_in_flight"
_TGI = _fields(
    "tgi",
    8104,
    engine="tgi",
    source=_TINY,
    gpus=[4],
    command=[
        *("/usr/bin/python3", "/opt/standin/standin.py", "--dialect", "tgi"),
        *("--host", "{host}", "--port", "{port}", "--model", "{model}"),
        *("--account", "/var/lib/farrier/engines/tgi/executed", "--token-delay", "0.05"),
    ],
)
CASES = (
    Case(
        GPU_HOST,
        "ollama",
        _fields("own", 8101, name="own", engine="ollama", source=f"path:{GGUF}", gpus=[0]),
        _IN_FLIGHT,
        "",
        "cut",
    ),
    Case(
        GPU_HOST,
        "sglang",
        _fields("coder", 8102, name="coder", engine="sglang", source=_TINY, gpus=[1, 2]),
        "sglang:num_running_reqs",
        "sglang:realtime_tokens_total",
        "served, and new ones too",
    ),
    Case(
        GPU_HOST,
        "trtllm",
        _fields("qwen", 8103, engine="trtllm", source=_TINY, gpus=[3]),
        "trtllm_num_requests_running",
        "trtllm_request_success_total",
        "served",
    ),
    Case(GPU_HOST, "podman", _TGI, "tgi_batch_current_size", "tgi_batch_inference_count", "served"),
    Case(
        CPU_HOST,
        "ollama",
        _fields(
            "qwen3",
            8101,
            name="qwen3:8b",
            engine="ollama",
            source=f"ollama:qwen3:8b@{hashlib.sha256(MANIFEST).hexdigest()}",
            gpus=[],
            env={"FAKE_OLLAMA_LIBRARY": LIBRARY},
        ),
        _IN_FLIGHT,
        "",
        "cut",
    ),
)


class Standins:
    """The two hosts, and what was made for them."""

    def __init__(self, lab: Lab, made: Made) -> None:
        self.made = made
        self.fleet = Fleet(lab, Converge(lab, made.directory))

    def prepare(self) -> None:
        """Bring to the hosts what no role installs, and say what they are to serve."""
        fleet = self.fleet
        gpus = believes_in_gpus(fleet, GPU_HOST, 5)
        fleet.put_bytes(GPU_HOST, GGUF, tiny_gguf())
        fleet.put_bytes(CPU_HOST, f"{LIBRARY}/qwen3:8b", MANIFEST)
        _as_the_labs_disks_are(fleet)
        devices = [
            {"name": "4", "containerEdits": {"deviceNodes": [_node(4)], "env": ["GPU_4=here"]}}
        ]
        cdi = {"cdiVersion": "0.5.0", "kind": "nvidia.com/gpu", "devices": devices}
        fleet.put(GPU_HOST, "/etc/cdi/nvidia.json", json.dumps(cdi))
        fleet.converge.everywhere = {"nginx_clients": "keys"}
        for host in (GPU_HOST, CPU_HOST):
            fleet.converge.models[host] = [self.model(one) for one in CASES if one.host == host]
            fleet.converge.data[host] = {
                "agent_tick": 1.0,
                "engine_stop_timeout": STOP_SECONDS,
                **self.made.settings[0],
            }
        fleet.converge.data[GPU_HOST] = {**fleet.converge.data[GPU_HOST], **gpus}

    def model(self, case: Case) -> dict[str, Any]:
        """What the inventory says of its model."""
        image = {"image_archive": self.made.archive} if case.replica == "tgi" else {}
        return {**case.fields, **image}

    def settled(self, *cases: Case) -> None:
        """Return when their gates (all, without any) are open."""
        for case in cases or CASES:
            open_ = partial(self.fleet.gate, case.host, case.replica)
            until(open_, WARM, f"{case.replica} on {case.host} serves")

    def main(self, case: Case) -> str:
        """The main process of its engine."""
        return self.fleet.unit(case.host, case.unit, "MainPID")

    def argv(self, case: Case) -> list[str]:
        """What its engine was started with."""
        said = self.fleet.root(case.host, f"tr '\\0' '\\n' < /proc/{self.main(case)}/cmdline")
        return said.splitlines()

    def version(self, case: Case) -> str:
        """The directory of its program that it runs from."""
        root = f"/opt/farrier/{case.thing}/"
        found = {word.removeprefix(root).split("/")[0] for word in self.argv(case) if root in word}
        (name,) = found
        return name

    def there(self, case: Case) -> set[str]:
        """The versions that its host has."""
        names = self.fleet.ssh(case.host, f"ls /opt/farrier/{case.thing}").split()
        return {name for name in names if name[0].isdigit()}

    def load(self, case: Case, plan: Plan = LOAD) -> Background:
        """Clients of its replica, at its host's nginx."""
        url = f"http://{self.fleet.addresses[case.host]}:8080/replicas/{case.replica}"
        asks = Plan(**{**vars(plan), "models": (case.fields["name"],)})
        return Background(asks, Endpoint(url, {"everyone": self.fleet.key}))

    @contextmanager
    def loaded(self, *cases: Case) -> Iterator[list[tuple[Case, Background]]]:
        """Clients of each of them, at work."""
        with ExitStack() as stack:
            loads = [(case, stack.enter_context(self.load(case))) for case in cases]
            for case, load in loads:
                ledger = load.ledger
                until(partial(ledger.at_work, "stream"), 60, f"streams of {case.replica} run")
                done: Callable[[], Any] = partial(ledger.of, "complete")
                until(done, 60, f"something was served by {case.replica}")
            yield loads

    def chat(self, case: Case, **more: Any) -> int:
        """The status of a short completion."""
        path = f"/replicas/{case.replica}/v1/chat/completions"
        return self.fleet.chat(case.host, path, model=case.fields["name"], **more).status

    def executed(self, case: Case, prefix: str) -> Counter[str]:
        """How often its stand-in began each request whose name begins so, by its own account."""
        found = self.fleet.root(case.host, f"grep -h {prefix} {case.account} || test $? = 1")
        entries = map(json.loads, found.splitlines())
        return Counter(entry["begun"] for entry in entries if "begun" in entry)

    def nothing_lost(self, case: Case, ledger: Ledger, *, rebooted: bool = False) -> None:
        """Who was let in was served to the end, once; who was not, was not executed.

        While its host *rebooted*, one that nginx had not answered yet may have been dropped, if it
        was not executed.
        """
        executed = self.executed(case, ledger.prefix)
        print(f"{case.host}/{case.replica}:", dict(ledger.outcomes), f"{len(executed)} executed")
        lost = ledger.losses()
        if rebooted:
            lost = [one for one in lost if one.outcome != "dropped" or executed[one.name]]
        assert not lost, "\n".join(map(str, lost[:10]))
        faults = ledger.faults(executed)
        assert not faults, "\n".join(faults[:10])


def _node(number: int) -> dict[str, str]:
    return {"path": f"/dev/nvidia{number}", "hostPath": "/dev/zero"}


def _as_the_labs_disks_are(fleet: Fleet) -> None:
    """As tests/full/test_images.py says: no overlays on overlays, and no keyring."""
    storage = '[storage]\ndriver = "vfs"\nrunroot = "/run/containers/storage"\n'
    storage += 'graphroot = "/var/lib/containers/storage"\n'
    fleet.put(GPU_HOST, "/etc/containers/storage.conf", storage)
    fleet.put(GPU_HOST, "/etc/containers/containers.conf", "[containers]\nkeyring = false\n")
