"""A stand-in for NVIDIA's kernel module on a lab's host: what is loaded changes with a boot only.

The programs (:data:`HERE`) are POSIX shell and say in their heads what they do; ``driver`` is the
one to begin with. Packages, DKMS and modinfo, from which it takes the version, are real.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

__all__ = ["OPT", "RUN", "files", "roots"]

HERE = Path(__file__).parent
OPT = "/opt/fake-gpu"
"""What a boot leaves as it is: the programs, the bus, and what each version brings with it."""
RUN = "/run/fake-gpu"
"""What the kernel knows, until the next boot."""

_BUS = {"0x2335": "0x030200", "0x22a3": "0x068000"}
"""An H200 (3D controller), and an NVSwitch (other bridge): device and class."""


def roots() -> dict[str, str]:
    """The inventory's ``roots`` of such a host; its /run says that it were no container."""
    return {name: f"{RUN}/{name}" for name in ("sys", "dev", "run")}


def files(gpus: int, switches: int = 0) -> Mapping[str, tuple[bytes, str]]:
    """Path -> content and mode, of everything that a host with so many GPUs needs."""
    gpu, switch = _BUS.items()
    bus = [*_lines(gpu, range(0x18, 0x18 + 8 * gpus, 8)), *_lines(switch, range(5, 5 + switches))]
    programs = {
        f"{OPT}/driver": "driver",
        f"{OPT}/engine": "engine",
        "/usr/local/sbin/modprobe": "modprobe",
        "/usr/local/bin/nvidia-smi": "nvidia-smi",
    }
    return {
        **{path: ((HERE / name).read_bytes(), "755") for path, name in programs.items()},
        f"{OPT}/bus": ("".join(bus).encode(), "644"),
        f"{OPT}/state": (f"count {gpus}\n".encode(), "644"),
        "/etc/systemd/system/fake-driver.service": (
            (HERE / "fake-driver.service").read_bytes(),
            "644",
        ),
    }


def _lines(kind: tuple[str, str], buses: Iterable[int]) -> list[str]:
    """A function of *kind* on each of *buses*."""
    return [f"0000:{bus:02x}:00.0 {kind[0]} {kind[1]}\n" for bus in buses]
