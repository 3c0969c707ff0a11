"""What the agent cannot read: it runs, says what is missing and serves the rest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from farrier_agent import status
from farrier_agent.control.protocol import Report, Status
from farrier_agent.status import Reason

from tests.agent.host import UUIDS, Host, free_port, replica, until


def serving(host: Host, **fields: Any) -> None:
    """An agent with one replica, which it brings to serve whatever else is amiss."""
    one = replica(port=free_port(), gpus=[1])
    host.unit(one.unit, run=1)
    host.engine(one.port, one.model)
    host.configure(one, accelerator="cuda", **fields)
    host.start_anyhow()
    until((host.gates / one.name).exists)


def told(host: Host) -> status.Status:
    """What the agent says of itself over its socket, which needs no HTTP."""
    final = host.ask(Status())
    assert isinstance(final, Report)
    return final.status


def reasons(host: Host, rule: str) -> list[Reason]:
    health = told(host).health
    return [one for one in health.host.reasons if one.rule == rule] if health else []


@pytest.mark.parametrize("how", ["not there", "a directory"])
def test_a_kernel_log_that_cannot_be_read_is_said_and_the_rest_goes_on(
    host: Host, how: str
) -> None:
    host.kmsg.unlink()
    if how == "a directory":
        host.kmsg.mkdir()
    serving(host)
    (found,) = until(lambda: reasons(host, "kernel-log-unreadable"))
    assert found.state == "degraded"
    assert str(host.kmsg) in found.text
    assert host.value("farrier_collector_success", collector="xid") == 0
    assert host.value("farrier_gpu_up", uuid=UUIDS[0]) == 1
    assert host.get("/readyz")[0] == 200
    if how == "not there":
        host.kmsg.touch()
        until(lambda: not reasons(host, "kernel-log-unreadable"))


def test_a_pci_bus_that_is_not_there_is_said(host: Host) -> None:
    serving(host, sys_root=str(host.root / "nowhere"))
    (found,) = until(lambda: reasons(host, "pci-unreadable"))
    assert "nowhere" in found.text
    until(lambda: host.value("farrier_gpu_up", uuid=UUIDS[1]) == 1)


def test_without_nvmls_library_replicas_serve_and_nothing_is_said_of_gpus(host: Host) -> None:
    serving(host, nvml_library="/nowhere/libnvidia-ml.so.1")
    (found,) = until(lambda: reasons(host, "nvml-unreadable"))
    assert found.state == "unknown"
    assert "/nowhere/libnvidia-ml.so.1" in found.text
    assert host.value("farrier_nvml_problem", kind="no_library") == 1
    assert host.value("farrier_gpus") is None
    assert host.value("farrier_replica_gate_open", replica="tiny") == 1


def test_without_permission_the_next_step_is_to_give_it(host: Host) -> None:
    host.nvml("count 2\nerr.nvmlInit 4")
    serving(host)
    (found,) = until(lambda: reasons(host, "nvml-unreadable"))
    assert "/dev/nvidia" in found.next
    host.nvml("count 2")
    until(lambda: host.value("farrier_gpus") == 2)
    until(lambda: not reasons(host, "nvml-unreadable"))


WEB = {
    "a wrong key": ("tls_server_confg: {}\n", "did you mean tls_server_config"),
    "a certificate that is none": (
        "tls_server_config: {cert_file: web.yml, key_file: web.yml}\n",
        "cert_file",
    ),
    "a file that is not there": (
        "tls_server_config: {cert_file: no.crt, key_file: no.key}\n",
        "no.crt",
    ),
}


@pytest.mark.parametrize("how", WEB)
def test_a_bad_web_configuration_closes_http_and_nothing_else(host: Host, how: str) -> None:
    text, words = WEB[how]
    web = host.root / "web.yml"
    web.write_text(text)
    serving(host, web_config=str(web))
    assert host.get("/metrics")[0] == 503
    assert host.get("/readyz")[0] == 503
    until(lambda: told(host).gpus is not None)
    seen = told(host)
    assert seen.web_good is False
    assert words in (seen.web_problem or "")
    done = host.command("status", f"--config={host.config_path}", "--json")
    assert done.returncode == 0, done.stderr
    assert host.command("check-config", str(host.config_path)).returncode == 1
    assert host.verb("drain", "tiny", "--wait").returncode == 0
    web.write_text("")
    until(lambda: host.get("/metrics")[0] == 200)
    until(lambda: host.value("farrier_agent_web_configuration_good") == 1)


def test_state_files_of_garbage_are_begun_anew(host: Host) -> None:
    state = host.root / "state"
    for name in ("gpus.json", "xids.json", "health.json"):
        (state / name).write_bytes(b"\x00garbage{" * 100)
    serving(host)
    until(lambda: host.value("farrier_gpu_up", uuid=UUIDS[0]) == 1)
    assert str(state / "health.json") in host.log()
    until(lambda: b"garbage" not in Path(state / "gpus.json").read_bytes())
