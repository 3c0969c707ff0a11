"""Role ``transformers``: Farrier's server over Transformers, an environment per version."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyinfra import host

from farrier.converge import Absent, Directory, packages, tree
from farrier.converge.environments import Environment, environment
from farrier.converge.typed import deploy
from farrier.defaults import Default, Defaults
from farrier.wheelhouse import Sources

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["DEFAULTS", "remove", "transformers", "transformers_environment"]

DEFAULTS = Defaults(
    "transformers",
    "Farrier's small OpenAI-compatible server over Hugging Face's Transformers, for models that no"
    " engine takes ([engines.md](../engines.md#transformers)), from locked wheels under"
    " `/opt/farrier/transformers/<version>`. The wheels are downloaded once, on the operator's"
    " machine, and pushed to every host that needs them. `accelerator` chooses the lock: PyPI's"
    " torch for CUDA 13 (driver 580 or newer), or PyTorch's build for CPUs.",
    (
        Default(
            "transformers_version",
            "5.19.0",
            "The version of Transformers; a lock for it has to be in the role.",
        ),
        Default(
            "transformers_index_url",
            None,
            "Package index to ask instead of the one that pip is configured with.",
        ),
        Default(
            "transformers_find_links",
            [],
            "Directories or pages with wheels, searched as well; pip's configured ones always are.",
        ),
        Default(
            "transformers_torch_cpu_index",
            "https://download.pytorch.org/whl/cpu",
            "Where torch's CPU build comes from when find-links do not have it.",
        ),
        Default(
            "transformers_packages",
            ["python3-minimal"],
            "Debian packages on every host that serves with it.",
        ),
        Default(
            "transformers_cuda_packages",
            ["gcc", "libc6-dev", "python3-dev"],
            "Debian packages on CUDA hosts besides: Triton compiles its launchers at run time.",
        ),
        Default("transformers_cpu_packages", [], "Debian packages on CPU hosts besides."),
    ),
)

_HERE = Path(__file__).parent
LOCKS = _HERE / "locks"
SERVER = _HERE / "server"
_NEEDS_MB = {"cpu": 2500, "cuda": 11000}


def transformers_environment(accelerator: str, settings: Mapping[str, Any]) -> Environment:
    """The environment of the server for hosts with this *accelerator*."""
    locks = tuple(
        (f"3.{path.stem.partition('cp3')[2]}", path)
        for path in sorted(LOCKS.glob(f"{accelerator}-cp*.txt"))
    )
    index = settings["transformers_torch_cpu_index"]
    return Environment(
        thing="transformers",
        release=settings["transformers_version"],
        locks=locks,
        needs_mb=_NEEDS_MB[accelerator],
        sources=Sources(
            settings["transformers_index_url"],
            tuple(settings["transformers_find_links"]),
            (("torch", index),) if accelerator == "cpu" else (),
        ),
        source=SERVER,
    )


@deploy("Transformers")
def transformers(accelerator: str) -> None:
    """Install the program; running engines keep the version they run."""
    settings = DEFAULTS.read(host.data)
    names = [*settings["transformers_packages"], *settings[f"transformers_{accelerator}_packages"]]
    packages(name="Packages", names=names)
    tree(Directory("/opt/farrier/transformers"), name="Directory")
    environment(transformers_environment(accelerator, settings), name="Environment")


@deploy("Remove Transformers")
def remove() -> None:
    """Take away every version."""
    tree(Absent("/opt/farrier/transformers"), name="Environments")
