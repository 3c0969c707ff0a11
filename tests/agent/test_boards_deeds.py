"""A reset and a diagnosis under a rollout's lease: the real command line, the real agent.

NVIDIA's programs and NVML are stand-ins (``tests/fakes/nvidia_tools``, ``tests/fakes/nvml``).
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.agent.host import UUIDS, Host, pci_address, until
from tests.agent.replicas import needs_another_user
from tests.agent.rollouts import Rollout, audit, kept
from tests.fakes.nvidia_tools import install

pytestmark = needs_another_user


class Board:
    """A host with two GPUs of which nobody has one, and a rollout."""

    def __init__(self, host: Host) -> None:
        self.host = host
        install(host.root / "bin", state=host.nvml_state)
        host.nvml("count 2")
        host.configure(accelerator="cuda")
        host.start()
        until(lambda: host.value("farrier_gpus") == 2)
        self.rollout = Rollout(host)

    def words(self, action: str, *words: str) -> list[str]:
        token = f"--token={self.rollout.token}"
        return ["act", f"--socket={self.host.control_path}", action, token, "--json", *words]

    def reset(self, *gpus: int) -> dict[str, Any]:
        asked = [f"--gpu={UUIDS[one]}" for one in gpus]
        return _last(self.host.command(*self.words("gpu-reset", *asked)))

    def diag(self, level: int, *gpus: int) -> dict[str, Any]:
        asked = [f"--gpu={UUIDS[one]}" for one in gpus]
        return _last(self.host.command(*self.words("gpu-diag", *self.level(level), *asked)))

    def level(self, level: int) -> list[str]:
        return [f"--level={level}", f"--note-dir={self.host.rollout}"]

    def systemctl(self, mark: Path) -> None:
        """A stand-in: nvidia-dcgm.service is there, and runs while *mark* exists."""
        path = self.host.root / "bin/systemctl"
        path.write_text(
            f'#!/bin/sh\necho "$1 $3" >> {self.host.root}/units\nfor unit; do :; done\n'
            f"case $1-$unit in\n"
            f"show-nvidia-dcgm.service) state=inactive; [ ! -e {mark} ] || state=active\n"
            f"  echo LoadState=loaded; echo ActiveState=$state;;\n"
            f"show-*) echo LoadState=not-found; echo ActiveState=inactive;;\n"
            f"start-*) touch {mark};; stop-*) rm {mark};; esac\n"
        )
        path.chmod(0o755)


def _last(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert done.stdout, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found | {"code": done.returncode}


@pytest.fixture
def board(host: Host) -> Board:
    return Board(host)


def reasons(host: Host, index: int) -> set[str]:
    health = host.snapshot().health
    verdict = health.gpus.get(UUIDS[index]) if health else None
    return {one.rule for one in verdict.reasons} if verdict else set()


def test_a_reset_ends_what_the_driver_wanted_and_is_seen_by_the_agent(board: Board) -> None:
    host = board.host
    host.nvml("count 2\n1.remapped.pending 1\n1.recovery 1")
    with host.kmsg.open("a") as log:
        log.write(f"NVRM: Xid (PCI:{pci_address(1)}): 64, pid=1, name=x, Row Remapper Error\n")
    wanted = {"row-remap-pending", "gpu-recovery-action", "xid-reset"}
    until(lambda: wanted <= reasons(host, 1))
    host.verb("nvml", "release", "--for=600")
    until(lambda: (nvml := host.snapshot().nvml) and nvml.kind == "released")
    done = board.reset(1)
    assert (done["kind"], done["code"], done["status"]) == ("gpu-reset", 0, 0), done
    assert "was successfully reset" in done["words"]
    assert done["gpus"] == [{"uuid": UUIDS[1], "index": 1, "amiss": []}]
    assert not wanted & reasons(host, 1)
    assert kept(host)["acting"]["deed"] == "gpu-reset"
    assert [(one["verb"], one["outcome"]) for one in audit(host)[-3:]] == [
        ("act gpu-reset", "done"),
        ("nvml acquire", "done"),
        ("act ran", "done"),
    ]
    assert audit(host)[-1]["reason"] == f"nvidia-smi --gpu-reset -i {UUIDS[1]}"
    # done again it is the same
    assert board.reset(1)["code"] == 0
    assert "resets 2" in host.nvml_state.read_text()


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ("smi.holders dcgm", "In use by another client"),
        ("0.reset.linked 1\n1.reset.linked 1", "connected by NVLink"),
        ("reset.refuse Insufficient Permissions", "Insufficient Permissions"),
    ],
)
def test_what_nvidia_smi_refuses_is_told_in_its_words(lines: str, words: str, board: Board) -> None:
    board.host.nvml(f"count 2\n{lines}")
    done = board.reset(1)
    assert done["code"] == 1
    assert done["status"] != 0
    assert words in done["words"]
    assert done["gpus"] == []
    assert audit(board.host)[-1]["outcome"] == "failed: status 1"


def test_gpus_that_hang_together_are_reset_together(board: Board) -> None:
    board.host.nvml("count 2\n0.reset.linked 1\n1.reset.linked 1")
    done = board.reset(0, 1)
    assert done["code"] == 0, done
    assert [one["uuid"] for one in done["gpus"]] == UUIDS[:2]


def test_a_reset_that_did_not_help_is_no_success(board: Board) -> None:
    board.host.nvml("count 2\n1.remapped.pending 1\nreset.then 1.remapped.pending 1")
    told = _reset_soon(board)
    assert (told["code"], told["status"]) == (1, 0)
    assert told["gpus"][0]["amiss"][0] == "rows of its memory are still to be exchanged"


_SOON = (
    "import sys; from farrier_agent.boards import resetting; resetting.SEEN_SECONDS = 2.0;"
    " resetting.SECONDS = 2.0; from farrier_agent.cli import main as it;"
    " main = lambda: sys.exit(it())"
)
"""The same program, which does not wait as long."""


def _reset_soon(board: Board) -> dict[str, Any]:
    """The last word of a reset of the second GPU that does not wait as long."""
    done = subprocess.run(
        [sys.executable, "-c", _SOON + "; main()", *board.words("gpu-reset", f"--gpu={UUIDS[1]}")],
        env=board.host.environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return _last(done)


def test_a_reset_that_hangs_is_left_behind(board: Board) -> None:
    board.host.nvml("count 2\nreset.hang 1")
    told = _reset_soon(board)
    assert (told["kind"], told["code"]) == ("failed", 1)
    assert "did not end within 2 s" in told["error"]


@pytest.mark.parametrize("action", ["gpu-reset", "gpu-diag"])
def test_a_token_that_does_not_count_does_nothing(action: str, board: Board) -> None:
    board.rollout.lease("release")
    done = board.reset(1) if action == "gpu-reset" else board.diag(1)
    assert done["code"] == 3
    assert "resets" not in board.host.nvml_state.read_text()
    assert kept(board.host)["acting"] is None


def test_without_nvidia_smi_nothing_is_reset(board: Board) -> None:
    (board.host.root / "bin/nvidia-smi").unlink()
    done = board.reset(1)
    assert (done["code"], done["kind"]) == (1, "failed")
    assert done["error"] == "nvidia-smi is not on this host: nothing was reset"


# -- a diagnosis -----------------------------------------------------------------------------------


def test_without_dcgm_it_is_refused_with_the_package_that_brings_it(board: Board) -> None:
    (board.host.root / "bin/dcgmi").unlink()
    done = board.diag(1)
    assert (done["kind"], done["code"]) == ("failed", 3)
    assert done["next"].startswith("apt-get install datacenter-gpu-manager-4-core")


@pytest.mark.parametrize("version", [3, 4])
def test_results_are_typed_whatever_dcgms_version(version: int, board: Board) -> None:
    host = board.host
    old = "dcgm.3 1\n" if version == 3 else ""
    host.nvml(
        f"count 2\ndcgm.host-engine 1\n{old}dcgm.memory 1 Fail Uncorrectable error\n"
        "dcgm.pcie 0 Warn Slow\ndcgm.diagnostic 0 Skip"
    )
    done = board.diag(3)
    assert (done["kind"], done["code"], done["level"]) == ("diagnosed", 1, 3), done
    told = [(one["test"], one.get("gpu"), one["state"]) for one in done["results"]]
    assert told == [
        *(("software", gpu, "pass") for gpu in UUIDS[:2]),
        ("pcie", UUIDS[0], "warn"),
        ("pcie", UUIDS[1], "pass"),
        ("memory", UUIDS[0], "pass"),
        ("memory", UUIDS[1], "fail"),
        ("diagnostic", UUIDS[0], "skip"),
        ("diagnostic", UUIDS[1], "pass"),
    ]
    assert done["results"][5]["words"] == ["Uncorrectable error"]
    assert kept(host)["acting"]["deed"] == "gpu-diag"


def test_one_gpu_by_dcgms_own_number_and_asked_again_it_is_not_repeated(board: Board) -> None:
    host, runs = board.host, board.host.root / "runs"
    host.nvml(f"count 3\n0.gone 1\ndcgm.host-engine 1\ndcgm.log {runs}")
    # behind a GPU that is gone the numbers shift
    assert board.diag(2, 1)["code"] == 0
    assert board.diag(2, 1)["code"] == 0
    assert runs.read_text() == "diag -r 2 -j -i 0\n"
    assert board.diag(1, 1)["code"] == 0
    board.rollout.lease("release")
    board.rollout = Rollout(host, "r-20261122-0911-zz", takeover=True)
    assert board.diag(1, 1)["code"] == 0
    assert len(runs.read_text().splitlines()) == 3
    assert board.diag(1, 7)["error"] == f"DCGM does not have {UUIDS[7]}"


def test_nv_hostengine_is_started_for_it_and_stopped_again(board: Board) -> None:
    mark = board.host.root / "dcgm-runs"
    board.systemctl(mark)
    board.host.nvml(f"count 2\ndcgm.mark {mark}")
    assert board.diag(1)["code"] == 0
    assert not mark.exists()
    mark.touch()
    board.rollout.lease("release")
    board.rollout = Rollout(board.host, "r-20261122-0911-zz", takeover=True)
    assert board.diag(1)["code"] == 0
    assert mark.exists()  # who ran before runs on


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("dcgm.host-engine 1\ndcgm.garbage Segmentation fault", "printed no result: Segmentation"),
        ("", "DCGM finds no GPU: Error: unable to establish a connection"),
    ],
)
def test_what_is_no_result_is_no_pass(lines: str, said: str, board: Board) -> None:
    board.host.nvml(f"count 2\n{lines}")
    done = board.diag(1)
    assert (done["kind"], done["code"]) == ("failed", 1)
    assert said in done["error"]
