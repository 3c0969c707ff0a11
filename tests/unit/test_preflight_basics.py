"""What every host is asked, from the lines that it prints; and the looks that are made of it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from dataclasses import replace
from pathlib import Path

from farrier.converge.preflight import MINIMUM_MB, SUPPORTED, wanted_ports
from farrier.facts.roots import Roots
from farrier.preflight.basics import BasicFacts, Disk, Listener, ModelFound, parse
from farrier.preflight.found import Case
from farrier.preflight.judge import judge
from farrier.preflight.look import Look, questions
from farrier.preflight.wanted import Wanted
from farrier.spec import HostSpec
from tests.unit.preflight_hosts import HEALTHY, SPEC, VLLM, case

SAID = """\
system debian 12
disk 9000 6000000 /
disk 700 12 /var
disk 9000 - /
complete /opt/farrier/vllm/0.32.0-1f3c5a7b
model no-config.json - /srv/models/half copied
missing model-00002-of-00002.safetensors /srv/models/qwen
model shards 4021 /srv/models/qwen
model ok 2 /srv/models/tiny
listen 8080 4711 session-3.scope python3
listen 8101 815 engine-tiny.service VLLM::Worker TP0
listen 22 0 -
time 1795000000
""".splitlines()


def test_parse() -> None:
    facts = parse(SAID)
    assert facts.system == "debian 12"
    assert facts.disks == {
        "/": Disk(9000, 6_000_000, "/"),
        "/var": Disk(700, 12, "/var"),
        "/opt": Disk(9000, None, "/"),
    }
    assert facts.complete == {"/opt/farrier/vllm/0.32.0-1f3c5a7b"}
    assert facts.models == {
        "/srv/models/half copied": ModelFound("no-config.json"),
        "/srv/models/qwen": ModelFound("shards", 4021, ("model-00002-of-00002.safetensors",)),
        "/srv/models/tiny": ModelFound("ok", 2),
    }
    assert facts.listeners == (
        Listener(8080, "python3", 4711, "session-3.scope"),
        Listener(8101, "VLLM::Worker TP0", 815, "engine-tiny.service"),
        Listener(22, "", 0, "-"),
    )
    assert facts.time == 1_795_000_000


def model(directory: Path, *, config: str = "{}", shards: int = 0, there: int = 0) -> Path:
    """A model's directory with an index of *shards*, *there* of which were copied."""
    directory.mkdir()
    (directory / "config.json").write_text(config)
    names = [f"model-{number:05}-of-{shards:05}.safetensors" for number in range(1, shards + 1)]
    if names:
        index = {"weight_map": {f"layer.{name}": name for name in names}}
        (directory / "model.safetensors.index.json").write_text(json.dumps(index))
    for name in names[:there]:
        (directory / name).write_bytes(bytes(3 << 20))
    return directory


def test_the_script_on_a_real_machine(tmp_path: Path) -> None:
    """This machine's own answer: its system, disks and time, a socket of ours, directories."""
    paths = [
        str(model(tmp_path / "it's whole", shards=2, there=2)),
        str(model(tmp_path / "half", shards=3, there=1)),
        str(model(tmp_path / "empty", config="")),
        str(tmp_path),
        str(tmp_path / "absent"),
    ]
    (tmp_path / "built").mkdir()
    (tmp_path / "built/.complete").touch()
    programs = [str(tmp_path / "built"), str(tmp_path / "absent")]
    with socket.create_server(("127.0.0.1", 0)) as server:
        command = BasicFacts().command(paths, programs)
        done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True)
        port = server.getsockname()[1]
    facts = parse(done.stdout.splitlines())
    missing = ("model-00002-of-00003.safetensors", "model-00003-of-00003.safetensors")
    assert list(facts.models.values()) == [
        ModelFound("ok", 6),
        ModelFound("shards", 3, missing),
        ModelFound("ok"),
        ModelFound("no-config.json"),
        ModelFound("no-directory"),
    ]
    assert facts.disks.keys() == {"/", "/var", "/opt"}
    assert facts.complete == {programs[0]}
    assert facts.system
    assert facts.time
    (ours,) = [listener for listener in facts.listeners if listener.port == port]
    assert ours.pid == os.getpid()


