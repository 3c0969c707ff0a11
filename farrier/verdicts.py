"""docs/health.md: every rule of health, what it means and what to do, made from the agent's rules.

``python -m farrier.verdicts`` writes it; with ``--check`` nothing is written, and the exit code is
1 unless the page is right.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from farrier_agent.health.deciding import CALM
from farrier_agent.health.rule import Rule
from farrier_agent.health.rules import RULES
from farrier_agent.health.steps import shown
from farrier_agent.health.xids import ANNOUNCEMENT, BURST, CLASSES, KEPT, XidClass

from farrier.generated import row, writing

__all__ = ["PAGE", "page"]

PAGE = Path(__file__).parents[1] / "docs" / "health.md"

_SEEN = (
    (
        "a reason with a next step",
        "type its line, as root. `systemctl stop` of an engine waits for its requests",
    ),
    (
        "*latched*, and you have dealt with it in another way",
        "`farrier-agent ack` (all that is latched), or `farrier-agent ack RULE GPU` (a uuid, or an"
        " index)",
    ),
    (
        "`gpu-missing` of a GPU that was taken out for good",
        "`farrier-agent ack gpu-missing GPU`: it is forgotten",
    ),
    (
        "*held back*",
        "the replica is open on a sick GPU, because nobody else serves its model: bring up another "
        "one, then `farrier-agent drain REPLICA`",
    ),
    (
        "a replica that has to serve, whatever its GPU says",
        "`farrier-agent ready REPLICA`: you are not contradicted until another reason comes",
    ),
    (
        "`unknown`",
        "nobody knows: nothing was drained for it, nothing is taken back. Look at `nvml-…` first",
    ),
    (
        "a rule that is wrong on your hosts",
        "its name in `observe_only` of agent.toml: it says the same, and drains nothing",
    ),
)

_HEAD = """\
<!-- Written by `make docs` from farrier/verdicts.py and the agent's rules: change it there. -->
# GPU health

**Woken up by it?** `farrier-agent status` on the host names the reason, one next step and the line
to type. Do that one thing; the line names the GPU by its uuid, so it is the right one even when
indices have moved. Then:

| you see | do |
|---|---|
{seen}

## How verdicts come about

A host, each GPU and each replica is `healthy`, `degraded`, `unknown` or `unhealthy`: the worst of
its reasons, in this order. A replica has its own reasons and those of its GPUs, the host has all.

- **A fault counts** after as many looks in a row as its rule says (one look each tick), and for as
  long as it says. Most need one or two; a fault that is there when the agent starts counts as well.
- **It is over** after as many looks that found all well, or, where it is *latched*, when a reset or
  reboot was seen and the GPU answers and wants nothing more. A reset is seen by counters that begin
  anew (energy; where there is none, the seconds of clock events), or by XID {announcement} that
  says *none*; a reboot by its boot id.
- **What is not seen neither sets nor clears anything.** Stale data are a reason of their own.
- **What outlives** a restart of the agent and a reboot: faults that hold, acknowledgements, and the
  fatal XIDs of the last {kept:.0f} days (`/var/lib/farrier/agent/health.json`).

## What is done by itself

An unhealthy GPU drains the replicas that use it, and no others, for rules marked *drains*. Nothing
is reset, rebooted or restarted for it. Before a drain the agent asks the other hosts of that model
whether anyone serves it; hosts that are about to drain themselves do not count. If nobody does, and
the replica still answers, it stays open and says so. When no reason to drain holds any more and
nothing is unknown for {calm:.0f} s (twice as long with every time within an hour), the replica is
warmed up and taken back, unless somebody else wants it closed as well.

A replica that is wedged or failed is restarted by the agent for its own sake: see
[architecture.md](architecture.md).
"""

_XIDS_HEAD = """\
## XIDs

What NVIDIA's catalog says to do at once. XIDs within {burst:.0f} minutes of the first one are one
incident. Others are counted and give no verdict.

| XIDs | rule |
|---|---|
"""

_XIDS_TAIL = (
    "| 48 | `xid-reset`, unless XID 63 or 94 stands beside it, or the driver tells its recovery "
    "action: that decides then |\n"
    "| 144 to 150, fatal | `xid-reset` |\n"
    f"| {ANNOUNCEMENT} | `gpu-recovery-action`: the action that it announces |\n"
)

_RULE_OF: dict[XidClass, str] = {
    "app": "`xid-app-repeated`, when it happens often; 45 is also what a killed program leaves",
    "reset": "`xid-reset`",
    "reboot": "`xid-reboot`",
    "power": "`xid-power`",
    "software": "`xid-software`",
    "link": "`xid-link`",
}


def page() -> str:
    """The page, from what the rules say about themselves."""
    seen = "\n".join(f"| {what} | {do} |" for what, do in _SEEN)
    parts = [
        _HEAD.format(seen=seen, announcement=ANNOUNCEMENT, kept=KEPT / 86400, calm=CALM),
        "## Rules\n",
    ]
    for state in ("unhealthy", "unknown", "degraded"):
        parts += [
            f"### {state}\n",
            "| rule | when | after | next step | | drains | over after |",
            "|---|---|---|---|---|---|---|",
            *(_row(rule) for rule in RULES if rule.state == state),
            "",
        ]
    xids = [f"| {_numbers(CLASSES[kind])} | {rule} |" for kind, rule in _RULE_OF.items()]
    parts.append(_XIDS_HEAD.format(burst=BURST / 60) + "\n".join(xids) + "\n" + _XIDS_TAIL)
    return "\n".join(parts)


def _row(rule: Rule) -> str:
    command = shown(rule.step)
    cells = (
        f"`{rule.name}`",
        rule.when,
        _after(rule),
        rule.step.next,
        f"`{command}`" if command else "",
        "drains" if rule.acts else "",
        ("**latched**: " if rule.latched else "") + rule.clears,
    )
    return row(cells)


def _after(rule: Rule) -> str:
    looks = "1 look" if rule.looks == 1 else f"{rule.looks} looks"
    return f"{looks}, {rule.seconds:.0f} s" if rule.seconds else looks


def _numbers(numbers: Iterable[int]) -> str:
    """Numbers in order, three or more in a row as a range."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    told: list[str] = []
    for run in runs:
        told += [f"{run[0]} to {run[-1]}"] if len(run) > 2 else [str(number) for number in run]
    return ", ".join(told)


main = writing(PAGE, page, "the rules")

if __name__ == "__main__":
    main()
