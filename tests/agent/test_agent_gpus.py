"""The running agent and its GPUs: what it serves while they work, are lost, or hang."""

from __future__ import annotations

import json
import re
from pathlib import Path

from tests.agent.host import PROMPT, UUIDS, Host, free_port, replica, until


def gpu_names(host: Host) -> set[str]:
    """Of what is known of GPUs; a verdict stands until something else is observed."""
    names = {name for name, _ in host.samples() if name.startswith("farrier_gpu")}
    return names - {"farrier_gpu_verdict"}


def hangs_in(host: Host, call: str) -> bool:
    return any(f"NVML hangs in {call}" in reason for reason in host.reasons())


def workers(agent: int) -> list[int]:
    """The processes that the agent has started and that still run."""
    children = Path(f"/proc/{agent}/task/{agent}/children").read_text().split()
    return [int(one) for one in children]


def size(pid: int) -> int:
    """Kilobytes of a process, of what it shares with others only its share."""
    words = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return int(re.search(r"\nPss:\s+(\d+) kB", words)[1])  # type: ignore[index]


def test_values_of_every_gpu(host: Host) -> None:
    host.nvml("count 2\n1.temperature 55\n1.utilization.gpu 90\n1.power.usage N/A")
    host.configure(accelerator="cuda")
    host.start()
    until(lambda: host.value("farrier_gpus") == 2)
    assert host.value("farrier_gpu_temperature_celsius", uuid=UUIDS[0]) == 31
    assert host.value("farrier_gpu_temperature_celsius", uuid=UUIDS[1]) == 55
    assert host.value("farrier_gpu_utilization_ratio", uuid=UUIDS[1]) == 0.9
    assert host.value("farrier_gpu_power_watts", uuid=UUIDS[0]) == 76.5
    assert host.value("farrier_gpu_power_watts", uuid=UUIDS[1]) is None
    assert host.value("farrier_gpu_memory_total_bytes", uuid=UUIDS[0]) == 150754820096
    assert host.value("farrier_collector_success", collector="gpu") == 1
    assert host.value("farrier_agent_info", accelerator="cuda") == 1
    info = [dict(labels) for name, labels in host.samples() if name == "farrier_gpu_info"]
    assert [one["pci_bus_id"] for one in info] == ["00000000:18:00.0", "00000000:20:00.0"]
    assert host.get("/readyz")[0] == 200


def test_values_follow_the_gpu(host: Host) -> None:
    host.configure(accelerator="cuda")
    host.start()
    until(lambda: host.value("farrier_gpu_temperature_celsius", uuid=UUIDS[0]) == 31)
    host.nvml("count 2\n0.temperature 77")
    until(lambda: host.value("farrier_gpu_temperature_celsius", uuid=UUIDS[0]) == 77)


def test_a_lost_gpu_is_down_without_values_and_the_other_goes_on(host: Host) -> None:
    host.configure(accelerator="cuda")
    host.start()
    until(lambda: host.value("farrier_gpu_up", uuid=UUIDS[1]) == 1)
    host.nvml("count 2\n1.lost 1\n0.temperature 40")
    until(lambda: host.value("farrier_gpu_up", uuid=UUIDS[1]) == 0)
    assert host.value("farrier_gpu_temperature_celsius", uuid=UUIDS[1]) is None
    until(lambda: host.value("farrier_gpu_temperature_celsius", uuid=UUIDS[0]) == 40)
    assert host.value("farrier_gpus") == 2
    until(lambda: "gpu-lost: GPU 1 is lost" in host.log())
    assert host.log().count(f"GPU 1 ({UUIDS[1]}) does not answer (lost)") == 1


def test_a_gpu_that_had_another_name_for_a_while_leaves_no_trace(host: Host) -> None:
    """As a board that was exchanged, and put back."""
    stranger = "GPU-0badc0de-0000-4000-8000-000000000001"

    def held() -> set[str]:
        told = host.snapshot().health
        return {f"{reason.rule} {reason.gpu}" for reason in (told.host.reasons if told else ())}

    def enumerates(state: str) -> None:
        """NVML does, from the next start on, as after a change of the driver."""
        host.stop()
        host.nvml(state)
        host.start()

    host.configure(accelerator="cuda")
    host.start()
    until(lambda: host.value("farrier_gpus") == 2)
    before = held()
    enumerates(f"count 2\n1.uuid {stranger}")
    until(lambda: f"gpu-missing {UUIDS[1]}" in held(), 20)
    enumerates("count 2")
    until(lambda: held() == before, 20)
    assert stranger not in str(host.snapshot())


def test_a_gpu_that_hangs_is_down_without_values_and_the_other_goes_on(host: Host) -> None:
    host.configure(accelerator="cuda")
    host.start()
    until(lambda: host.value("farrier_gpu_up", uuid=UUIDS[1]) == 1)
    host.nvml("count 2\nhang.nvmlDeviceGetUtilizationRates.1 600000\n0.temperature 40")
    until(lambda: host.value("farrier_gpu_up", uuid=UUIDS[1]) == 0)
    until(lambda: host.value("farrier_gpu_temperature_celsius", uuid=UUIDS[0]) == 40)
    assert host.value("farrier_gpu_temperature_celsius", uuid=UUIDS[1]) is None
    assert host.value("farrier_gpus") == 2
    until(lambda: host.value("farrier_collector_success", collector="gpu") == 1)
    gpus = host.snapshot().gpus
    assert gpus is not None
    assert [gpu.problem for gpu in gpus.devices] == [None, "hangs"]
    assert "nvmlDeviceGetUtilizationRates" in (gpus.devices[1].problem_detail or "")
    host.nvml("count 2")
    until(lambda: host.value("farrier_gpu_up", uuid=UUIDS[1]) == 1)


