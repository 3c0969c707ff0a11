"""What changes the driver, or restarts engines, while nobody looks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from farrier.preflight.rules.driver import BOTH
from farrier.preflight.verdict import Code, Reason

if TYPE_CHECKING:
    from collections.abc import Iterator

    from farrier.preflight.found import Case

__all__ = ["CODES", "RULES"]

UNATTENDED = Code(
    "unattended-upgrades",
    "warn",
    "unattended-upgrades runs and would upgrade the driver: its libraries change under running"
    " engines, and nothing new starts until a reboot.",
    "apt-mark hold {packages}",
)
NEEDRESTART = Code(
    "needrestart",
    "warn",
    "needrestart restarts services after upgrades of libraries, engines included, without being"
    " asked.",
    "mkdir -p {etc}/needrestart/conf.d; echo '$nrconf{{override_rc}}{{qr(^(engine-|nginx|"
    "farrier-agent))}} = 0;' > {etc}/needrestart/conf.d/farrier.conf",
)
REBOOT_REQUIRED = Code(
    "reboot-required",
    "warn",
    "Upgraded packages ask for a reboot (/run/reboot-required).",
    "systemctl reboot",
)


def unattended(case: Case) -> Iterator[Reason]:
    """unattended-upgrades leaves the driver alone."""
    updates = case.found.updates
    if updates is None or not case.wanted.cuda:
        return
    if not updates.unattended_enabled or not updates.touchable:
        return
    names = ", ".join(updates.touchable[:4]) + (", …" if len(updates.touchable) > 4 else "")
    told = f"unattended-upgrades would upgrade the driver under running engines: {names}"
    if case.wanted.driver.brings:
        yield UNATTENDED.left_to(BOTH, case.host, told)
    else:
        yield UNATTENDED.reason(told, packages=" ".join(updates.touchable))


def needrestart(case: Case) -> Iterator[Reason]:
    """needrestart leaves engines alone; in a converge the role base teaches it."""
    updates = case.found.updates
    if updates is None or updates.needrestart in {None, "l"} or updates.needrestart_spares:
        return
    how = {"a": "by itself", "i": "when told to"}.get(updates.needrestart or "", "by itself")
    yield NEEDRESTART.reason(
        f"needrestart restarts engines {how} after upgrades of libraries",
        deploys=("llm",),
        etc=case.wanted.spec.roots.etc,
    )


def reboot(case: Case) -> Iterator[Reason]:
    """No reboot that is owed."""
    updates = case.found.updates
    if updates is not None and updates.reboot_required:
        because = f" ({', '.join(updates.reboot_because)})" if updates.reboot_because else ""
        yield REBOOT_REQUIRED.reason(f"upgraded packages ask for a reboot{because}")


CODES = (UNATTENDED, NEEDRESTART, REBOOT_REQUIRED)
RULES = (unattended, needrestart, reboot)
