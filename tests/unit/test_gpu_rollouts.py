"""``farrier gpu reset`` and ``diag`` from the drain to the open gate, with the real agent.

Stand-ins: the host's SSH (its commands run on this machine), NVML and NVIDIA's programs, systemd.
"""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from farrier.fleet import Login, Shell, Target
from farrier.fleet.conversation import Lines
from farrier.fleet.shell import Done
from farrier.fleet.target import ReplicaOf
from farrier.rollout.board_plan import can_be_done, of_boards
from farrier.rollout.errors import RefusedError
from farrier.rollout.host import Host as Rolled
from farrier.rollout.ledger import Ledger, Options
from farrier.rollout.looking import look_at
from farrier.rollout.preparing import go_on_with, new_ledger
from farrier.rollout.rolling import Rolling
from farrier.rollout.store import Store
from tests.agent.host import UUIDS, Host, pci_address, replica, until
from tests.agent.replicas import needs_another_user
from tests.fakes.nvidia_tools import install

pytestmark = needs_another_user

ROOT = Path(__file__).parents[2]
APART = "count 2\nall.nvlinks 0"
"""No NVLink ties the two GPUs."""
PERSISTENCED = "nvidia-persistenced.service"


class HereShell(Shell):
    """A stand-in for SSH: commands run on this machine, with the *environment* of the host."""

    def __init__(self, target: Target, environment: dict[str, str]) -> None:
        super().__init__(target)
        self._environment = environment

    def run(self, command: str, **how: Any) -> Done:
        """Run it, and hand out its lines as they come."""
        out = Lines(how.get("on_line"))
        with subprocess.Popen(
            ["sh", "-c", command],
            env=self._environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            assert process.stderr is not None
            process.stdin.write(how.get("stdin") or b"")
            process.stdin.close()
            for line in process.stdout:
                out.take(line)
            error = process.stderr.read().decode()
        return Done(process.returncode, out.end(), error)


class Site:
    """One host with two GPUs, a replica on each, and how it is rolled over."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.replicas = [
            replica("left", gpus=[0], model="m"),
            replica("right", gpus=[1], model="m"),
        ]
        for one in self.replicas:
            stop = host.stop_program(one, "--deadline=60", "--cap=60")
            host.engine_unit(one, stop=[["-", *stop], stop])
            host.evidence_unit(one)
        self._programs()
        host.nvml(APART)
        host.configure(*self.replicas, accelerator="cuda")
        host.start()
        for one in self.replicas:
            host.systemd.job("start", one.unit)
        until(lambda: host.get("/readyz")[0] == 200)
        until(lambda: host.value("farrier_gpus") == 2)
        host.systemd.programs(PERSISTENCED, exec=["sleep", "3600"])
        host.systemd.job("start", PERSISTENCED)
        self.store = Store(host.root / "rollouts")
        self.store.directory.mkdir()
        self.told: list[str] = []

    def _programs(self) -> None:
        binaries = self.host.root / "bin"
        install(binaries, state=self.host.nvml_state)
        for name in ("proc", "dev", "of-kernel", "rollout"):
            (self.host.root / name).mkdir(exist_ok=True)
        self._program("systemctl", f'-m tests.fakes.systemd1.program {self.host.systemd.bus} "$@"')
        # as a host has it, but for its places
        self._program("farrier-agent", f'-c "{_AGENT}" {self.host.root} "$@"')

    def _program(self, name: str, words: str, before: str = "") -> None:
        path = self.host.root / "bin" / name
        path.write_text(f"#!/bin/sh\n{before}cd {ROOT}\nexec {sys.executable} {words}\n")
        path.chmod(0o755)

    def boots(self, state: str) -> threading.Thread:
        """Have a reboot be one to see: other runs, another boot, and NVML as in *state*."""
        root, asked = self.host.root, self.host.root / "reboot"
        cat = root / "bin/cat"
        known = f"case $1 in */boot_id) exec /bin/cat {root}/boot_id;; esac"
        cat.write_text(f'#!/bin/sh\n{known}\nexec /bin/cat "$@"\n')
        cat.chmod(0o755)
        (root / "boot_id").write_text("boot 1\n")
        program = f'-m tests.fakes.systemd1.program {self.host.systemd.bus} "$@"'
        self._program("systemctl", program, f"[ $1 != reboot ] || exec touch {asked}\n")

        def reboot() -> None:
            until(asked.exists, 800)
            for one in self.replicas:
                self.host.systemd.job("stop", one.unit)
            self.host.stop()
            self.host.nvml(state)
            for one in self.replicas:
                self.host.systemd.job("start", one.unit)
            self.host.start_anyhow()
            (root / "boot_id").write_text("boot 2\n")

        thread = threading.Thread(target=reboot, daemon=True)
        thread.start()
        return thread

    def rolled(self) -> Rolled:
        target = Target(
            "gpu01",
            ("gpu",),
            "127.0.0.1",
            Login("127.0.0.1", user="root"),
            tuple(ReplicaOf(one.model, one.name, one.unit, one.port) for one in self.replicas),
            agent_port=self.host.port,
        )
        return Rolled(target, HereShell(target, self.host.environment()))

    def begin(self, kind: Any, word: str | None, **given: Any) -> Ledger:
        """Plan it and carry it out."""
        hosts = {"gpu01": self.rolled()}
        looks, silent = look_at(hosts.values())
        assert not silent
        options = Options(limit=("gpu01",), allow_gap=True, **({"measure": 0.0} | given))
        if kind != "reboot":
            options = of_boards(kind, options, looks, word)
        ledger, _ = new_ledger(kind, options, looks)
        return self.drive(ledger)

    def drive(self, ledger: Ledger) -> Ledger:
        hosts = {"gpu01": self.rolled()}
        stop = threading.Event()
        it = Rolling(ledger, hosts, self.store, lambda _, what: self.told.append(what), stop)
        return it.run()

    def again(self, ledger: Ledger) -> Ledger:
        """Another process goes on with it."""
        found = self.store.load(ledger.id)
        assert found is not None
        go_on_with(found)
        return self.drive(found)

    def runs(self) -> dict[str, str]:
        """In which run each engine's unit is."""
        return {one.name: self.host.systemd.now(one.unit)["InvocationID"] for one in self.replicas}


_AGENT = """
import sys
from farrier_agent.cli import main
root, *words = sys.argv[1:]
more = []
if words[0] == 'status':
    more = [f'--config={root}/agent.toml']
else:
    words.insert(1, f'--socket={root}/agent/control.sock')
if words[0] == 'act' and words[2] in {'let-go', 'take-up'}:
    more = [f'--note-dir={root}/rollout', f'--proc-dir={root}/proc', f'--dev-dir={root}/dev']
    more += [f'--sys-dir={root}/of-kernel']
if words[0] == 'act' and words[2] == 'gpu-diag':
    more = [f'--note-dir={root}/rollout']
sys.exit(main([*words, *more]))
"""


@pytest.fixture
def site(tmp_path: Path, nvml_library: Path) -> Iterator[Site]:
    with Host(tmp_path, nvml_library) as host:
        yield Site(host)


def steps(ledger: Ledger) -> list[str]:
    return [f"{one.step}{'' if one.outcome == 'done' else '!'}" for one in ledger.hosts[0].steps]


def test_a_sick_gpu_is_reset_and_only_its_replica_gave_way(site: Site) -> None:
    host, before = site.host, site.runs()
    host.nvml(f"{APART}\n1.remapped.pending 1\n1.recovery 1")
    with host.kmsg.open("a") as log:
        log.write(f"NVRM: Xid (PCI:{pci_address(1)}): 64, pid=1, name=x, Row Remapper Error\n")
    # the agent drains it for its GPU; that is no reason to leave it out
    until(lambda: host.phase("right") == "drained")
    ledger = site.begin("gpu-reset", "1", measure=1.0)
    (record,) = ledger.hosts
    assert (ledger.outcome, record.failure) == ("done", None), site.told
    assert [one.name for one in record.replicas] == ["right"]
    assert steps(ledger) == [
        *("drain", "measure", "let-go", "act", "take-up", "warm", "check", "ready", "settle")
    ]
    assert PERSISTENCED in record.let_go
    assert "was successfully reset" in record.output
    assert [one.name for one in record.gates if one.ok is False] == []
    assert {"gpus", "ecc", "pcie-width", "warm", "verdict"} <= {one.name for one in record.gates}
    after = site.runs()
    assert (after["left"] == before["left"], after["right"] == before["right"]) == (True, False)
    until(lambda: host.phase("right") == "ready" and host.gate("right"))
    assert host.gate("left")
    assert host.systemd.now(PERSISTENCED)["ActiveState"] == "active"
    rollout = host.snapshot().rollout
    assert rollout is None or rollout.acting is None


def test_a_reset_that_is_refused_leaves_it_closed_and_is_gone_on_with(site: Site) -> None:
    host = site.host
    host.nvml(f"{APART}\nreset.refuse Insufficient Permissions")
    ledger = site.begin("gpu-reset", UUIDS[1])
    (record,) = ledger.hosts
    assert (ledger.outcome, record.state) == ("failed", "failed")
    assert "nvidia-smi did not reset" in (record.failure or "")
    assert "Insufficient Permissions" in (record.failure or "")
    assert f"farrier rollout resume {ledger.id}" in (record.next or "")
    assert not host.gate("right")
    assert host.gate("left")
    host.nvml(APART)
    ledger = site.again(ledger)
    assert ledger.outcome == "done", ledger.hosts[0].failure
    until(lambda: host.gate("right"))


def test_a_link_that_is_lost_by_the_reset_keeps_it_closed(site: Site) -> None:
    host = site.host
    host.nvml(f"{APART}\nreset.then 1.pcie.width 8")
    ledger = site.begin("gpu-reset", "1")
    (record,) = ledger.hosts
    assert ledger.outcome == "failed"
    assert "gate pcie-width: GPU 1" in (record.failure or "")
    (bad,) = [one for one in record.gates if one.ok is False]
    assert (bad.name, bad.expected, bad.seen.rpartition(" ")[2]) == (
        *("pcie-width", "GPU 1: x16"),
        "x8",
    )
    assert not host.gate("right")


def test_gpus_that_hang_together_are_reset_with_their_whole_host(site: Site) -> None:
    site.host.nvml("count 2\n0.reset.linked 1\n1.reset.linked 1")
    site.host.stop()
    site.host.start()  # links are looked for once
    until(lambda: (gpus := site.host.snapshot().gpus) and any(one.nvlinks for one in gpus.devices))
    until(lambda: site.host.gate("left") and site.host.gate("right"))
    ledger = site.begin("gpu-reset", "1")
    assert ledger.outcome == "done", ledger.hosts[0].failure
    assert ledger.options.gpus == tuple(UUIDS[:2])
    assert [one.name for one in ledger.hosts[0].replicas] == ["left", "right"]


def test_a_diagnosis_that_fails_is_told_by_test_and_keeps_it_closed(site: Site) -> None:
    host = site.host
    host.nvml(f"{APART}\ndcgm.host-engine 1\ndcgm.memory 1 Fail Uncorrectable error")
    ledger = site.begin("gpu-diag", "1", diag=3)
    (record,) = ledger.hosts
    assert ledger.outcome == "failed"
    assert "DCGM's level 3 failed" in (record.failure or "")
    assert f"farrier gpu bundle gpu01/{UUIDS[1]}" in (record.next or "")
    assert {(one.test, one.state) for one in record.tests} == {
        *((name, "pass") for name in ("software", "pcie", "diagnostic")),
        ("memory", "fail"),
    }
    assert not host.gate("right")
    assert host.gate("left")
    # the board is exchanged
    host.nvml(f"{APART}\ndcgm.host-engine 1")
    ledger = site.again(ledger)
    assert ledger.outcome == "done", ledger.hosts[0].failure
    assert {one.state for one in ledger.hosts[0].tests} == {"pass"}
    until(lambda: host.gate("right"))


def test_a_diagnosis_of_all_that_passes_ends_in_service(site: Site) -> None:
    host = site.host
    host.nvml(f"{APART}\ndcgm.host-engine 1\ndcgm.pcie 0 Warn Slow")
    ledger = site.begin("gpu-diag", None, diag=2)
    (record,) = ledger.hosts
    assert ledger.outcome == "done", record.failure
    assert [one.state for one in record.tests] == ["pass", "pass", "warn", "pass"]
    until(lambda: host.gate("left") and host.gate("right"))


def test_a_reboot_is_measured_before_and_judged_by_the_gates_after(site: Site) -> None:
    site.host.nvml(f"{APART}\n1.lost 1")
    until(lambda: site.host.phase("right") == "drained")  # for its GPU, which a reboot may mend
    booted = site.boots(f"{APART}\nall.energy 0")  # this machine's boot is the same: so it is seen
    ledger = site.begin("reboot", None, measure=1.0)
    booted.join()
    (record,) = ledger.hosts
    assert ledger.outcome == "done", record.failure
    assert steps(ledger) == [
        *("drain", "measure", "act", "back", "warm", "check", "ready", "settle")
    ]
    assert [one.name for one in record.replicas] == ["left", "right"]
    judged = {one.name: one for one in record.gates}
    assert judged["gpus"].note == f"came back: {UUIDS[1]}"
    assert judged["speed"].ok is True
    assert [one.name for one in record.gates if one.ok is False] == []
    until(lambda: site.host.gate("left") and site.host.gate("right"))


def test_a_host_that_comes_back_with_less_stays_closed(site: Site) -> None:
    booted = site.boots(f"{APART}\n0.power.limit 450000")
    ledger = site.begin("reboot", None)
    booted.join()
    (record,) = ledger.hosts
    assert ledger.outcome == "failed"
    assert "gate power-limit: GPU 0" in (record.failure or "")
    assert "450 W, expected GPU 0: 700 W" in (record.failure or "")
    assert "so it stays closed" in (record.failure or "")
    assert not site.host.gate("left")
    site.host.nvml(APART)  # somebody sets it again
    ledger = site.again(ledger)
    assert ledger.outcome == "done", ledger.hosts[0].failure
    assert (site.host.root / "boot_id").read_text() == "boot 2\n"  # and it was rebooted once


def test_without_the_program_nothing_is_drained(site: Site) -> None:
    (site.host.root / "bin/dcgmi").unlink()
    rolled = site.rolled()
    with pytest.raises(RefusedError, match="gpu01: it has no dcgmi") as refused:
        can_be_done("gpu-diag", rolled)
    assert "datacenter-gpu-manager-4-core" in (refused.value.next or "")
    can_be_done("gpu-reset", rolled)
