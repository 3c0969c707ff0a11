"""Role ``podman``: Debian's podman, and the images that engines run from. Runs nothing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pyinfra import host

from farrier.converge import Absent, Directory, Text, packages, tree
from farrier.converge.images import BROUGHT, images, no_images
from farrier.converge.typed import deploy
from farrier.defaults import Default, Defaults

if TYPE_CHECKING:
    from farrier.spec import HostSpec

__all__ = ["DEFAULTS", "podman", "remove"]

DEFAULTS = Defaults(
    "podman",
    "Debian's podman for engines that exist only as images (`image` or `image_archive` of a model,"
    " [engines.md](../engines.md#from-an-image)), and those images: pulled by digest, or loaded"
    " from an archive that is known by its SHA-256 and was fetched once, on the operator's machine."
    " Images stay side by side; nothing pulls at a start. A registry that wants a login finds it in"
    " `/root/.config/containers/auth.json` (`podman login --authfile …`, by a person).",
    (
        Default(
            "podman_packages",
            ["podman", "crun", "catatonit", "netavark"],
            "Debian packages on hosts that serve from images. crun, not runc: a container without a"
            " control group of its own; catatonit is its first process.",
        ),
    ),
)

_RUN = Path(__file__).parent / "templates" / "run"


@deploy("Podman")
def podman(spec: HostSpec) -> None:
    """Install the program and bring the images of *spec*; running engines keep theirs."""
    wanted = {image.reference: image for model in spec.models if (image := model.parsed_image())}
    packages(name="Packages", names=DEFAULTS.read(host.data)["podman_packages"])
    tree(
        Directory("/opt/farrier/podman"),
        Directory(BROUGHT),
        Text("/opt/farrier/podman/run", _RUN.read_text(encoding="utf-8"), mode="755"),
        name="What starts an engine",
    )
    images(tuple(wanted.values()), name="Images")


@deploy("Remove podman")
def remove() -> None:
    """Take away the images that it brought; Debian's packages stay."""
    no_images(name="Images")
    tree(Absent("/opt/farrier/podman"), name="What starts an engine")
