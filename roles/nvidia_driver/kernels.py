"""Which headers a host's kernels need for the driver's module to be built for each of them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from farrier.facts.kernel import KernelFacts

__all__ = ["Headers", "headers"]


@dataclass(frozen=True, slots=True)
class Headers:
    """Packages of headers.

    *meta* brings the next kernel's headers with the next kernel. *each* are those of the kernels
    that are installed and have none; an old kernel's may be gone from the archive, and then the
    driver cannot be built for it.
    """

    meta: tuple[str, ...]
    each: tuple[str, ...] = ()


def headers(kernels: KernelFacts, images: Sequence[str], system: str, architecture: str) -> Headers:
    """The headers for *kernels* where *images* are the installed packages ``linux-image-…``.

    Where no metapackage for kernels is installed (a container, or a kernel that was installed by
    its own name), it is the one of the distribution's ordinary kernel.
    """
    metas = [_meta(name) for name in images if not re.match(r"linux-image-[0-9]|.*-dbg", name)]
    ordinary = "generic" if system.startswith("ubuntu") else architecture
    releases = {kernel.release for kernel in kernels.kernels if kernel.image and not kernel.headers}
    return Headers(
        tuple(dict.fromkeys(metas)) or (f"linux-headers-{ordinary}",),
        tuple(f"linux-headers-{release}" for release in sorted(releases)),
    )


def _meta(image: str) -> str:
    return image.replace("linux-image-", "linux-headers-", 1)
