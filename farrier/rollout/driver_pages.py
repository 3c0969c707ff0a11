"""What a ledger says of drivers and gates, for people. Pure: values in, rich's tables and lines."""

from __future__ import annotations

from collections.abc import Iterator

from rich.table import Table
from rich.text import Text

from farrier.nvidia.planned import upstream
from farrier.rollout.driver_plan import plan_words
from farrier.rollout.ledger import Ledger
from farrier.rollout.records import GateRecord, HostRecord

__all__ = ["driver_lines", "end_lines", "gates_tables"]

_FEW = 4
"""Hosts whose gates are shown although all were passed."""
_PASSED = {
    True: Text("passed", "green"),
    False: Text("FAILED", "bold red"),
    None: Text("not judged", "yellow"),
}


def driver_lines(ledger: Ledger) -> Iterator[Text]:
    """What is planned on each host."""
    for host in ledger.hosts:
        if host.driver is not None:
            for number, line in enumerate(plan_words(host.driver)):
                name = (f"{host.host}", "bold") if number == 0 else (" " * len(host.host), "")
                yield Text.assemble(name, f"  {line}")


def gates_tables(ledger: Ledger) -> Iterator[Table]:
    """The gates of each host; of many hosts only those that did not pass them all."""
    many = sum(bool(host.gates) for host in ledger.hosts) > _FEW
    for host in ledger.hosts:
        for what, gates in (("gates", host.gates), ("gates, put back", host.gates_back)):
            if gates and not (many and all(one.ok for one in gates)):
                yield _table(f"{host.host}  {what}", gates)


def _table(title: str, gates: list[GateRecord]) -> Table:
    table = Table(title=title, title_justify="left")
    for column in ("gate", "expected", "seen", ""):
        table.add_column(column, overflow="fold")
    for one in gates:
        seen = f"{one.seen} ({one.note})" if one.note else one.seen
        table.add_row(one.name, one.expected, seen, _PASSED[one.ok])
    return table


def end_lines(ledger: Ledger) -> Iterator[Text]:
    """Whose gates were passed, and what to write into the inventory, so that it says so."""
    passed = [one for one in ledger.hosts if one.gates and all(gate.ok for gate in one.gates)]
    if len(passed) > _FEW:
        yield Text(f"every gate passed: {', '.join(one.host for one in passed)}")
    by_line: dict[str, list[str]] = {}
    for host in ledger.hosts:
        if (line := _line(host)) is not None:
            by_line.setdefault(line, []).append(host.host)
    for line, hosts in by_line.items():
        yield Text.assemble(
            ("write into the inventory", "bold"), f" of {', '.join(hosts)}: ", (line, "bold")
        )


def _line(host: HostRecord) -> str | None:
    """Only of one that has it: one that was put back has what the inventory says, or had none."""
    plan = host.driver
    if plan is None or host.state != "done" or host.settled or plan.version is None:
        return None
    wanted = upstream(plan.version)
    said = plan.inventory
    if said is not None and (plan.version == said or f"{wanted}.".startswith(f"{upstream(said)}.")):
        return None
    branch = wanted.split(".", 1)[0]
    return f'nvidia_driver_version = "{wanted}", nvidia_driver_branch = "{branch}"'
