"""How a replica's hosts are joined by Ray: pure functions to argv and environment.

Each host has a node of the replica's own cluster (``engine-big-ray.service``), which starts the
workers; the head's has the cluster's table of nodes (GCS), at its address and ``master_port``. The
engine, on the head, begins when the cluster is whole.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from farrier.spec.check_hosts import is_over_ray
from farrier.spec.ray import session, tells
from farrier.spec.spanning import RAY_PORTS

if TYPE_CHECKING:
    from farrier.spec import HostSpec, Model, Rank

__all__ = ["TOKEN", "awaited", "home", "node", "of_ray"]

NODE = "/opt/farrier/vllm/ray-node"
"""The program around Ray's own, that the role ``vllm`` puts there."""
TOKEN = "/etc/farrier/ray-token"  # noqa: S105 - a path
"""Every host's: what the head's engine has in its environment its workers get on each host."""
OBJECT_STORE = 512 << 20
"""Bytes of /dev/shm: vLLM's workers speak by queues of their own and leave little there."""
_LISTENERS = (
    "object-manager-port",
    "node-manager-port",
    "runtime-env-agent-port",
    "dashboard-agent-listen-port",
    "dashboard-agent-grpc-port",
    "metrics-export-port",
)
_FIRST_WORKER = 10
"""Ports of workers begin so many after ``master_port``."""


def home(model: Model, spec: HostSpec) -> str:
    """The replica's name of the state directory that *model*'s engine has for its caches.

    vLLM gives its workers, on all hosts, the variables of the head's engine (0.32.0,
    v1/executor/ray_env_utils.py): so their paths are those of the nodes, alike on every host.
    """
    if is_over_ray(model) and model not in spec.members:
        return f"{model.replica}-ray"
    return model.replica


def node(model: Model, rank: Rank, program: str) -> list[str]:
    """What runs this host's node; *model* is the member that stands for it."""
    words = [f"{program}/bin/python", NODE, "run"]
    if rank.number == 0:
        words += ["--tell", tells(model.replica), *_whole(model, rank)]
        words += ["--", "start", "--head", "--port", str(model.master_port)]
        words += ["--include-dashboard", "false"]
    else:
        words += ["--", "start", "--address", _meeting(model, rank)]
    words += ["--node-ip-address", rank.address, "--block", "--disable-usage-stats"]
    words += ["--num-gpus", str(len(model.gpus)), "--num-cpus", "1"]
    words += ["--object-store-memory", str(OBJECT_STORE), "--temp-dir", session(model.replica)]
    for number, listener in enumerate(_LISTENERS, 1):
        words += [f"--{listener}", str(model.master_port + number)]
    words += ["--min-worker-port", str(model.master_port + _FIRST_WORKER)]
    words += ["--max-worker-port", str(model.master_port + RAY_PORTS - 1)]
    return [*words, "--include-log-monitor", "false", "--log-style", "record"]


def awaited(model: Model, rank: Rank, program: str) -> list[str]:
    """What stands before the engine's own words: it begins when the cluster is whole."""
    return [f"{program}/bin/python", NODE, "wait", *_whole(model, rank), "--"]


def of_ray(model: Model, spec: HostSpec, rank: Rank) -> dict[str, str]:
    """What Ray is told by variables; the engine, where the cluster is, too."""
    values = {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": TOKEN,
        "RAY_USAGE_STATS_ENABLED": "0",
        # Of a host that is gone without a word the head knows within 45 s, and a node that its head
        # is gone after 20. Less is a verdict on hosts that are merely busy.
        "RAY_health_check_period_ms": "5000",
        "RAY_health_check_timeout_ms": "10000",
        "RAY_health_check_failure_threshold": "3",
        "RAY_gcs_rpc_server_reconnect_timeout_s": "20",
        # its logs are in memory
        "RAY_ROTATION_MAX_BYTES": str(16 << 20),
        "RAY_ROTATION_BACKUP_COUNT": "1",
    }
    if model not in spec.members:
        values["RAY_ADDRESS"] = _meeting(model, rank)
    return values


def _meeting(model: Model, rank: Rank) -> str:
    head = rank.addresses[0]
    return f"[{head}]:{model.master_port}" if ":" in head else f"{head}:{model.master_port}"


def _whole(model: Model, rank: Rank) -> list[str]:
    hosts = [f"{name}={at}" for name, at in zip(model.hosts, rank.addresses, strict=True)]
    words = ["--address", _meeting(model, rank), "--hosts", ",".join(hosts)]
    return [*words, "--gpus", str(len(model.gpus))]
