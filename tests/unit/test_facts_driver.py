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
        'case $1 in *9-amd64*) v=535.261.03 l=NVIDIA;; *) v=580.95.05 l="Dual MIT/GPL";; esac\n'
        'echo "filename:       $1"; echo "version:        $v"; echo "supported:      external"\n'
        'echo "license:        $l"; echo "srcversion:     0123"',
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
    prebuilt = (
        "module K|version: 580.95.05 license: Dual MIT/GPL |/lib/modules/K/kernel/x/nvidia.ko"
    )
    built = "module K|license: NVIDIA version: 570.211.01 |/lib/modules/K/updates/dkms/nvidia.ko"
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
NVIDIAS = "developer.download.nvidia.com_compute_cuda_repos_debian12_x86%5f64_InRelease"
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
    tree.write(f"var/lib/apt/lists/{NVIDIAS}", "-----BEGIN PGP\n\nOrigin: NVIDIA\nLabel: x\n")
    tree.prints("apt-cache", POLICY)
    assert tree.ask(Driver).packages == (
        Package("libcuda1", "580.95.05-1", origin="nvidia"),
        Package("libcuda1:i386", "580.95.05-1", origin="nvidia"),
        # Installed, and no longer on offer anywhere.
        Package("nvidia-kernel-open-dkms", "580.95.05-1", "half-configured", True, "local"),
        Package("nvidia-smi", "535.309.01-1", "config-files"),
    )


@pytest.mark.parametrize(
    ("file", "release", "origin"),
    [
        ("https://mirror/x_y/x86_64  Packages", "mirror_x%5fy_x86%5f64_InRelease", "nvidia"),
        ("https://mirror/x_y/x86_64  Packages", "", ""),
        ("https://developer.download.nvidia.com/x86_64  Packages", "", "nvidia"),
        ("https://me:word@mirror/deb/ trixie/non-free amd64 Packages",
         "mirror_deb_dists_trixie_Release", "nvidia"),
        ("file:/srv/packages ./ Packages", "", "local"),
        ("/var/lib/dpkg/status", "", "local"),
    ],
)  # fmt: skip
def test_where_a_package_is_from(file: str, release: str, origin: str) -> None:
    """A mirror is known by the Origin in its Release file."""
    lines = [
        "architecture amd64",
        "package libcuda1 amd64 1 install installed",
        f"release {release}:Origin: NVIDIA",
        "policy libcuda1:",
        "policy   Version table:",
        "policy  *** 1 500",
        f"policy         500 {file}",
    ]
    assert parse_packages(lines)[0].origin == origin


def test_garbage() -> None:
    assert parse(["nvrm", "nvrm Kernel Module", "module a|b", "smi x", "library x", "sysfs -"]) == (
        DriverFacts()
    )
