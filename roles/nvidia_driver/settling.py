"""What follows from an installed driver: boot images, the module in the kernel, daemons."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyinfra import host

from farrier.converge.commands import Refuse, Script, in_words, last_lines
from farrier.converge.questions import answer
from farrier.converge.report import note
from farrier.converge.typed import operation
from roles.nvidia_driver.guard import MODULES_LOAD, NOUVEAU
from roles.nvidia_driver.look import STATE, Look
from roles.nvidia_driver.operations import decided, look_question, present_plan
from roles.nvidia_driver.plan import module_of, upstream

if TYPE_CHECKING:
    from farrier.converge.commands import Commands
    from farrier.facts.roots import Roots

__all__ = ["settled"]


@operation(asks=look_question)
def settled(needed: bool, roots: Roots) -> Commands:  # noqa: ARG001 - roots is for the question
    """What follows from an installed driver: boot images, daemons, the module in the kernel.

    + needed: whether engines are to be started next: refused where the driver cannot be used yet
    + roots: where facts look
    """
    look: Look | None = answer()
    if look is None or not look.installed or decided("leave"):
        host.noop("there is nothing to settle")
        return
    nothing = True
    if look.own.stale_initramfs:
        nothing = False
        yield Script(
            f"mkdir -p {STATE}\nupdate-initramfs -u -k all\n"
            f"cat {NOUVEAU} 2>/dev/null | sha256sum > {STATE}/initramfs",
            explain=in_words("the boot images still let nouveau take the GPUs"),
        )
    # A container's kernel is another machine's, and what nouveau has it keeps until the next boot.
    loadable = bool(look.pci.gpus) and not (look.kernel.container or look.kernel.nouveau_loaded)
    if loadable and not look.driver.loaded:
        nothing = False
        yield Script(
            "modprobe nvidia\nmodprobe nvidia-uvm || true",
            explain=lambda output: (
                f"the driver is installed, but the kernel does not take it: {last_lines(output, 3)}"
                "\nLook at: dmesg | tail; with Secure Boot: mokutil --import"
                " /var/lib/dkms/mok.pub, then a reboot with somebody at the console"
            ),
        )
    plan = present_plan()
    if plan and plan.wanted.nvlink5 and not look.fabric.ib_umad_configured:
        nothing = False
        yield Script(
            f"echo ib_umad > {MODULES_LOAD}.farrier-new\nmv -f {MODULES_LOAD}.farrier-new"
            f" {MODULES_LOAD}\nmodprobe ib_umad",
            explain=in_words("ib_umad, through which NVLink 5 switches are managed, not loaded"),
        )
    services = [look.fabric.persistenced, look.fabric.manager]
    for service in (one for one in services if one.present):
        if service.enabled not in {"enabled", "static", "alias", "generated"}:
            nothing = False
            yield Script(
                f"systemctl enable {service.name}", explain=in_words(f"{service.name} not enabled")
            )
        if (look.own.device or loadable) and service.active not in {
            "active",
            "activating",
            "reloading",
        }:
            nothing = False
            yield Script(
                f"systemctl reset-failed {service.name} 2>/dev/null || true\n"
                f"systemctl start {service.name}",
                explain=in_words(f"{service.name} not started"),
            )
    for words in _pending(look):
        if needed:
            yield Refuse(
                f"the driver cannot be used yet, and no engine was started: {words}\n"
                "Then run the deploy again"
            )
            return
        note("yours", host.name, words)
    if nothing:
        host.noop("boot images and daemons are as they should be")


def _pending(look: Look) -> list[str]:
    reboot = f"ssh {host.name} sudo systemctl reboot"
    if look.kernel.container and not look.driver.loaded:
        return [
            "this host is a container and runs another machine's kernel: the driver is installed"
            " and built, and nothing can load it here"
        ]
    installed = upstream(look.installed.get(module_of(look.installed) or "", ""))
    if look.kernel.nouveau_loaded:
        return [f"nouveau has the GPUs until the next boot: {reboot}"]
    if look.driver.loaded and look.driver.loaded != installed:
        return [
            f"driver {look.driver.loaded} is loaded, {installed} is installed, and takes over at"
            f" the next boot: {reboot}"
        ]
    return []
