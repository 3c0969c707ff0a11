"""Rules on XIDs: each class of :mod:`.xids`, and what repetition says."""

from __future__ import annotations

from collections.abc import Callable

from farrier_agent.gpus import XidEvent
from farrier_agent.health.rule import FINE, UNSEEN, Found, Look, Rule, Step
from farrier_agent.health.steps import (
    CHECK_LINKS,
    CHECK_POWER,
    INSPECT,
    REBOOT,
    RESET,
    RESTART_REPLICA,
)
from farrier_agent.health.view import View
from farrier_agent.health.xids import XidClass
from farrier_agent.wording import printable

__all__ = ["APP_MOST", "FATAL_DAY", "RULES"]

APP_MOST = 3
"""Incidents of one GPU within an hour that are still no reason."""
FATAL_MOST = 5
"""Fatal incidents of one GPU within FATAL_DAY seconds that are a board's last."""
FATAL_DAY = 86400.0
BOOTS = 3
"""The same fatal XID in so many boots: two reboots did not help."""


def _class(name: str, kind: XidClass) -> Callable[[str | None, View], Look]:
    """A look for XIDs of the class *kind*, for the rule *name*."""

    def look(uuid: str | None, view: View) -> Look:
        events = view.events(name, uuid)
        if events is None or (events and uuid is None and _early(view)):
            return UNSEEN
        if not events:
            return FINE
        # those that count are the last ones of all
        kinds = view.classified(uuid)[-len(events) :]
        for event, its_kind in zip(reversed(events), reversed(kinds), strict=True):
            if its_kind == kind:
                return Found(_text(uuid, event, view), at=event.at)
        return FINE

    return look


def _early(view: View) -> bool:
    """No GPU is known yet, and nothing says that none will be: whose an XID is may show."""
    return not view.known and (view.now.nvml is None or view.now.nvml.kind is None)


def _text(uuid: str | None, event: XidEvent, view: View) -> str:
    whose = view.label(uuid) if uuid else f"GPU at {event.pci_bus_id or 'an unknown place'}"
    line = f": {printable(event.text)[:160]}" if event.text else ""
    return f"{whose}: XID {event.xid}{line}"


def _repeated(uuid: str | None, view: View) -> Look:
    if uuid is None or view.now.xids is None:
        return UNSEEN
    since = view.since("xid-app-repeated", uuid)
    crashes = [one for one in view.crashes.get(uuid, ()) if one.at > since]
    if len(crashes) > APP_MOST:
        text = f"{view.label(uuid)}: more than {APP_MOST} errors of programs within an hour"
        return Found(text, at=crashes[0].at)
    # without the log these are the XIDs of before: that an hour went by says nothing then
    return FINE if view.now.kernel_log_problem is None else UNSEEN


def _contact(uuid: str | None, view: View) -> Look:
    incidents = view.incidents.get(uuid or "", ())
    if uuid is None or not incidents:
        return UNSEEN
    since = view.before.answered.get(f"xid-contact {uuid}", 0.0)
    counted = [one for one in incidents if one.at > since]
    now = view.now.at
    recent = sum(1 for one in counted if now - one.at < FATAL_DAY)
    if recent >= FATAL_MOST:
        return Found(f"{view.label(uuid)}: {FATAL_MOST} fatal errors or more within 24 hours")
    boots: dict[int, set[str]] = {}
    for one in counted:
        for xid in one.xids:
            boots.setdefault(xid, set()).add(one.boot_id)
    again = sorted(xid for xid, where in boots.items() if len(where) >= BOOTS)
    if again:
        return Found(f"{view.label(uuid)}: XID {again[0]} again, after two reboots")
    return FINE


RULES = (
    Rule(
        "xid-reset",
        "unhealthy",
        "an XID after which the GPU has to be reset (table below)",
        RESET,
        known=_class("xid-reset", "reset"),
        acts=True,
        latched=True,
    ),
    Rule(
        "xid-reboot",
        "unhealthy",
        "an XID after which the host has to be rebooted: 79, the GPU fell off the bus, also where "
        "the kernel says so without a number; 151",
        REBOOT,
        known=_class("xid-reboot", "reboot"),
        acts=True,
        latched=True,
    ),
    Rule(
        "xid-power",
        "unhealthy",
        "XID 54: its power cables are not connected as they should be",
        CHECK_POWER,
        known=_class("xid-power", "power"),
        acts=True,
        latched=True,
    ),
    Rule(
        "xid-software",
        "degraded",
        "XID 78: driver and firmware do not fit",
        Step("update the driver (docs/driver.md)"),
        known=_class("xid-software", "software"),
        latched=True,
    ),
    Rule(
        "xid-link",
        "degraded",
        "XID 74, or 144 to 150 that are not fatal: errors on an NVLink",
        CHECK_LINKS,
        known=_class("xid-link", "link"),
        latched=True,
    ),
    Rule(
        "xid-app-repeated",
        "degraded",
        f"more than {APP_MOST} errors of programs within an hour on one GPU; those within 3 "
        "minutes of the first are one",
        RESTART_REPLICA,
        known=_repeated,
        ack=True,
    ),
    Rule(
        "xid-contact",
        "unhealthy",
        f"{FATAL_MOST} fatal incidents within 24 hours on one GPU, or the same fatal XID in "
        f"{BOOTS} boots within 14 days",
        INSPECT,
        known=_contact,
        acts=True,
        latched=True,
        confirmed_by="ack",
    ),
)
