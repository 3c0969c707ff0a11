"""A Status of a host that is up, with every reading: what there can be on a page is on its page.

Not a measurement: the numbers are chosen, plausible for eight H200 on one board, and each differs
from the next. Tests of pages, rules and dashboards, and the benches, start from here.
"""

from __future__ import annotations

from farrier_agent.gpus import Nvml, UnitOnGpu, Xid
from farrier_agent.status import (
    Agent,
    AgentCheck,
    Collector,
    Difference,
    Drain,
    Fingerprint,
    Health,
    Notice,
    Reason,
    Replica,
    Requests,
    Rollout,
    Status,
    Unit,
    Verdict,
)

from tests.agent.full_extra import engine_families, full_extra, proc_tree, requests
from tests.agent.full_gpus import (
    AT,
    GIB,
    MODEL,
    bus,
    gpu,
    gpus_of,
    replica_name,
    unit_name,
    uuid,
)

__all__ = [
    "AT",
    "COLLECTORS",
    "engine_families",
    "full_extra",
    "full_status",
    "gpu",
    "proc_tree",
    "replica",
    "requests",
    "uuid",
]

COLLECTORS = (
    "gpu", "xid", "pci", "process", "engine", "requests", "units", "replicas", "notices",
)  # fmt: skip


def full_status(gpus: int = 8, replicas: int = 4, at: float = AT) -> Status:
    """A host with *gpus* GPUs that *replicas* replicas share evenly, with every reading."""
    shares = _shares(gpus, replicas)
    owners = {index: number for number, share in enumerate(shares) for index in share}
    return Status(
        host="gpu01",
        at=at,
        accelerator="cuda",
        agent=Agent(version="0.1.0", python="3.11.2", pid=700, started_at=at - 86400.5),
        ready=True,
        reasons=("replica chat-0: draining: kernel",),
        collectors=tuple(
            Collector(
                name=name,
                success=name != "notices",
                fresh=True,
                duration_seconds=0.0125 * (number + 1),
                last_success_at=at - 1.5 - number,
                error="no answer within 2 s" if name == "notices" else None,
            )
            for number, name in enumerate(COLLECTORS)
        ),
        gpus=gpus_of(gpus, owners, at),
        replicas=tuple(replica(number, shares[number], at) for number in range(replicas)),
        units=(
            Unit(
                name="nginx.service",
                load_state="loaded",
                active_state="active",
                sub_state="running",
                invocation_id="a" * 32,
                main_pid=801,
            ),
            Unit(
                name="nvidia-fabricmanager.service",
                load_state="loaded",
                active_state="failed",
                sub_state="failed",
                invocation_id="b" * 32,
            ),
        ),
        notices=(Notice(cloud="aws", kind="preempt", id="n-1", at=at + 110.0, drains=True),),
        agent_check=AgentCheck(answered=1200, refused=3),
        health=_health(gpus, replicas, owners, at),
        xids=tuple(
            Xid(
                uuid=uuid(index),
                xid=xid,
                count=index + 1,
                last_at=at - 3600.0 - index,
                pci_bus_id=bus(index),
                text=f"NVRM: Xid (PCI:{bus(index)}): {xid}, pid=4242, name=python3",
            )
            for index in range(gpus)
            for xid in (13, 94)
        ),
        nvml=Nvml(
            workers=2,
            pid=701,
        ),
        gpu_units=tuple(
            UnitOnGpu(
                uuid=uuid(index),
                unit=unit_name(owner),
                processes=2,
                memory_bytes=(100 + index) * GIB,
                managed=True,
            )
            for index, owner in owners.items()
        ),
        requests=Requests(lines=123456, refused=7, last_at=at - 0.25),
        web_good=False,
        rollout=Rollout(
            rollout="r-20261122-0110-x7",
            holder="alice@laptop",
            token=1795311098,
            expires_in=42.5,
            acting="restart",
            acting_since=at - 20.0,
        ),
        fingerprint=Fingerprint(
            recorded_at=at - 86400.0,
            differences=(
                Difference(kind="changed", what="GPU 1 pcie width", was="16", now="8", gpu="GPU-1"),
            ),
        ),
        web_problem="/etc/farrier/web.yml: unknown key tls_server_config.cert_fil",
    )


def replica(number: int, gpus: tuple[int, ...] = (), at: float = AT) -> Replica:
    """Replica *number* with a value in every field: it is being drained, and once was before."""
    drain = Drain(
        asked_by=("uid 0",),
        reasons=("kernel",),
        policy="extend",
        begun_at=at - 12.5,
        deadline_at=at + 887.5,
        seconds=12.5,
        in_flight_at_close=9,
    )
    return Replica(
        name=replica_name(number),
        model=MODEL,
        engine="vllm",
        unit=unit_name(number),
        port=8100 + number,
        gpus=gpus,
        unit_state=Unit(
            name=unit_name(number),
            load_state="loaded",
            active_state="active",
            sub_state="running",
            invocation_id=f"{number:032x}",
            main_pid=5000 + number,
        ),
        up=True,
        gate="closed",
        restart_pending=True,
        put_back=False,
        detail="gate closed: draining: kernel",
        phase="draining",
        reason="kernel",
        asked_by="uid 0",
        since_at=at - 12.5,
        in_flight=7 + number,
        strangers=1,
        nodes=1,
        nodes_wanted=2,
        drain=drain,
        last_drain=Drain(
            asked_by=("uid 0",),
            reasons=("driver",),
            policy="force",
            begun_at=at - 90000.0,
            deadline_at=at - 89100.0,
            seconds=900.0,
            over=True,
            in_flight_at_close=12,
            forced=True,
            cut=2,
        ),
        restarts=1,
        health="busy",
        health_restarts=1,
    )


def _shares(gpus: int, replicas: int) -> list[tuple[int, ...]]:
    each = gpus // replicas if replicas else 0
    return [tuple(range(number * each, (number + 1) * each)) for number in range(replicas)]


def _health(gpus: int, replicas: int, owners: dict[int, int], at: float) -> Health:
    """GPU 0 is unhealthy, and with it replica 0 and the host; one reason of each kind."""
    remap = Reason(
        rule="row-remap-failed",
        state="unhealthy",
        text="GPU 0: a row of memory could not be exchanged",
        next="return the board",
        command="farrier-agent drain chat-0",
        since_at=at - 60.0,
        gpu=uuid(0),
        latched=True,
        clears="a reset of the GPU, or farrier-agent ack row-remap-failed",
        acts=True,
        held_back="no other host of qwen3-32b is ready",
    )
    xid = Reason(
        rule="xid-app-repeated",
        state="degraded",
        text="replica chat-0: XID 13 four times within an hour",
        next="restart the replica",
        since_at=at - 30.0,
        gpu=uuid(0),
        replica=replica_name(0),
    )
    kernel = Reason(
        rule="kernel-log-unreadable",
        state="unknown",
        text="/dev/kmsg: permission denied",
        next="give the agent CAP_SYSLOG",
        since_at=at - 900.0,
    )
    good = Verdict(state="healthy")
    ill = Verdict(state="unhealthy", reasons=(remap, xid))
    return Health(
        host=Verdict(state="unhealthy", reasons=(remap, xid, kernel)),
        gpus={uuid(index): ill if index == 0 else good for index in range(gpus)},
        replicas={
            replica_name(number): ill if owners.get(0) == number else good
            for number in range(replicas)
        },
    )
