"""The agent's own process concludes and acts: faults by the fake NVML, the kernel's log and sysfs.

The table of every fault is in tests/agent/health; here is that the parts are one agent.
"""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

from farrier_agent.config import Peer, Replica
from farrier_agent.status import Reason

from tests.agent.host import UUIDS, Host, free_port, pci_address, replica, until


def serving(host: Host, *replicas: Replica, **fields: Any) -> None:
    """An agent whose *replicas* all serve."""
    for run, one in enumerate(replicas, start=1):
        host.unit(one.unit, run=run)
        host.engine(one.port, one.model)
    host.configure(*replicas, accelerator="cuda", **fields)
    host.start()
    until(lambda: all((host.gates / one.name).exists() for one in replicas))
    until(lambda: host.value("farrier_gpus") == 2)


def pair() -> tuple[Replica, Replica]:
    """Two replicas of one model, each on a GPU of its own."""
    return (
        replica("left", port=free_port(), gpus=[0], model="m"),
        replica("right", port=free_port(), gpus=[1], model="m"),
    )


def reasons(host: Host, rule: str) -> list[Reason]:
    health = host.snapshot().health
    assert health is not None
    return [one for one in health.host.reasons if one.rule == rule]


def phases(host: Host) -> dict[str, str | None]:
    return {one.name: one.phase for one in host.snapshot().replicas}


def test_a_lost_gpu_drains_the_replica_that_uses_it_and_no_other(host: Host) -> None:
    serving(host, *pair())
    host.nvml("count 2\n1.lost 1")
    (reason,) = until(lambda: reasons(host, "gpu-lost"))
    assert (reason.state, reason.gpu, reason.acts) == ("unhealthy", UUIDS[1], True)
    assert reason.next
    until(lambda: phases(host) == {"left": "ready", "right": "drained"})
    assert (host.gates / "left").exists()
    assert not (host.gates / "right").exists()
    (drained,) = [one for one in host.snapshot().replicas if one.name == "right"]
    assert drained.drain is not None
    assert drained.drain.asked_by == ("farrier-agent (GPU health)",)
    assert "gpu-lost" in drained.drain.reasons[0]
    until(lambda: host.value("farrier_gpu_verdict", uuid=UUIDS[1], state="unhealthy") == 1)
    until(lambda: host.value("farrier_replica_verdict", replica="left", state="healthy") == 1)


def test_the_last_replica_of_a_model_stays_open_and_that_is_said(host: Host) -> None:
    one = replica(port=free_port(), gpus=[1])
    serving(host, one)
    host.nvml("count 2\n1.lost 1")
    (reason,) = until(lambda: [one for one in reasons(host, "gpu-lost") if one.held_back])
    assert "nobody else" in (reason.held_back or "")
    assert (host.gates / one.name).exists()
    assert phases(host) == {one.name: "ready"}
    assert until(lambda: host.value("farrier_health_drain_held_back", replica=one.name)) == 1
    assert "is not drained" in host.log()


def test_peers_are_asked_and_one_that_serves_is_enough(host: Host) -> None:
    """This agent's own check port stands for another host's: there the replica ``left`` serves."""
    left, right = pair()
    right = replica("right", port=right.port, gpus=[1], model="other")
    peer = Peer(host="gpu02", model="other", address=f"127.0.0.1:{host.check_port}", replica="left")
    serving(host, left, right, peers=[peer])
    host.nvml("count 2\n1.lost 1")
    until(lambda: phases(host) == {"left": "ready", "right": "drained"})


def test_a_person_who_serves_a_replica_in_spite_of_it_is_not_overruled(host: Host) -> None:
    serving(host, *pair())
    host.nvml("count 2\n1.lost 1")
    until(lambda: phases(host)["right"] == "drained")
    done = host.verb("ready", "right", "--wait")
    assert done.returncode == 0, done.stderr
    host.turns(6)
    assert phases(host) == {"left": "ready", "right": "ready"}
    assert reasons(host, "gpu-lost")


def test_a_rule_that_only_observes_drains_nothing(host: Host) -> None:
    serving(host, *pair(), observe_only=["gpu-lost"])
    host.nvml("count 2\n1.lost 1")
    (reason,) = until(lambda: reasons(host, "gpu-lost"))
    assert not reason.acts
    host.turns(6)
    assert phases(host) == {"left": "ready", "right": "ready"}


