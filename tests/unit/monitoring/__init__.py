"""What the tests of alert rules and dashboards share: the real programs, and what a page has.

The rules' tests for promtool lie beside this file, as YAML that an operator can run by hand after
taking the annotations out of the rules; ``vllm-0.32.0.prom`` is what a real vLLM 0.32.0 served
after three requests, ``haproxy-2.6.12.prom`` what the role's HAProxy did, of what is kept.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from roles.prometheus.rules import RULES, rule_texts

__all__ = [
    "ALERTS",
    "CASES",
    "HAPROXY_PAGE",
    "RECORDS",
    "ROOT",
    "RULE_FILES",
    "VLLM_PAGE",
    "installed_rules",
    "metric_names",
    "names_on",
]

ROOT = Path(__file__).parents[3]
CASES = sorted(Path(__file__).parent.glob("*.yml"))
VLLM_PAGE = (Path(__file__).parent / "vllm-0.32.0.prom").read_text(encoding="utf-8")
HAPROXY_PAGE = (Path(__file__).parent / "haproxy-2.6.12.prom").read_text(encoding="utf-8")
RULE_FILES: dict[str, Any] = {
    path.name: yaml.safe_load(path.read_text(encoding="utf-8")) for path in RULES.glob("*.yml")
}
_RULES = [rule for file in RULE_FILES.values() for one in file["groups"] for rule in one["rules"]]
ALERTS: dict[str, dict[str, Any]] = {rule["alert"]: rule for rule in _RULES if "alert" in rule}
RECORDS: dict[str, str] = {rule["record"]: rule["expr"] for rule in _RULES if "record" in rule}


def installed_rules(directory: Path, *, annotations: bool = True) -> None:
    """Write the rules into *directory* as the role installs them, under their short names."""
    for name, text in rule_texts("https://runbooks.example").items():
        content = yaml.safe_load(text)
        for group in content["groups"]:
            for rule in group["rules"]:
                if not annotations:
                    rule.pop("annotations", None)
        path = directory / name.removeprefix("farrier-")
        path.write_text(yaml.safe_dump(content, allow_unicode=True), encoding="utf-8")


_WORDS = {
    *("and", "or", "unless", "by", "without", "on", "ignoring", "group_left", "group_right"),
    *("bool", "offset", "inf", "nan"),
}


def metric_names(expr: str) -> set[str]:
    """The metrics that a PromQL expression asks for."""
    bare = re.sub(r'"(\\.|[^"\\])*"', '""', expr)
    named = set(re.findall(r"([a-zA-Z_:][\w:]*)\s*\{", bare))
    bare = re.sub(r"\{[^}]*\}|\[[^\]]*\]", " ", bare)
    bare = re.sub(r"\b(by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)", " ", bare)
    found = re.findall(r"(?<![\w:.])([a-zA-Z_:][\w:]*)(?!\s*\()(?![\w:])", bare)
    functions = set(re.findall(r"([a-zA-Z_]\w*)\s*\(", bare))
    return (named | set(found)) - _WORDS - functions


def names_on(page: str) -> set[str]:
    """The names of all samples of a page."""
    lines = (line for line in page.splitlines() if line and not line.startswith("#"))
    return {re.split(r"[{ ]", line, maxsplit=1)[0] for line in lines}
