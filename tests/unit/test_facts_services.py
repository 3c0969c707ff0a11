"""Fabric manager, containers, CUDA and updates, by the real scripts on trees."""

from __future__ import annotations

from pathlib import Path

import pytest

from farrier.facts.containers import CdiSpec, ContainerFacts, Containers
from farrier.facts.cuda import Cuda, CudaFacts, Toolkit
from farrier.facts.fabric import Fabric, FabricFacts, Service
from farrier.facts.updates import UpdateFacts, Updates, spared_by
from tests.unit.recorded.tree import Tree


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def test_a_bare_host(tree: Tree) -> None:
    assert tree.ask(Fabric) == FabricFacts()
    assert tree.ask(Containers) == ContainerFacts()
    assert tree.ask(Cuda) == CudaFacts()
    assert tree.ask(Updates) == UpdateFacts()


# systemctl show prints its own order, whatever was asked for.
UNITS = """\
NRestarts=3
Id=nvidia-fabricmanager.service
LoadState=loaded
ActiveState=failed
UnitFileState=enabled

NRestarts=0
Id=nvidia-persistenced.service
LoadState=loaded
ActiveState=active
UnitFileState=static

NRestarts=0
Id=nvlsm.service
LoadState=not-found
ActiveState=inactive
UnitFileState=
"""


def test_a_fabric_manager_that_failed(tree: Tree) -> None:
    tree.prints("systemctl", UNITS)
    tree.prints("nv-fabricmanager", "Fabric Manager version is : 580.95.05\n")
    tree.prints(
        "dpkg-query",
        "package nvidia-fabricmanager-580 580.105.08-1 installed\n"
        "package nvlsm 2025.06.11-1 installed\n",
        1,
    )
    found = tree.ask(Fabric)
    assert found.manager_version == "580.95.05"
    assert found.nvlsm_version == "2025.06.11"
    assert found.manager == Service(
        "nvidia-fabricmanager.service", "loaded", "failed", "enabled", 3
    )
    assert found.persistenced.active == "active"
    assert found.manager.present
    assert not found.nvlsm.present


def test_a_fabric_manager_known_to_dpkg_only(tree: Tree) -> None:
    tree.prints(
        "dpkg-query",
        "package nvidia-fabricmanager  not-installed\n"
        "package nvidia-fabricmanager-580 580.95.05-0ubuntu1 installed\n",
    )
    assert tree.ask(Fabric).manager_version == "580.95.05"
    tree.prints("dpkg-query", "package nvidia-fabricmanager-580 580.95.05-1 config-files\n")
    assert tree.ask(Fabric).manager_version is None


def test_ib_umad(tree: Tree) -> None:
    tree.write("etc/modules-load.d/farrier.conf", "# for nvlsm\nib_umad\n")
    (tree.root / "sys/module/ib_umad").mkdir(parents=True)
    found = tree.ask(Fabric)
    assert found.ib_umad_loaded
    assert found.ib_umad_configured
    tree.write("etc/modules-load.d/farrier.conf", "#ib_umad\nib_umad_other\n")
    assert not tree.ask(Fabric).ib_umad_configured


CDI = """\
cdiVersion: 0.5.0
kind: nvidia.com/gpu
containerEdits:
  mounts:
  - containerPath: /usr/lib/x86_64-linux-gnu/libEGL_nvidia.so.580.95.05
    hostPath: /usr/lib/x86_64-linux-gnu/libEGL_nvidia.so.580.95.05
  - containerPath: /usr/lib/x86_64-linux-gnu/libcuda.so.580.95.05
    hostPath: /usr/lib/x86_64-linux-gnu/libcuda.so.580.95.05
"""


def test_containers(tree: Tree) -> None:
    tree.prints("nvidia-ctk", "NVIDIA Container Toolkit CLI version 1.17.8\ncommit: f202b80a\n")
    for name in ("docker", "podman"):
        tree.program(name, "")
    tree.write("etc/docker/daemon.json", '{"runtimes": {"nvidia": {"path": "…"}}}')
    tree.write("etc/containerd/config.toml", "[plugins.nvidia]")
    tree.write("etc/cdi/nvidia.yaml", CDI)
    tree.write("run/cdi/other.yaml", "kind: vendor.com/net\n")
    tree.write("run/cdi/nvidia two.json", '{"kind": "nvidia.com/gpu"}')
    found = tree.ask(Containers)
    assert found.toolkit == "1.17.8"
    assert found.runtimes == ("docker", "podman")
    assert found.configured == ("docker",)
    assert found.cdi == (
        CdiSpec(f"{tree.root}/etc/cdi/nvidia.yaml", "580.95.05"),
        CdiSpec(f"{tree.root}/run/cdi/nvidia two.json", None),
    )


def test_device_nodes_without_a_link(tree: Tree) -> None:
    """/dev/null (1:3) and /dev/zero (1:5) stand for NVIDIA's nodes."""
    tree.link("dev/nvidia0", "/dev/null")
    tree.link("dev/nvidia-caps/nvidia-cap1", "/dev/zero")
    tree.write("dev/nvidia-notes", "no device")
    tree.link("dev/char/1:3", "../nvidia0")
    assert tree.ask(Containers).dev_char_missing == (f"{tree.root}/dev/nvidia-caps/nvidia-cap1",)


VERSION_JSON = """\
{
   "cuda" : {
      "name" : "CUDA SDK",
      "version" : "13.0.1"
   },
   "cuda_cccl" : {
      "name" : "CUDA C++ Core Compute Libraries",
      "version" : "13.0.85"
   }
}
"""
NVCC = "Cuda compilation tools, release 11.8, V11.8.89\nBuild cuda_11.8.r11.8/compiler.31833905_0\n"


