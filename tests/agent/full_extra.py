"""What is on a full page beside its status: nginx's counts, engines' own metrics, /proc."""

from __future__ import annotations

from pathlib import Path

from farrier_agent.collectors.gateway_log import GatewayCounts, ModelRequests
from farrier_agent.collectors.histogram import Histogram
from farrier_agent.collectors.requests import ReplicaRequests, RequestCounts
from farrier_agent.engines.passthrough import Family
from farrier_agent.metrics.page import Extra

from tests.agent.full_gpus import AT, MODEL, replica_name

__all__ = ["engine_families", "full_extra", "gateway", "proc_tree", "requests"]


def full_extra(proc: Path, replicas: int = 4) -> Extra:
    """What else is on a page, with *proc* as :func:`proc_tree` makes it."""
    faulty = {replica_name(number): 0 for number in range(replicas)}
    return Extra(
        engine_families(replicas), requests(replicas), proc, faulty, gateway(), AT + 30 * 86400
    )


def requests(replicas: int = 4) -> RequestCounts:
    """What nginx told of *replicas*."""
    return RequestCounts(
        replicas=tuple(
            ReplicaRequests(
                replica=replica_name(number),
                model=MODEL,
                codes={"200": 1000 + number, "429": 3, "502": 1},
                incomplete={"client": 2, "engine": 1},
                seconds=Histogram((0.1, 1.0, 10.0, 60.0), (0, 200, 900, 1000, 1001), 4321.5),
                first_byte=Histogram((0.01, 0.1, 1.0), (0, 700, 1000, 1001), 98.75),
            )
            for number in range(replicas)
        ),
        lines={"counted": 4016, "other": 5, "refused": 1, "garbled": 2},
        full=1,
        last_at=AT - 0.25,
    )


def gateway() -> GatewayCounts:
    """What HAProxy told, of a model and of requests for none."""
    one = ModelRequests(
        model=MODEL,
        codes={
            ("", "401"): 2,
            ("alice", "200"): 950,
            ("alice", "429"): 7,
            ("batch", "200"): 50,
            ("batch", "502"): 1,
        },
        tokens={("alice", "completion"): 120_000, ("alice", "prompt"): 800_000},
        incomplete={"client": 3, "server": 1},
        retries=12,
        seconds=Histogram((1.0, 10.0, 60.0), (200, 900, 990, 1000), 4400.25),
        first_byte=Histogram((0.1, 1.0, 10.0), (700, 990, 1000, 1000), 101.5),
    )
    nobody = Histogram((1.0, 10.0, 60.0), (0, 0, 0, 0), 0.0)
    unknown = ModelRequests(
        model="",
        codes={("alice", "404"): 4},
        tokens={},
        incomplete={"client": 0, "server": 0},
        retries=0,
        seconds=nobody,
        first_byte=nobody,
    )
    return GatewayCounts(
        models=(one, unknown),
        last_sent={f"gpu01:{replica_name(0)}": AT - 2.5},
        lines={"counted": 1013, "refused": 0, "garbled": 1},
    )


def engine_families(replicas: int = 4) -> tuple[Family, ...]:
    """A few of vLLM's families, one of each kind, of *replicas*."""
    labels = [
        f'replica="{replica_name(number)}",model="{MODEL}",engine="0"' for number in range(replicas)
    ]
    seconds = "vllm:e2e_request_latency_seconds"
    return (
        Family(
            "vllm:num_requests_running",
            "gauge",
            "Number of requests in model execution batches.",
            tuple(f"vllm:num_requests_running{{{one}}} 3.0" for one in labels),
        ),
        Family(
            "vllm:prompt_tokens_total",
            "counter",
            "Number of prefill tokens processed.",
            tuple(f"vllm:prompt_tokens_total{{{one}}} 1.5e+06" for one in labels),
        ),
        Family(
            seconds,
            "histogram",
            "Histogram of e2e request latency in seconds.",
            tuple(
                line
                for one in labels
                for line in (
                    f'{seconds}_bucket{{{one},le="0.3"}} 1.0',
                    f'{seconds}_bucket{{{one},le="+Inf"}} 4.0',
                    f"{seconds}_count{{{one}}} 4.0",
                    f"{seconds}_sum{{{one}}} 12.5",
                )
            ),
        ),
    )


def proc_tree(root: Path, worker: int = 701) -> Path:
    """A /proc with the agent itself and the NVML worker, in *root*."""
    root.mkdir()
    (root / "stat").write_text("cpu  1 2 3 4\nbtime 1789900000\nprocesses 5000\n")
    for number, pid in enumerate(("self", str(worker))):
        one = root / pid
        (one / "fd").mkdir(parents=True)
        for descriptor in range(5):
            (one / "fd" / str(descriptor)).touch()
        (one / "limits").write_text("Max open files            1024    524288    files\n")
        fields = ["0"] * 50
        fields[11:13] = ["250", "150"]  # user and system time
        fields[19:22] = ["1000", str(300 * 2**20), str(7000 + number)]  # start, memory
        (one / "stat").write_text(f"{worker} (python3) " + " ".join(fields))
    return root
