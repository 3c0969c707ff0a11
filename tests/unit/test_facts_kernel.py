"""Kernels, DKMS, nouveau and Secure Boot, by the real script on trees and from texts."""

from __future__ import annotations

from pathlib import Path

import pytest

from farrier.facts.kernel import Kernel, KernelFacts, Kernels, parse, parse_dkms
from tests.unit.recorded.tree import Tree

SECURE_BOOT = "sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path, kernel="6.1.0-9-amd64")


def installed(tree: Tree, release: str, *, headers: bool = True, image: bool = True) -> None:
    tree.write(f"modules/{release}/modules.dep")
    if headers:
        tree.write(f"usr/src/linux-headers-{release}/Makefile")
    # Ubuntu's package of modules has the link, whether or not there are headers.
    tree.link(f"modules/{release}/build", tree.root / f"usr/src/linux-headers-{release}")
    if image:
        tree.write(f"boot/vmlinuz-{release}")


def test_kernels_with_and_without_headers(tree: Tree) -> None:
    installed(tree, "6.1.0-56-amd64", headers=False)
    installed(tree, "6.1.0-9-amd64")
    installed(tree, "6.1.0-100-amd64", headers=False, image=False)
    found: KernelFacts = tree.ask(Kernels)
    assert found.running == "6.1.0-9-amd64"
    assert [(one.release, one.headers, one.image) for one in found.kernels] == [
        ("6.1.0-9-amd64", True, True),
        ("6.1.0-56-amd64", False, True),
        ("6.1.0-100-amd64", False, False),
    ]
    # What is left of a removed kernel will not be booted.
    assert found.newest == found.kernel("6.1.0-56-amd64")
    assert found.kernel("6.1.0-1-amd64") is None
    assert not found.dkms_installed
    assert not found.compiler


def test_a_guest_without_images_has_its_newest_directory(tree: Tree) -> None:
    installed(tree, "6.1.0-9-amd64", image=False)
    installed(tree, "6.1.0-56-amd64", image=False)
    newest = tree.ask(Kernels).newest
    assert newest is not None
    assert newest.release == "6.1.0-56-amd64"
    assert KernelFacts().newest is None


def test_the_running_kernel_is_the_kernels_own_word_unless_told(tmp_path: Path) -> None:
    tree = Tree(tmp_path, kernel="")
    tree.write("proc/sys/kernel/osrelease", "6.12.57+deb13-amd64\n")
    assert tree.ask(Kernels).running == "6.12.57+deb13-amd64"


def test_dkms_per_kernel(tree: Tree) -> None:
    installed(tree, "6.1.0-9-amd64")
    installed(tree, "6.1.0-56-amd64")
    tree.prints(
        "dkms",
        "nvidia-current/535.309.01, 6.1.0-9-amd64, x86_64: installed\nzfs/2.1.11: added\n",
    )
    tree.write("usr/bin/x86_64-linux-gnu-gcc-14").chmod(0o755)
    found: KernelFacts = tree.ask(Kernels)
    assert found.dkms_installed
    assert found.compiler
    assert found.kernels == (
        Kernel(
            "6.1.0-9-amd64",
            True,
            True,
            {"zfs/2.1.11": "added", "nvidia-current/535.309.01": "installed"},
        ),
        Kernel("6.1.0-56-amd64", True, True, {"zfs/2.1.11": "added"}),
    )


@pytest.mark.parametrize(
    ("line", "state"),
    [
        ("nvidia, 470.57.02, 6.1.0-9-amd64, x86_64: installed", "installed"),
        ("nvidia/470.57.02, 6.1.0-9-amd64, x86_64: installed", "installed"),
        ("nvidia/470.57.02, 6.1.0-9-amd64, x86_64: built", "built"),
        (
            "nvidia/470.57.02, 6.1.0-9-amd64, aarch64: installed (Original modules exist)",
            "installed",
        ),
        (
            "nvidia, 470.57.02, 6.1.0-9-amd64, x86_64: installed (WARNING! Diff between built and"
            " installed module!) (WARNING! Diff between built and installed module!)",
            "differs",
        ),
    ],
)
def test_dkms_status_of_both_formats(line: str, state: str) -> None:
    assert parse_dkms([line]) == {"6.1.0-9-amd64": {"nvidia/470.57.02": state}}


