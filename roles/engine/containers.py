"""An engine in an image: what its unit starts, pure functions from a model to podman's argv.

``podman run`` in the foreground is the unit's main process, and everything of the container stays
in the unit's own control group: SIGTERM, SIGKILL, MemoryMax=, the OOM killer, the look for
left-over processes and the journal are as with an engine that is installed on the host.
docs/architecture.md says why not Quadlet.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from farrier.spec import HubSource, PathSource
from farrier.spec.engines import ENGINES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from farrier.spec import HostSpec, Model

__all__ = ["RUN", "container_argv", "container_environment", "is_container"]

RUN = "/opt/farrier/podman/run"
"""The role podman's program: it knows the host's account and whether the image is there."""

_LIKE_ITS_UNIT = (
    # In the unit's group, all of it. podman then makes no device filter either, which a
    # daemon-reload of systemd would undo (NVIDIA/nvidia-container-toolkit issue 48).
    "--cgroups=disabled",
    # The drain speaks to systemd; podman would tell it of another main process.
    "--sdnotify=ignore",
    "--log-driver=passthrough",
    "--network=host",
    "--ulimit=host",
    "--umask=0077",
    # As on the host, bounded by the unit's MemoryMax=; podman's 64 MB are too few for NCCL.
    "--shm-size=0",
)
_CONFINED = (
    "--cap-drop=all",
    "--security-opt=no-new-privileges",
    "--read-only",
)
"""What the unit forbids an engine of the host, podman forbids this one."""


def is_container(model: Model) -> bool:
    """Whether *model*'s engine runs from an image."""
    return model.parsed_image() is not None


def container_argv(model: Model, spec: HostSpec, command: Sequence[str]) -> list[str]:
    """The words that start *command*, a program of the image of *model*."""
    image = model.parsed_image()
    if image is None:
        raise ValueError(f"model {model.name} has no image")
    words = [RUN, ENGINES[model.engine].user, image.reference, f"engine-{model.replica}"]
    words += ["--rm", "--pull=never"]
    # A first process without a handler of its own ignores SIGTERM: that of the image is not first.
    words += ["--init", *_LIKE_ITS_UNIT, *_CONFINED]
    if spec.accelerator == "cuda":
        words += [f"--device=nvidia.com/gpu={gpu}" for gpu in model.gpus]
    words += [f"--volume={volume}" for volume in _volumes(model)]
    words += [f"--env={name}={value}" for name, value in container_environment(model, spec).items()]
    program, *arguments = command
    return [*words, f"--entrypoint={program}", image.reference, *arguments]


def _volumes(model: Model) -> list[str]:
    """Its state directory, and its model as it lies on the host, which it cannot change."""
    state = _state(model)
    source = model.parsed_source() if model.source else None
    read_only = [f"{source.path}:{source.path}:ro"] if isinstance(source, PathSource) else []
    return [f"{state}:{state}", *read_only]


def container_environment(model: Model, spec: HostSpec) -> dict[str, str]:
    """The environment in the container, over that of the image.

    Its GPUs are all that it sees, numbered from 0: CUDA_VISIBLE_DEVICES would count them again.
    """
    state = _state(model)
    values = {
        "HOME": state,
        "XDG_CACHE_HOME": f"{state}/cache",
        "HF_HOME": f"{state}/huggingface",
        "DO_NOT_TRACK": "1",
    }
    if spec.accelerator == "cuda":
        values["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
    source = model.parsed_source() if model.source else None
    if not isinstance(source, HubSource):
        values["HF_HUB_OFFLINE"] = "1"
    return values | dict(model.env)


def _state(model: Model) -> str:
    return f"/var/lib/farrier/engines/{model.replica}"