def test_toolkits(tree: Tree) -> None:
    tree.write("usr/local/cuda-13.0/version.json", VERSION_JSON)
    (tree.root / "usr/local/cuda-12.9").mkdir()
    tree.link("usr/local/cuda-13", "cuda-13.0")
    tree.link("usr/local/cuda", "cuda-13")
    tree.write("usr/bin/nvcc", f"#!/bin/sh\necho '{NVCC}'\n").chmod(0o755)
    local = f"{tree.root}/usr/local"
    assert tree.ask(Cuda) == CudaFacts(
        (
            Toolkit("", f"{local}/cuda-12.9"),
            Toolkit("13.0.1", f"{local}/cuda-13.0"),
            Toolkit("11.8.89", f"{tree.root}/usr"),
        ),
        f"{local}/cuda-13.0",
    )


PACKAGES = """\
libcuda1 amd64 580.95.05-1 hold installed
nvidia-smi amd64 580.95.05-1 install installed
libnvidia-ml1 amd64 580.95.05-1 install installed
nvidia-kernel-dkms amd64 580.95.05-1 install config-files
"""


def updating(tree: Tree, settings: str) -> UpdateFacts:
    tree.prints("dpkg-query", PACKAGES)
    tree.program("dpkg", "echo amd64")
    tree.program("unattended-upgrade", "")
    tree.prints("apt-config", settings)
    found: UpdateFacts = tree.ask(Updates)
    return found


ON = 'APT::Periodic::Unattended-Upgrade "1";\n'


def test_what_unattended_upgrades_may_touch(tree: Tree) -> None:
    found = updating(tree, ON + 'Unattended-Upgrade::Package-Blacklist "";\n')
    assert found.unattended_enabled
    assert found.touchable == ("nvidia-smi", "libnvidia-ml1")


@pytest.mark.parametrize(
    ("pattern", "left"),
    [
        ("^nvidia-smi$", ("libnvidia-ml1",)),
        ("nvidia", ("libnvidia-ml1",)),  # from the beginning, as unattended-upgrades compares
        (".*nvidia", ()),
        ("(", ("nvidia-smi", "libnvidia-ml1")),
    ],
)
def test_the_blacklist_is_of_regular_expressions(
    tree: Tree, pattern: str, left: tuple[str, ...]
) -> None:
    line = f'Unattended-Upgrade::Package-Blacklist:: "{pattern}";\n'
    assert updating(tree, ON + line).touchable == left


@pytest.mark.parametrize(
    ("settings", "enabled"),
    [
        ("", False),
        (ON, True),
        ('APT::Periodic::Unattended-Upgrade "0";\n', False),
        ('APT::Periodic::Unattended-Upgrade "always";\n', True),
        (ON + 'APT::Periodic::Enable "0";\n', False),
    ],
)
def test_whether_unattended_upgrades_runs(tree: Tree, settings: str, enabled: bool) -> None:
    assert updating(tree, settings).unattended_enabled is enabled
    tree.prints("systemctl", "masked\n", 1)
    assert not updating(tree, settings).unattended_enabled


FARRIERS = r"""# Written by Farrier's role base.
$nrconf{override_rc}{qr(^engine-.+\.service$)} = 0;
$nrconf{override_rc}{qr(^nginx\.service$)} = 0;
$nrconf{override_rc}{qr(^farrier-.+\.service$)} = 0;
"""


@pytest.mark.parametrize(
    ("config", "ubuntu", "mode"),
    [
        ("#$nrconf{restart} = 'l';\n", False, "i"),
        ("#$nrconf{restart} = 'l';\n", True, "a"),
        ("$nrconf{restart} = 'l';\n", True, "l"),
        ("$nrconf{restart} = \"l\";\n$nrconf{'restart'}='a';\n", False, "a"),
    ],
)
def test_needrestarts_mode(tree: Tree, config: str, ubuntu: bool, mode: str) -> None:
    tree.program("needrestart", "")
    tree.write("etc/needrestart/needrestart.conf", config)
    if ubuntu:
        tree.write("etc/apt/apt.conf.d/99needrestart", "… apt-pinvoke -m u || true")
    found = tree.ask(Updates)
    assert found.needrestart == mode
    assert not found.needrestart_spares


def test_needrestart_taught(tree: Tree) -> None:
    tree.program("needrestart", "")
    tree.write("etc/needrestart/conf.d/farrier.conf", FARRIERS)
    assert tree.ask(Updates).needrestart_spares


@pytest.mark.parametrize(
    ("config", "spared"),
    [
        ("$nrconf{override_rc}{qr(^engine-)} = 0;", True),
        ("    qr(^engine-) => 0,", True),
        ("    qr(^(nginx|engine-)) => 0,", True),
        ("    qr{^engine-} => 0,", True),
        ("    'engine-a.service' => 0,", True),
        ("    qr(^engine-) => 1,", False),
        ("    qr(^engine$) => 0,", False),
        ("    qr((broken) => 0,", False),
        ("", False),
    ],
)
def test_who_is_spared(config: str, spared: bool) -> None:
    assert spared_by(config, "engine-a.service") is spared


def test_a_reboot_that_is_asked_for(tree: Tree) -> None:
    tree.write("run/reboot-required", "*** System restart required ***\n")
    tree.write("run/reboot-required.pkgs", "linux-image-6.1.0-57-amd64\nlibc6\nlibc6\n")
    found = tree.ask(Updates)
    assert found.reboot_required
    assert found.reboot_because == ("libc6", "linux-image-6.1.0-57-amd64")
