"""Role ``transformers``: Farrier's server over Transformers, an environment per version."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyinfra import host

from farrier.converge import Absent, tree
from farrier.converge.typed import deploy
from farrier.converge.wheels import TORCH_CPU, Wheels, torch_cpu, wheel_settings
from farrier.defaults import Defaults

if TYPE_CHECKING:
    from collections.abc import Mapping

    from farrier.converge.environments import Environment

__all__ = ["DEFAULTS", "remove", "transformers", "transformers_environment"]

DEFAULTS = Defaults(
    "transformers",
    "Farrier's small OpenAI-compatible server over Hugging Face's Transformers, for models that no"
    " engine takes ([engines.md](../engines.md#transformers)), from locked wheels under"
    " `/opt/farrier/transformers/<version>`. The wheels are downloaded once, on the operator's"
    " machine, and pushed to every host that needs them. `accelerator` chooses the lock: PyPI's"
    " torch for CUDA 13 (driver 580 or newer), or PyTorch's build for CPUs.",
    wheel_settings(
        "transformers",
        "5.19.0",
        of=" of Transformers",
        further=[torch_cpu("transformers")],
        cuda=["gcc", "libc6-dev", "python3-dev"],
        cuda_why="Triton compiles its launchers at run time",
        cpu=[],
    ),
)

_HERE = Path(__file__).parent
LOCKS = _HERE / "locks"
SERVER = _HERE / "server"
WHEELS = Wheels(
    "transformers",
    LOCKS,
    {"cpu": 2500, "cuda": 11000},
    source=SERVER,
    elsewhere=(TORCH_CPU,),
)


def transformers_environment(accelerator: str, settings: Mapping[str, Any]) -> Environment:
    """The environment of the server for hosts with this *accelerator*."""
    return WHEELS.environment(accelerator, settings)


@deploy("Transformers")
def transformers(accelerator: str) -> None:
    """Install the program; running engines keep the version they run."""
    WHEELS.bring(accelerator, DEFAULTS.read(host.data))


@deploy("Remove Transformers")
def remove() -> None:
    """Take away every version."""
    tree(Absent("/opt/farrier/transformers"), name="Environments")
