"""Role ``trtllm``: TensorRT-LLM's ``trtllm-serve``, in an environment per version. Runs nothing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyinfra import host

from farrier.converge import Absent, Directory, Text, tree
from farrier.converge.typed import deploy
from farrier.converge.wheels import Wheels, wheel_settings
from farrier.defaults import Default, Defaults
from farrier.spec.engines import TRTLLM_OPTIONS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from farrier.converge.environments import Environment

__all__ = ["DEFAULTS", "remove", "trtllm", "trtllm_environment"]

DEFAULTS = Defaults(
    "trtllm",
    "TensorRT-LLM from locked wheels under `/opt/farrier/trtllm/<version>`; for hosts with"
    " accelerator `cuda` and Python 3.12 (Ubuntu 24.04). PyPI has names only, the wheels are on"
    " NVIDIA's index, and Farrier has no lock of them: make yours"
    " ([engines.md](../engines.md#tensorrt-llm)) and name it in `trtllm_locks`; without one hosts"
    " are refused. The wheels are downloaded once, on the operator's machine, and pushed to every"
    " host that needs them.",
    wheel_settings(
        "trtllm",
        "1.2.1",
        further=[
            Default(
                "trtllm_nvidia_index",
                "https://pypi.nvidia.com",
                "Where TensorRT-LLM's and TensorRT's wheels come from when find-links do not have"
                " them.",
            ),
            Default(
                "trtllm_torch_index",
                "https://download.pytorch.org/whl/cu130",
                "Where torch comes from when the lock has a build that PyPI has not"
                " (`2.9.1+cu130`).",
            ),
        ],
        cuda=["g++", "libc6-dev", "libopenmpi-dev", "openmpi-bin", "python3-dev"],
        cuda_why="it is MPI that starts its workers, and kernels are compiled at run time; those"
        " that nvcc compiles need a toolkit (`cuda_toolkit_version`)",
    ),
)

LOCKS = Path(__file__).parent / "locks"
"""Where they would be: there are none (see DEFAULTS)."""
_NVIDIAS = (
    "tensorrt",
    "tensorrt-cu12",
    "tensorrt-cu12-bindings",
    "tensorrt-cu12-libs",
    "tensorrt-cu13",
    "tensorrt-cu13-bindings",
    "tensorrt-cu13-libs",
    "tensorrt-llm",
)
WHEELS = Wheels(
    "trtllm",
    LOCKS,
    {"cuda": 20000},
    elsewhere=(("nvidia_index", _NVIDIAS), ("torch_index", ("torch",))),
)


def trtllm_environment(accelerator: str, settings: Mapping[str, Any]) -> Environment:
    """The environment of TensorRT-LLM; there is one for the accelerator ``cuda`` only."""
    return WHEELS.environment(accelerator, settings)


@deploy("TensorRT-LLM")
def trtllm(accelerator: str) -> None:
    """Install the program; running engines keep the version they run."""
    tree(
        Directory("/opt/farrier/trtllm"),
        # without it there is no page for Prometheus, and the agent sees none of its requests
        Text(TRTLLM_OPTIONS, "# Written by Farrier's role trtllm.\nreturn_perf_metrics: true\n"),
        name="Options",
    )
    WHEELS.bring(accelerator, DEFAULTS.read(host.data))


@deploy("Remove TensorRT-LLM")
def remove() -> None:
    """Take away every version."""
    tree(Absent("/opt/farrier/trtllm"), name="Environments")
