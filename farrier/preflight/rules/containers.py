"""Containers that use the host's GPUs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from farrier.preflight.verdict import Code, Reason
from farrier.spec import ArchiveImage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from farrier.preflight.found import Case

__all__ = ["CODES", "RULES"]

CDI_STALE = Code(
    "cdi-stale",
    "warn",
    "The CDI specification names libraries of another driver version: containers that ask for a GPU"
    " by it do not start.",
    "nvidia-ctk cdi generate --output={path}",
)
CDI_MISSING = Code(
    "cdi-missing",
    "warn",
    "The container toolkit is installed, a driver is loaded, and there is no CDI specification:"
    " --device nvidia.com/gpu=… finds nothing.",
    "mkdir -p /etc/cdi; nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml",
)
DEV_CHAR_MISSING = Code(
    "dev-char-missing",
    "warn",
    "NVIDIA's device nodes have no links in /dev/char: systemctl daemon-reload takes the GPUs away"
    " from running containers (NVIDIA/nvidia-container-toolkit issue 48).",
    "nvidia-ctk system create-dev-char-symlinks --create-all",
)
IMAGE_WITHOUT_CDI = Code(
    "image-without-cdi",
    "refuse",
    "An engine in an image is to have GPUs, and there is no CDI specification by which podman could"
    " give them: the container does not start.",
    "nvidia_container_toolkit = True",
    "inventory",
)
ARCHIVE_MISSING = Code(
    "image-archive-missing",
    "refuse",
    "An image archive (image_archive='/path…') is not on the operator's machine.",
    "ls -l {path}",
    "operator",
)


def cdi(case: Case) -> Iterator[Reason]:
    """A specification of the driver that is loaded."""
    facts = case.found.containers
    if facts is None or facts.toolkit is None or not case.wanted.cuda or not case.loaded:
        return
    if not facts.cdi:
        told = (
            f"the container toolkit {facts.toolkit} is installed, and there is no CDI specification"
        )
        yield _reason(case, CDI_MISSING, told)
    for spec in facts.cdi:
        if spec.driver_version and spec.driver_version != str(case.loaded):
            told = f"{spec.path} is of driver {spec.driver_version}, {case.loaded} is loaded"
            yield _reason(case, CDI_STALE, told, spec.path)


def device_links(case: Case) -> Iterator[Reason]:
    """Links in /dev/char, where there are container engines."""
    facts = case.found.containers
    if facts is None or not case.wanted.cuda or not facts.runtimes or not facts.dev_char_missing:
        return
    yield _reason(
        case,
        DEV_CHAR_MISSING,
        f"{len(facts.dev_char_missing)} device nodes have no link in /dev/char, for"
        f" {', '.join(facts.runtimes)}: {', '.join(facts.dev_char_missing[:4])}",
    )


def engines_in_images(case: Case) -> Iterator[Reason]:
    """Their archives, and their way to the GPUs."""
    facts = case.found.containers
    for model in case.wanted.spec.models:
        image = model.parsed_image()
        if isinstance(image, ArchiveImage) and image.url in case.wanted.no_archives:
            yield ARCHIVE_MISSING.reason(
                f"model {model.name}: the image archive {image.url} is not on this machine: save it"
                " there (podman save -o FILE IMAGE), or correct image_archive",
                path=image.url,
            )
        needs_cdi = image is not None and case.wanted.cuda and model.gpus
        if needs_cdi and facts and not facts.cdi and not case.wanted.container_toolkit:
            yield IMAGE_WITHOUT_CDI.reason(
                f"model {model.name} runs from an image on GPUs"
                f" {', '.join(map(str, model.gpus))}, and the host has no CDI specification of"
                " NVIDIA's devices: let the role nvidia_container_toolkit bring it"
            )


def _reason(case: Case, code: Code, told: str, path: str = "") -> Reason:
    """The role ``nvidia_container_toolkit`` writes all of it anew, where the host is to have it."""
    if case.wanted.container_toolkit:
        return code.left_to(("llm",), case.host, told)
    return code.reason(told, path=path)


CODES = (CDI_STALE, CDI_MISSING, DEV_CHAR_MISSING, IMAGE_WITHOUT_CDI, ARCHIVE_MISSING)
RULES = (cdi, device_links, engines_in_images)