def test_a_hung_nvml_stops_nothing_but_its_own_data(host: Host) -> None:
    """Metrics, liveness, the replicas, their gates and SIGTERM go on; old GPU data go away."""
    port = free_port()
    host.configure(replica(port=port), accelerator="cuda")
    host.unit("engine-tiny.service", run=1)
    host.start()
    until(lambda: host.value("farrier_gpus") == 2)
    host.nvml("count 2\nhang.nvmlDeviceGetCount 600000")
    until(lambda: host.value("farrier_collector_success", collector="gpu") == 0)
    until(lambda: not gpu_names(host))
    until(lambda: hangs_in(host, "nvmlDeviceGetCount"))
    assert host.get("/readyz")[0] == 503
    assert host.get("/livez")[0] == 200
    host.engine(port, "tiny")
    until((host.gates / "tiny").exists)
    until(lambda: host.value("farrier_replica_gate_open", replica="tiny") == 1)
    assert host.value("farrier_collector_last_success_timestamp_seconds", collector="gpu")
    assert host.stop() < PROMPT
    assert host.agent is not None
    assert host.agent.returncode == 0


def test_a_hang_that_ends_gives_the_data_back(host: Host) -> None:
    host.nvml("count 1\nhang.nvmlInit 600000")
    host.configure(accelerator="cuda")
    host.start()
    until(lambda: host.value("farrier_collector_success", collector="gpu") == 0)
    assert not gpu_names(host)
    until(lambda: hangs_in(host, "nvmlInit"))
    host.nvml("count 1")
    until(lambda: host.value("farrier_gpus") == 1)
    until(lambda: host.get("/readyz")[0] == 200)
    assert host.log().count("collector gpu works again") == 1


def test_the_nvml_worker_ends_with_the_agent(host: Host) -> None:
    host.configure(accelerator="cuda")
    agent = host.start()
    until(lambda: host.value("farrier_gpus") == 2)
    (worker,) = workers(agent.pid)
    agent.kill()
    agent.wait()
    until(lambda: not Path(f"/proc/{worker}/maps").exists())


def test_a_driver_that_is_not_loaded_is_a_reason_and_no_number(host: Host) -> None:
    host.nvml_state.unlink()
    host.configure(accelerator="cuda")
    host.start()
    until(lambda: host.value("farrier_collector_success", collector="gpu") == 0)
    assert not gpu_names(host)
    (reason,) = host.reasons()
    assert reason.startswith("collector gpu: no fresh data: nvmlInit: Driver Not Loaded: ")
    assert "modprobe nvidia" in reason
    until(lambda: "host is not ready: collector gpu: " in host.log())
    host.nvml("count 2")
    until(lambda: host.value("farrier_gpus") == 2)


def test_a_host_without_a_gpu_says_so_once_and_never_loads_nvml(host: Host) -> None:
    host.configure(accelerator="cpu")
    agent = host.start()
    until(lambda: host.get("/readyz")[0] == 200)
    assert host.value("farrier_agent_info", accelerator="cpu") == 1
    assert not gpu_names(host)
    assert host.snapshot().gpus is None
    assert host.log().count("this host has no GPU") == 1
    assert "nvidia-ml" not in Path(f"/proc/{agent.pid}/maps").read_text()


def test_build_info_and_the_agents_own_process(host: Host) -> None:
    host.configure(accelerator="cpu")
    host.start()
    info = [dict(labels) for name, labels in host.samples() if name == "farrier_agent_build_info"]
    assert len(info) == 1
    assert re.fullmatch(r"\d+\.\d+\.\d+", info[0]["version"])
    assert info[0]["python"].startswith("3.")
    assert (host.value("process_resident_memory_bytes") or 0) > 2**20


def test_it_is_small(host: Host, tmp_path: Path) -> None:
    """48 MiB for both processes, with compiled bytecode as on a host (without it far more)."""
    bytecode = {"PYTHONPYCACHEPREFIX": str(tmp_path / "pyc"), "PYTHONDONTWRITEBYTECODE": ""}
    host.configure(replica(), accelerator="cuda")
    host.unit("engine-tiny.service", run=1)
    for _ in ("compile", "measure"):
        agent = host.start(**bytecode)
        until(lambda: host.value("farrier_gpus") == 2)
        host.turns(5)
        sizes = [size(pid) for pid in (agent.pid, *workers(agent.pid))]
        host.stop()
    assert len(sizes) == 2
    assert sum(sizes) < 48 * 1024, f"{sizes} kB"


def test_status_of_a_gpu_host_for_people_and_programs(host: Host) -> None:
    host.configure(accelerator="cuda")
    host.start()
    until(lambda: host.value("farrier_gpus") == 2)
    people = host.command("status", f"--config={host.config_path}")
    assert people.returncode == 0
    assert "gpu01: ready" in people.stdout
    assert "NVIDIA H200" in people.stdout
    programs = host.command("status", "--json", f"--config={host.config_path}")
    assert json.loads(programs.stdout)["gpus"]["count"] == 2
