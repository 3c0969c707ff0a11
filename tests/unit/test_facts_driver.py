"""The driver: loaded, on the disk, in dpkg, and what nvidia-smi says of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from farrier.facts.driver import SMI_TIMEOUT, Driver, DriverFacts, GpuSeen, Module, Package, parse
from farrier.facts.packages import parse_packages
from tests.unit.recorded.tree import Tree

# /proc/driver/nvidia/version of both modules, as NVIDIA's README ("Open Linux Kernel Modules")
# and users' reports show it.
OPEN = (
    "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.95.05  Release Build"
    "  (dvs-builder@U22-I3-AM02-24-3)  Tue Sep 23 09:55:41 UTC 2025\n"
    "GCC version:  gcc version 12.2.0 (Debian 12.2.0-14+deb12u1)\n"
)
PROPRIETARY = (
    "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.309.01  Thu Mar  5 01:23:45 UTC 2026\n"
    "GCC version:  gcc version 12.2.0 (Debian 12.2.0-14+deb12u1)\n"
)
ARM = "NVRM version: NVIDIA UNIX Open Kernel Module for aarch64  580.65.06  Release Build  (x@y)\n"
EIGHT = "".join(
    f"{number}, GPU-{number:08x}-1111-2222-3333-444444444444, NVIDIA H100 80GB HBM3, 81559,"
    f" 00000000:{0x1B + number:02X}:00.0\n"
    for number in range(8)
)


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def test_a_bare_host(tree: Tree) -> None:
    assert tree.ask(Driver) == DriverFacts()


@pytest.mark.parametrize(
    ("text", "version", "flavour"),
    [
        (OPEN, "580.95.05", "open"),
        (PROPRIETARY, "535.309.01", "proprietary"),
        (ARM, "580.65.06", "open"),
    ],
)
def test_the_loaded_module(tree: Tree, text: str, version: str, flavour: str) -> None:
    tree.write("proc/driver/nvidia/version", text)
    found = tree.ask(Driver)
    assert (found.loaded, found.loaded_flavour) == (version, flavour)


def test_a_module_without_its_file_in_proc_is_loaded_all_the_same(tree: Tree) -> None:
    tree.write("sys/module/nvidia/version", "580.95.05\n")
    found = tree.ask(Driver)
    assert (found.loaded, found.loaded_flavour) == ("580.95.05", None)


def test_modules_per_kernel(tree: Tree) -> None:
    tree.program(
        "modinfo",
        "case $2,$3 in version,*9-amd64*) echo 535.261.03;; version,*) echo 580.95.05;;"
        " license,*9-amd64*) echo NVIDIA;; license,*) echo 'Dual MIT/GPL';; esac",
    )
    tree.write("modules/6.1.0-9-amd64/updates/dkms/nvidia-current.ko")
    tree.write("modules/6.1.0-9-amd64/updates/dkms/nvidia-current-drm.ko")
    tree.write("modules/6.1.0-9-amd64/kernel/drivers/video/fbdev/nvidia/nvidiafb.ko")
    tree.write("modules/6.8.0-45-generic/kernel/nvidia-580-open/nvidia.ko.zst")
    tree.write("modules/6.1.0-56-amd64/kernel/drivers/i2c/busses/i2c-nvidia-gpu.ko")
    assert tree.ask(Driver).modules == {
        "6.1.0-9-amd64": Module("535.261.03", "proprietary"),
        "6.8.0-45-generic": Module("580.95.05", "open"),
    }


def test_a_module_that_was_built_here_comes_before_one_of_the_kernels() -> None:
    prebuilt = "module K|580.95.05|Dual MIT/GPL|/lib/modules/K/kernel/nvidia-580/nvidia.ko"
    built = "module K|570.211.01|NVIDIA|/lib/modules/K/updates/dkms/nvidia.ko"
    for lines in ([prebuilt, built], [built, prebuilt]):
        assert parse(lines).modules == {"K": Module("570.211.01", "proprietary")}


def test_modules_where_there_is_no_modinfo(tree: Tree) -> None:
    tree.write("modules/6.1.0-9-amd64/updates/dkms/nvidia.ko.xz")
    assert tree.ask(Driver).modules == {"6.1.0-9-amd64": Module("", "")}


def test_the_library_by_way_of_debians_alternatives(tree: Tree) -> None:
    lib = "usr/lib/x86_64-linux-gnu"
    tree.write(f"{lib}/nvidia/current/libcuda.so.535.309.01")
    tree.link(f"{lib}/nvidia/current/libcuda.so.1", "libcuda.so.535.309.01")
    tree.link("etc/alternatives/glx--libcuda.so.1", tree.root / lib / "nvidia/current/libcuda.so.1")
    tree.link(f"{lib}/libcuda.so.1", tree.root / "etc/alternatives/glx--libcuda.so.1")
    assert tree.ask(Driver).library == "535.309.01"


def test_the_library_without_cuda_and_one_that_dangles(tree: Tree) -> None:
    tree.write("usr/lib/aarch64-linux-gnu/libnvidia-ml.so.580.95.05")
    tree.link("usr/lib/aarch64-linux-gnu/libnvidia-ml.so.1", "libnvidia-ml.so.580.95.05")
    tree.link("usr/lib/aarch64-linux-gnu/libcuda.so.1", "libcuda.so.580.95.05")
    assert tree.ask(Driver).library == "580.95.05"


def test_nvidias_own_installer(tree: Tree) -> None:
    tree.write("usr/bin/nvidia-uninstall").chmod(0o755)
    assert tree.ask(Driver).runfile


def test_eight_gpus(tree: Tree) -> None:
    tree.write("proc/driver/nvidia/version", OPEN)
    tree.prints("nvidia-smi", EIGHT)
    found = tree.ask(Driver)
    assert len(found.gpus) == 8
    assert found.gpus[0] == GpuSeen(
        0,
        "GPU-00000000-1111-2222-3333-444444444444",
        "NVIDIA H100 80GB HBM3",
        81559,
        "0000:1b:00.0",
    )
    assert found.smi_error == ""


def test_a_gpu_that_shares_its_memory_has_no_number(tree: Tree) -> None:
    tree.write("proc/driver/nvidia/version", OPEN)
    tree.prints("nvidia-smi", "0, GPU-1, NVIDIA GB10, [N/A], 0000000F:01:00.0\n")
    assert tree.ask(Driver).gpus == (GpuSeen(0, "GPU-1", "NVIDIA GB10", None, "000f:01:00.0"),)


def test_nvidia_smi_is_not_asked_while_nothing_is_loaded(tree: Tree) -> None:
    """It would load the module."""
    tree.program("nvidia-smi", f"touch {tree.root}/asked")
    assert tree.ask(Driver).smi_error == ""
    assert not (tree.root / "asked").exists()


def test_libraries_that_do_not_fit_the_module(tree: Tree) -> None:
    tree.write("proc/driver/nvidia/version", OPEN)
    tree.prints(
        "nvidia-smi",
        "Failed to initialize NVML: Driver/library version mismatch\n"
        "NVML library version: 580.126\n",
        18,
    )
    found = tree.ask(Driver)
    assert found.gpus == ()
    assert found.smi_error == (
        "Failed to initialize NVML: Driver/library version mismatch NVML library version: 580.126"
    )


def test_an_nvidia_smi_that_hangs(tree: Tree) -> None:
    """timeout's own part is taken here by a stand-in that gives up at once, with timeout's 124."""
    tree.write("proc/driver/nvidia/version", OPEN)
    tree.prints("nvidia-smi", EIGHT)
    (tree.root / "bin/timeout").unlink()
    tree.program("timeout", "exit 124")
    found = tree.ask(Driver)
    assert found.gpus == ()
    assert found.smi_error == f"nvidia-smi did not answer within {SMI_TIMEOUT} seconds"


def test_an_nvidia_smi_that_fails_without_a_word() -> None:
    assert parse(["smi 9", "gpu "]).smi_error == "nvidia-smi ended with status 9 and said nothing"


DPKG = """\
libcuda1 amd64 580.95.05-1 install installed
libcuda1 i386 580.95.05-1 install installed
nvidia-kernel-open-dkms amd64 580.95.05-1 hold half-configured
nvidia-smi amd64 535.309.01-1 deinstall config-files
nvidia-fabricmanager-580 amd64  unknown not-installed
nvidia-container-toolkit amd64 1.17.8-1 install installed
libnvidia-container1 amd64 1.17.8-1 install installed
nvidia-cuda-toolkit amd64 11.8.89 install installed
bash amd64 5.2 install installed
"""
FILES = """\
Package files:
 100 /var/lib/dpkg/status
     release a=now
 600 https://developer.download.nvidia.com/compute/cuda/repos/debian12/x86_64  Packages
     release o=NVIDIA,l=NVIDIA CUDA,c=
     origin developer.download.nvidia.com
 500 http://deb.debian.org/debian bookworm/non-free amd64 Packages
     release v=12.13,o=Debian,a=oldstable,n=bookworm,l=Debian,c=non-free,b=amd64
     origin deb.debian.org
