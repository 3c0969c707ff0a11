"""All rules, in the order in which reasons of the same weight are told."""

from __future__ import annotations

from collections.abc import Iterable

from farrier_agent.health import (
    rules_clocks,
    rules_host,
    rules_links,
    rules_memory,
    rules_nvml,
    rules_xid,
)
from farrier_agent.health.rule import Rule

__all__ = ["BY_NAME", "RULES", "observing"]

RULES: tuple[Rule, ...] = (
    *rules_nvml.RULES,
    *rules_memory.RULES,
    *rules_xid.RULES,
    *rules_links.RULES,
    *rules_clocks.RULES,
    *rules_host.RULES,
)
BY_NAME = {rule.name: rule for rule in RULES}


def observing(names: Iterable[str]) -> frozenset[str]:
    """*names* of rules that only observe. Raises ValueError for one that is no rule's."""
    strange = sorted(set(names) - BY_NAME.keys())
    if strange:
        raise ValueError(
            f"observe_only: no rule is named {', '.join(strange)} (known: {', '.join(BY_NAME)})"
        )
    return frozenset(names)