def test_an_xid_in_the_kernels_log_is_latched_until_it_is_acknowledged(host: Host) -> None:
    serving(host, *pair())
    with host.kmsg.open("a") as log:
        log.write(f"NVRM: Xid (PCI:{pci_address(0)}): 79, pid=1, GPU has fallen off the bus.\n")
    (reason,) = until(lambda: reasons(host, "xid-reboot"))
    assert (reason.gpu, reason.latched) == (UUIDS[0], True)
    until(lambda: host.value("farrier_gpu_xid_errors_total", uuid=UUIDS[0], xid="79") == 1)
    until(lambda: phases(host) == {"left": "drained", "right": "ready"})
    host.stop()
    host.start()
    until(lambda: host.value("farrier_gpus") == 2)
    (still,) = until(lambda: reasons(host, "xid-reboot"))
    assert still.since_at == reason.since_at
    until(lambda: host.value("farrier_gpu_xid_errors_total", uuid=UUIDS[0], xid="79") == 1)
    done = host.verb("ack", "xid-reboot", UUIDS[0], "--reason=board reseated")
    assert done.returncode == 0, done.stderr
    assert "acknowledged" in done.stdout
    until(lambda: not reasons(host, "xid-reboot"))
    assert "board reseated" in host.log()


def test_a_gpu_that_is_gone_is_down_and_not_forgotten(host: Host) -> None:
    serving(host, *pair())
    host.bus(1)
    host.nvml("count 2\n0.gone 1")
    (reason,) = until(lambda: reasons(host, "gpu-missing"))
    assert reason.gpu == UUIDS[0]
    until(lambda: host.value("farrier_gpu_up", uuid=UUIDS[0]) == 0)
    assert host.value("farrier_gpu_problem", uuid=UUIDS[0], problem="gone") == 1
    # NVML calls the other one 0 now; the replicas mean the numbers of before
    until(lambda: phases(host) == {"left": "drained", "right": "ready"})
    host.verb("ack", "gpu-missing", UUIDS[0])
    until(lambda: host.value("farrier_gpu_up", uuid=UUIDS[0]) is None)


def test_nvml_is_let_go_of_and_the_host_stays_ready(host: Host) -> None:
    serving(host, *pair())
    nvml = host.snapshot().nvml
    assert nvml is not None
    assert nvml.pid is not None
    done = host.verb("nvml", "release", "--for=600")
    assert done.returncode == 0, done.stderr
    until(lambda: host.value("farrier_nvml_released") == 1)
    assert not Path(f"/proc/{nvml.pid}").exists()
    host.turns(6)
    assert host.get("/readyz")[0] == 200
    host.stop()
    host.start()
    host.turns(6)
    assert host.value("farrier_nvml_released") == 1, "a restart does not open the driver"
    assert host.get("/readyz")[0] == 200
    assert host.verb("nvml", "acquire").returncode == 0
    until(lambda: host.value("farrier_nvml_released") == 0)
    until(lambda: host.value("farrier_gpus") == 2)


def test_an_unknown_rule_is_refused_with_those_that_there_are(host: Host) -> None:
    serving(host, *pair())
    done = host.verb("ack", "gpu-lots", "--json")
    assert done.returncode == 2
    assert "gpu-lost" in json.loads(done.stdout)["error"]


def test_a_ready_that_was_refused_overrules_nothing(host: Host) -> None:
    left, right = pair()
    serving(host, left, right)
    host.unit(right.unit, run=2, active="inactive", sub="dead")
    until(lambda: phases(host)["right"] == "stopped")
    host.nvml("count 2\n1.lost 1")
    until(lambda: reasons(host, "gpu-lost"))
    assert "its engine does not run" in host.verb("ready", "right").stdout
    host.unit(right.unit, run=3)
    until(lambda: phases(host) == {"left": "ready", "right": "drained"})


def test_a_replicas_fault_outlives_another_configuration(host: Host) -> None:
    one = replica(port=free_port(), gpus=[5])
    host.unit(one.unit, run=1)
    host.engine(one.port, one.model)
    host.configure(one, accelerator="cuda")
    host.start()  # its gate need never be open: the verdict may come before it is warm
    until(lambda: host.snapshot().health)
    (reason,) = until(lambda: reasons(host, "gpu-missing"))
    file = host.config_path
    file.write_text(file.read_text().replace("settle_seconds = 0.0", "settle_seconds = 1.0"))
    assert host.agent is not None
    host.agent.send_signal(signal.SIGHUP)
    until(lambda: "is read again" in host.log())
    host.turns(6)
    assert [one.since_at for one in reasons(host, "gpu-missing")] == [reason.since_at]