Pinned packages:
"""
POLICY = """\
libcuda1:
  Installed: 580.95.05-1
  Candidate: 580.95.05-1
  Version table:
 *** 580.95.05-1 600
        600 https://developer.download.nvidia.com/compute/cuda/repos/debian12/x86_64  Packages
        100 /var/lib/dpkg/status
     535.309.01-1 500
        500 http://deb.debian.org/debian bookworm/non-free amd64 Packages
nvidia-kernel-open-dkms:
  Installed: 580.95.05-1
  Candidate: 580.105.08-1
  Version table:
     580.105.08-1 600
        600 https://developer.download.nvidia.com/compute/cuda/repos/debian12/x86_64  Packages
 *** 580.95.05-1 100
        100 /var/lib/dpkg/status
"""


def test_packages_with_holds_and_origins(tree: Tree) -> None:
    tree.write("said/dpkg", DPKG)
    tree.program("dpkg-query", f"cat {tree.root}/said/dpkg")
    tree.program("dpkg", "echo amd64")
    tree.write("said/files", FILES)
    tree.write("said/policy", POLICY)
    tree.program(
        "apt-cache", f"[ $# -gt 1 ] && cat {tree.root}/said/policy || cat {tree.root}/said/files"
    )
    assert tree.ask(Driver).packages == (
        Package("libcuda1", "580.95.05-1", origin="nvidia"),
        Package("libcuda1:i386", "580.95.05-1", origin="nvidia"),
        # Installed, and no longer on offer anywhere.
        Package("nvidia-kernel-open-dkms", "580.95.05-1", "half-configured", True, "local"),
        Package("nvidia-smi", "535.309.01-1", "config-files"),
    )


def test_a_mirror_is_known_by_what_its_release_file_says() -> None:
    mirrored = [
        line.replace("developer.download.nvidia.com", "mirror")
        for line in (
            *(f"file {line}" for line in FILES.splitlines()),
            *(f"policy {line}" for line in POLICY.splitlines()),
        )
    ]
    package = "package libcuda1 amd64 580.95.05-1 install installed"
    assert parse_packages(["architecture amd64", package, *mirrored])[0].origin == "nvidia"


def test_garbage() -> None:
    assert parse(["nvrm", "nvrm Kernel Module", "module a|b", "smi x", "library x", "sysfs -"]) == (
        DriverFacts()
    )
