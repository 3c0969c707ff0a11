"""Which driver is on a host, asked by SSH, and what follows from the answer. Pure.

Without pyinfra, so that it can be asked at any moment of a rollout.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from farrier.nvidia.planned import upstream

__all__ = ["OnHost", "on_host", "question_of_driver", "why_reboot"]

STATE = "/var/lib/farrier/nvidia"
"""Where the role keeps its open transaction."""
_NUMBERS = re.compile(r"[0-9]{3,4}(?:\.[0-9]+){1,2}")


@dataclass(frozen=True)
class OnHost:
    """``installed`` are the versions of the packages that were asked for, ``loaded`` the version in
    the kernel (upstream's; None: none there). ``half``: a transaction is under way or interrupted.
    ``nouveau`` has the GPUs.
    """

    installed: Mapping[str, str] = field(default_factory=dict)
    loaded: str | None = None
    half: bool = False
    nouveau: bool = False


def question_of_driver(packages: Iterable[str | None]) -> str:
    """One command that says it of *packages*."""
    names = shlex.join(sorted({one for one in packages if one}))
    asked = f"dpkg-query -W -f '${{db:Status-Status}} ${{Package}} ${{Version}}\\n' {names}"
    return "\n".join(
        (
            f"{asked} 2>/dev/null | sed 's/^/package /'" if names else ":",
            'read -r line 2>/dev/null < /proc/driver/nvidia/version && echo "loaded $line"',
            f"[ -d {STATE}/open ] && echo half",
            "[ -d /sys/module/nouveau ] && [ ! -e /run/systemd/container ] && echo nouveau",
            "true",
        )
    )


def on_host(answer: str) -> OnHost:
    """What the answer says."""
    lines = [line.partition(" ") for line in answer.splitlines()]
    packages = [rest.split() for word, _, rest in lines if word == "package"]
    loaded = next((rest for word, _, rest in lines if word == "loaded"), "")
    version = _NUMBERS.search(loaded.partition("Kernel Module")[2])
    words = {word for word, _, _ in lines}
    return OnHost(
        installed={one[1]: one[2] for one in packages if len(one) == 3 and one[0] == "installed"},
        loaded=version[0] if version else None,
        half="half" in words,
        nouveau="nouveau" in words,
    )


def why_reboot(now: OnHost, installed: str | None, *, told: str | None) -> str | None:
    """Why the host has to reboot for the *installed* package's version; None: it need not.

    *told* is the version that NVML last told.
    """
    if installed is None:
        return None
    version = upstream(installed)
    if now.nouveau:
        return "nouveau has the GPUs until the next boot"
    if now.loaded is not None:
        if now.loaded == version:
            return None
        return f"driver {now.loaded} is loaded, {version} is installed"
    if told == version:
        return None
    return f"driver {told or 'not known'} was loaded, {version} is installed"
