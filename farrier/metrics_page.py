"""docs/metrics.md: every metric of the agent with type, labels and meaning, made from the code.

``python -m farrier.metrics_page`` writes it; with ``--check`` nothing is written, and the exit code
is 1 unless the page is right.
"""

from __future__ import annotations

from pathlib import Path

from farrier_agent.metrics import (
    clocks,
    ecc,
    fingerprint,
    gateway,
    gpus,
    health,
    host,
    links,
    mig,
    nvml,
    processes,
    replicas,
    requests,
    rollouts,
    units,
    xids,
)
from farrier_agent.metrics.family import ALWAYS, Family
from farrier_agent.metrics.page import COLLECTORS

from farrier.generated import row, writing

__all__ = ["PAGE", "SUBJECTS", "page"]

PAGE = Path(__file__).parents[1] / "docs" / "metrics.md"

SUBJECTS: dict[str, tuple[Family, ...]] = {
    "The host and the agent": (*host.FAMILIES, *processes.AGENT),
    "Replicas": replicas.FAMILIES,
    "Requests": requests.FAMILIES,
    "Requests at the gateway": gateway.FAMILIES,
    "Rollouts": rollouts.FAMILIES,
    "The fingerprint": fingerprint.FAMILIES,
    "Verdicts": health.FAMILIES,
    "GPUs": gpus.FAMILIES,
    "Clocks held down": clocks.FAMILIES,
    "Memory errors": ecc.FAMILIES,
    "XIDs": xids.FAMILIES,
    "NVLink and fabric": links.FAMILIES,
    "Who uses GPUs": units.FAMILIES,
    "MIG": mig.FAMILIES,
    "NVML": (*nvml.FAMILIES, *processes.WORKER.values()),
}
"""The parts of the page; every family is in one of them."""

# of one-hot families: the label and its values
_VALUES: dict[str, tuple[str, tuple[str, ...]]] = {
    host.UNIT.name: ("state", host.UNIT_STATES),
    replicas.PHASE.name: ("phase", replicas.PHASES),
    replicas.HEALTH_STATE.name: ("state", replicas.HEALTH),
    health.HOST.name: ("state", health.STATES),
    health.GPU.name: ("state", health.STATES),
    health.REPLICA.name: ("state", health.STATES),
    gpus.PROBLEM.name: ("problem", gpus.PROBLEMS),
    ecc.ACTION.name: ("action", ecc.RECOVERY_ACTIONS),
    links.STATE.name: ("state", links.FABRIC_STATES),
    nvml.PROBLEM.name: ("kind", nvml.PROBLEMS),
}

_HEAD = """\
<!-- Written by `make docs` from agent/farrier_agent/metrics: change it there. -->
# Metrics

What a host's agent serves at `/metrics`, in Prometheus' text format 0.0.4 and in OpenMetrics 1.0,
whichever is asked for. Names, types, units and labels are fixed (`tests/agent/golden/metrics.txt`).

- A value that could not be read has no sample, and a family without a sample is not there: nothing
  is ever 0 because it is unknown. What a GPU or a driver does not have is absent. Data older than
  three ticks are dropped.
- Base units: bytes, seconds, celsius, watts, joules, hertz, ratios from 0 to 1. What ends in
  `_total` is a counter; it begins again at 0 with what counts it: the driver, or the agent.
- Of the labels of a GPU only `uuid` is on its values. The rest is on `farrier_gpu_info`, to be had
  by `* on (instance, uuid) group_left (index, name) farrier_gpu_info`. An index can mean another
  GPU after a reboot, a uuid cannot.
- A family with a state as label is *one-hot*: every state has a sample, 1 for the one that holds.
  So labels never come and go with a state.
- A GPU that was here and is lost keeps `farrier_gpu_up`, with 0, and `farrier_gpu_info`.
- Info and one-hot families are gauges in OpenMetrics too, so that a name has one type.

`/metrics?collect[]=gpu&collect[]=xid` has only what these collectors feed, and how all of them fare
(`farrier_collector_…`). To be chosen: {collectors}.
`health` are the verdicts, `agent` is the agent itself.

A host without a GPU (`accelerator = "cpu"`) has no `farrier_gpu…` and no `farrier_nvml…`.

## Engines' own

The metrics of each replica's engine are on the page too, under the engine's own names
(`vllm:num_requests_running`), with `replica` and `model` as labels.
"""


def page() -> str:
    """The page, from what the families say about themselves."""
    collectors = ", ".join(f"`{name}`" for name in sorted(COLLECTORS))
    lines = [_HEAD.format(collectors=collectors)]
    for title, families in SUBJECTS.items():
        lines += [f"## {title}\n", "| metric | type | labels | meaning | from |"]
        lines += ["|---|---|---|---|---|", *map(_row, families), ""]
    return "\n".join(lines).rstrip() + "\n"


def _row(one: Family) -> str:
    text = one.text
    if one.name in _VALUES:
        label, values = _VALUES[one.name]
        text += f" {label}: " + ", ".join(f"`{value}`" for value in values) + "."
    sources = ", ".join(f"`{name}`" for name in sorted(one.of - {ALWAYS})) or "all"
    cells = (f"`{one.name}`", one.kind, ", ".join(one.labels), text, sources)
    return row(cells)


main = writing(PAGE, page, "the families")

if __name__ == "__main__":
    main()
