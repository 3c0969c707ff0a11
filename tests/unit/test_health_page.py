"""docs/health.md says what the rules say, and names commands that there are."""

from __future__ import annotations

import re

from farrier_agent.health.rules import RULES

from farrier.verdicts import PAGE, page


def test_the_page_is_as_the_rules_say() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run: make docs"


def test_every_rule_has_one_row_with_its_next_step() -> None:
    rows = re.findall(r"^\| `([\w-]+)` \| (.*) \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    told = {name: cells for name, cells in rows if name in {rule.name for rule in RULES}}
    assert len(told) == len(RULES)
    for rule in RULES:
        assert f"| {rule.step.next} |" in told[rule.name]
        assert ("| drains |" in told[rule.name]) == rule.acts
        assert ("**latched**" in told[rule.name]) == rule.latched
