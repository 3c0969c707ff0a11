"""Role ``sglang``: the SGLang program itself, in an environment per version. Runs nothing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyinfra import host

from farrier.converge import Absent, tree
from farrier.converge.typed import deploy
from farrier.converge.wheels import Wheels, wheel_settings
from farrier.defaults import Defaults

if TYPE_CHECKING:
    from collections.abc import Mapping

    from farrier.converge.environments import Environment

__all__ = ["DEFAULTS", "remove", "sglang", "sglang_environment"]

DEFAULTS = Defaults(
    "sglang",
    "SGLang from its locked wheels, PyPI's, under `/opt/farrier/sglang/<version>`; for hosts with"
    " accelerator `cuda` and Python 3.11 or 3.12 (Debian 12, Ubuntu 24.04): of what it pins,"
    " outlines-core has no wheel for 3.13. The wheels are downloaded once, on the operator's"
    " machine, and pushed to every host that needs them. What a version compiled is kept for each"
    " replica across restarts, and removed by the first converge after the version itself was.",
    wheel_settings(
        "sglang",
        "0.5.23",
        cuda=["g++", "libc6-dev", "libnuma1", "python3-dev"],
        cuda_why="its kernels are loaded with libnuma, others are compiled at run time; those that"
        " nvcc compiles need a toolkit (`cuda_toolkit_version`)",
    ),
)

LOCKS = Path(__file__).parent / "locks"
WHEELS = Wheels("sglang", LOCKS, {"cuda": 16000})


def sglang_environment(accelerator: str, settings: Mapping[str, Any]) -> Environment:
    """The environment of SGLang; there is one for the accelerator ``cuda`` only."""
    return WHEELS.environment(accelerator, settings)


@deploy("SGLang")
def sglang(accelerator: str) -> None:
    """Install the program; running engines keep the version they run."""
    WHEELS.bring(accelerator, DEFAULTS.read(host.data))


@deploy("Remove SGLang")
def remove() -> None:
    """Take away every version."""
    tree(Absent("/opt/farrier/sglang"), name="Environments")