def test_hosts_without_a_gpu_are_asked_the_basics_only() -> None:
    cpu = HostSpec("gpu01", groups=("gpu",), accelerator="cpu", models=SPEC.models)
    monitor = HostSpec("gw01", groups=("monitor",))
    assert questions(Wanted(cpu)).facts == ("weights", "basics")
    assert questions(Wanted(replace(cpu, models=()))).facts == ("basics",)
    assert questions(Wanted(monitor)).facts == ("basics",)
    asked = questions(Wanted(SPEC, programs=(VLLM,)))
    assert {"pci", "driver", "kernel", "fabric", "updates", "machine"} < set(asked.facts)
    # Sources answer when they please: nobody waits for them before every deploy.
    assert not {"apt", "sources"} & set(asked.facts)
    assert asked.models == ("/srv/models/bge", "/srv/models/qwen")
    assert asked.programs == (VLLM.path,)
    laid_out = replace(
        SPEC.models[0],
        lora={"law": "path:/srv/adapters/law"},
        args={"speculative-config": '{"model": "/srv/models/draft", "num_speculative_tokens": 4}'},
    )
    about = questions(Wanted(replace(SPEC, models=(laid_out,))))
    assert about.models == ("/srv/models/draft", "/srv/models/qwen")
    assert about.adapters == ("/srv/adapters/law",)
    everything = questions(Wanted(SPEC), all_of_them=True)
    assert {"apt", "sources", *asked.facts} == set(everything.facts)
    # The host's clock is compared with ours when the answer is here.
    assert everything.facts[-1] == "basics"


def test_a_look_at_a_real_machine(tmp_path: Path) -> None:
    """This machine's own answer to everything, with the roots of a tree without any GPU."""
    spec = HostSpec("here", groups=("gpu",), roots=Roots(sys=str(tmp_path)))
    command = Look().command(questions(Wanted(spec)))
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True)
    found = Look().process(["a talkative shell", *done.stdout.splitlines()])
    assert found is not None
    assert found.pci is not None
    assert found.pci.gpus == ()
    asked = (found.driver, found.kernel, found.fabric, found.updates, found.machine)
    assert all(facts is not None for facts in asked)
    assert found.apt is None
    assert found.looked_at is not None
    assert found.basics.time is not None
    assert abs(found.looked_at - found.basics.time) < 30


def test_a_part_that_fails_is_unknown_and_spoils_no_other() -> None:
    said = ["farrier: a look at the host", "sh: 1: boom", "", "farrier: part pci 2"]
    said += [*SAID, "", "farrier: part basics 0"]
    found = Look().process(said)
    assert found is not None
    assert found.pci is None
    assert found.basics == parse(SAID)
    assert Look().process(["sudo: a password is required"]) is None


def test_own_units_may_listen_where_they_are_meant_to() -> None:
    ours = tuple(Listener(port, "x", 7, unit) for port, unit in wanted_ports(SPEC).items())
    assert judge(case(basics={"listeners": ours})).reasons == ()
    strangers = (Listener(22, "sshd", 1, "ssh.service"), Listener(3000, "node", 2, "-"))
    assert judge(case(basics={"listeners": strangers})).reasons == ()


def test_a_program_that_is_complete_needs_no_room() -> None:
    small = {"disks": {**HEALTHY.basics.disks, "/opt": Disk(900, 5_000, "/opt")}}
    assert judge(case(basics=small)).state == "refused"
    done = case(basics=small | {"complete": frozenset({VLLM.path})})
    assert judge(done).reasons == ()


def test_the_ports_of_a_host() -> None:
    assert wanted_ports(SPEC) == {
        8080: "nginx.service",
        8101: "engine-qwen.service",
        8102: "engine-bge.service",
        9100: "prometheus-node-exporter.service",
        9810: "farrier-agent.service",
        9811: "farrier-agent.service",
    }
    monitor = HostSpec("gw01", groups=("monitor",), agent_port=9811)
    assert wanted_ports(monitor) == {
        9090: "prometheus.service",
        9093: "prometheus-alertmanager.service",
        9100: "prometheus-node-exporter.service",
        9811: "farrier-agent.service",
    }
    # Its role installs nginx whether or not the host serves something yet.
    assert wanted_ports(HostSpec("gpu02", groups=("gpu",)))[8080] == "nginx.service"


def test_what_others_read_of_the_limits() -> None:
    """make bench's playbook checks the same."""
    assert MINIMUM_MB.keys() <= HEALTHY.basics.disks.keys()
    assert "debian 12" in SUPPORTED


def test_a_case_of_a_cpu_host_is_judged_by_its_basics() -> None:
    cpu = HostSpec("gpu01", groups=("gpu",), accelerator="cpu")
    found = replace(HEALTHY, pci=None, driver=None, kernel=None, fabric=None, apt=None)
    assert judge(Case(Wanted(cpu), found)).state == "ready"
