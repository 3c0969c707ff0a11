"""Kernels: what keeps NVIDIA's module out of the running one, or of the one of the next boot."""

from __future__ import annotations

from typing import TYPE_CHECKING

from farrier.preflight.rules.driver import BOTH, installed_packages
from farrier.preflight.verdict import Code, Reason

if TYPE_CHECKING:
    from collections.abc import Iterator

    from farrier.facts.kernel import Kernel, KernelFacts
    from farrier.preflight.found import Case

__all__ = ["CODES", "RULES"]

NOUVEAU_LOADED = Code(
    "nouveau-loaded",
    "refuse",
    "The kernel's own driver nouveau has the GPUs: NVIDIA's module cannot take them until a reboot"
    " without it.",
    "mkdir -p {etc}/modprobe.d; printf 'blacklist nouveau\\noptions nouveau modeset=0\\n'"
    " > {etc}/modprobe.d/no-nouveau.conf;"
    " update-initramfs -u; systemctl reboot",
)
NOUVEAU_ALLOWED = Code(
    "nouveau-allowed",
    "warn",
    "Nothing keeps nouveau from taking the GPUs at the next boot.",
    "mkdir -p {etc}/modprobe.d; printf 'blacklist nouveau\\noptions nouveau modeset=0\\n'"
    " > {etc}/modprobe.d/no-nouveau.conf;"
    " ! command -v update-initramfs || update-initramfs -u",
)
HEADERS_MISSING = Code(
    "headers-missing",
    "warn",
    "The headers of the running kernel, or of the one that the next boot runs, are not installed:"
    " no module can be built for it.",
    "apt-get install -y linux-headers-{kernel}",
)
DKMS_NOT_BUILT = Code(
    "dkms-not-built",
    "refuse",
    "DKMS has not built the driver's module for the running kernel (refused while no driver is"
    " loaded), or for the newest one: after the next boot there is no driver.",
    "dkms autoinstall -k {kernel}",
)
SECURE_BOOT = Code(
    "secure-boot",
    "refuse",
    "Secure Boot is on, and the key that DKMS signs with is not enrolled: the kernel refuses the"
    " module. The firmware asks for the password at the next boot, at the console.",
    "mokutil --import {key} && systemctl reboot",
)


def _name(kernel: Kernel, facts: KernelFacts) -> str:
    return "the running kernel" if kernel.release == facts.running else "the newest kernel"


def _kernels(facts: KernelFacts) -> tuple[Kernel, ...]:
    """The running and the newest one; a container's running kernel is another machine's."""
    running = None if facts.container else facts.kernel(facts.running)
    return tuple({one.release: one for one in (running, facts.newest) if one}.values())


def nouveau(case: Case) -> Iterator[Reason]:
    """Not in the kernel, and kept from the next boot's."""
    kernel = case.found.kernel
    if kernel is None or not case.wanted.cuda or not case.gpus or case.loaded:
        return
    etc = case.wanted.spec.roots.etc
    brings = case.wanted.driver.brings
    if kernel.nouveau_loaded:
        yield NOUVEAU_LOADED.reason(
            "the kernel's driver nouveau has the GPUs",
            severity="warn" if brings else "refuse",
            deploys=BOTH if brings else (),
            etc=etc,
        )
    elif not kernel.nouveau_blacklisted:
        told = "nothing keeps the kernel's driver nouveau from taking the GPUs at the next boot"
        if brings:
            yield NOUVEAU_ALLOWED.left_to(BOTH, case.host, told)
        else:
            yield NOUVEAU_ALLOWED.reason(told, etc=etc)


def headers(case: Case) -> Iterator[Reason]:
    """For the running and the newest kernel, where modules are built on the host."""
    kernel, driver = case.found.kernel, case.found.driver
    if kernel is None or driver is None or not case.wanted.cuda:
        return
    brings = case.wanted.driver.brings
    if not kernel.dkms_installed and not (brings and not case.driver):
        return
    for one in _kernels(kernel):
        if one.headers:
            continue
        told = f"no headers for {_name(one, kernel)} {one.release}: no module can be built for it"
        if brings:
            yield HEADERS_MISSING.left_to(BOTH, case.host, told)
        else:
            yield HEADERS_MISSING.reason(told, kernel=one.release)


def built(case: Case) -> Iterator[Reason]:
    """The module of a DKMS driver for both kernels."""
    kernel, driver = case.found.kernel, case.found.driver
    if kernel is None or driver is None or not case.wanted.cuda:
        return
    if not any("dkms" in one.name for one in installed_packages(driver)):
        return
    for one in _kernels(kernel):
        states = {key: state for key, state in one.dkms.items() if key.startswith("nvidia")}
        ready = one.release in driver.modules and set(states.values()) <= {"installed"}
        if ready or not one.headers:
            continue
        told = ", ".join(f"{key}: {state}" for key, state in states.items()) or "not even added"
        urgent = one.release == kernel.running and not case.loaded
        reason = f"no module of the driver for {_name(one, kernel)} {one.release} (DKMS: {told})"
        if case.wanted.driver.brings:
            yield DKMS_NOT_BUILT.left_to(BOTH, case.host, reason)
        else:
            yield DKMS_NOT_BUILT.reason(
                reason, severity="refuse" if urgent else "warn", kernel=one.release
            )


def secure_boot(case: Case) -> Iterator[Reason]:
    """Signed with a key that the firmware knows."""
    kernel = case.found.kernel
    if kernel is None or not case.wanted.cuda or case.loaded or not kernel.secure_boot:
        return
    to_come = case.wanted.driver.brings and case.driver is None
    if kernel.mok_enrolled or not (kernel.dkms_installed or to_come):
        return
    told = "Secure Boot is on, and the firmware does not know the key that DKMS signs with"
    if to_come:
        told += ", which it makes when it builds the driver: the module loads only after that"
    yield SECURE_BOOT.reason(
        told,
        severity="warn" if to_come else "refuse",
        key="/var/lib/dkms/mok.pub" if case.debian else "/var/lib/shim-signed/mok/MOK.der",
    )


CODES = (NOUVEAU_LOADED, NOUVEAU_ALLOWED, HEADERS_MISSING, DKMS_NOT_BUILT, SECURE_BOOT)
RULES = (nouveau, headers, built, secure_boot)
