"""The operating system."""

from __future__ import annotations

from typing import TYPE_CHECKING

from farrier.preflight.verdict import Code, Reason

if TYPE_CHECKING:
    from collections.abc import Iterator

    from farrier.preflight.found import Case

__all__ = ["CODES", "PYTHONS", "RULES", "SUPPORTED"]

PYTHONS = {"debian 12": "3.11", "debian 13": "3.13", "ubuntu 22.04": "3.10", "ubuntu 24.04": "3.12"}
"""Their own Python, by system."""
SUPPORTED = frozenset(PYTHONS)
"""Systems that the roles were written for; on the Ubuntus they have not been run yet."""

OS_UNSUPPORTED = Code(
    "os-unsupported",
    "refuse",
    "The host runs a system that the roles do not know: their packages have other names there.",
    "reinstall {host} with Debian 12 or 13, or Ubuntu 22.04 or 24.04; farrier preflight {host}",
    "operator",
)


def supported(case: Case) -> Iterator[Reason]:
    """One of the systems that the roles were written for."""
    if (system := case.basics.system) not in SUPPORTED:
        known = ", ".join(sorted(SUPPORTED))
        yield OS_UNSUPPORTED.reason(
            f"runs {system or 'an unknown system'}; Farrier knows {known}", host=case.host
        )


CODES = (OS_UNSUPPORTED,)
RULES = (supported,)