@pytest.mark.parametrize(
    ("line", "states"),
    [
        ("nvidia, 470.57.02: added", {"": {"nvidia/470.57.02": "added"}}),
        ("nvidia/470.57.02: added", {"": {"nvidia/470.57.02": "added"}}),
        ("nvidia/470.57.02: broken", {"": {"nvidia/470.57.02": "broken"}}),
        ("Error! Could not locate dkms.conf file.", {}),
        ("Deprecated feature: REMAKE_INITRD (/var/lib/dkms/nvidia/470/source/dkms.conf)", {}),
        ("", {}),
    ],
)
def test_dkms_status_of_no_kernel(line: str, states: dict[str, dict[str, str]]) -> None:
    assert parse_dkms([line]) == states


@pytest.mark.parametrize(
    ("value", "secure"), [(b"\6\0\0\0\1", True), (b"\6\0\0\0\0", False), (b"\6", None)]
)
def test_secure_boot(tree: Tree, value: bytes, secure: bool | None) -> None:
    tree.write(SECURE_BOOT, value)
    assert tree.ask(Kernels).secure_boot is secure


def test_without_efi_there_is_no_secure_boot_but_a_container_cannot_tell(tree: Tree) -> None:
    assert tree.ask(Kernels).secure_boot is None
    (tree.root / "sys/firmware").mkdir()
    assert tree.ask(Kernels).secure_boot is False
    tree.write("run/systemd/container", "systemd-nspawn\n")
    found = tree.ask(Kernels)
    assert found.container
    assert found.secure_boot is None


@pytest.mark.parametrize(
    ("said", "status", "enrolled"),
    [
        ("/k.pub is already enrolled", 1, True),
        ("/k.pub is not enrolled", 0, False),
        ("/k.pub is already in the enrollment request", 1, False),
        ("EFI variables are not supported on this system", 1, None),
    ],
)
def test_the_key_that_dkms_signs_with(
    tree: Tree, said: str, status: int, enrolled: bool | None
) -> None:
    tree.prints("mokutil", said + "\n", status)
    assert tree.ask(Kernels).mok_enrolled is None
    tree.write("var/lib/dkms/mok.pub", "key")
    assert tree.ask(Kernels).mok_enrolled is enrolled


def test_a_key_of_the_sites_own(tree: Tree) -> None:
    key = tree.write("root/site.der", "key")
    tree.write("var/lib/dkms/mok.pub", "key")
    tree.write("etc/dkms/framework.conf.d/site.conf", f'#x\nmok_certificate="{key}"\n')
    tree.program("mokutil", 'echo "$2 is already enrolled"')
    assert f"mok {key} is already enrolled" in tree.lines(Kernels)


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("etc/modprobe.d/nvidia.conf", "# from NVIDIA\n  blacklist nouveau\n"),
        ("usr/lib/modprobe.d/a.conf", "install nouveau /bin/false\n"),
        ("usr/lib/modprobe.d/a.conf", "alias nouveau off\n"),
        ("etc/modprobe.d/a.conf", "options nouveau modeset=0\n"),
        ("proc/cmdline", "root=/dev/sda1 modprobe.blacklist=floppy,nouveau quiet\n"),
        ("proc/cmdline", "nouveau.modeset=0\n"),
    ],
)
def test_nouveau_kept_out(tree: Tree, path: str, text: str) -> None:
    tree.write(path, text)
    assert tree.ask(Kernels).nouveau_blacklisted


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("etc/modprobe.d/a.conf", "#blacklist nouveau\nblacklist nouveau_wmi\n"),
        ("etc/modprobe.d/a.conf.disabled", "blacklist nouveau\n"),
        ("etc/modprobe.d/a.conf", "options nouveau modeset=1\n"),
        ("proc/cmdline", "modprobe.blacklist=nouveaux nouveau.modeset=1\n"),
    ],
)
def test_nouveau_not_kept_out(tree: Tree, path: str, text: str) -> None:
    tree.write(path, text)
    assert not tree.ask(Kernels).nouveau_blacklisted


def test_nouveau_loaded(tree: Tree) -> None:
    (tree.root / "sys/module/nouveau").mkdir(parents=True)
    assert tree.ask(Kernels).nouveau_loaded


def test_nothing_said_is_nothing_known() -> None:
    assert parse([]) == KernelFacts()
    assert parse(["installed", "installed a b", "secure-boot", "mok", "dkms", "kernel"]) == (
        KernelFacts()
    )
