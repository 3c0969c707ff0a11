"""The next steps that rules name. GPUs are named by uuid: indices move when one is lost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from farrier_agent.health.observed import PERSISTENCED
from farrier_agent.health.rule import Step
from farrier_agent.status import Replica, Unit

__all__ = [
    "CHECK_LINKS",
    "CHECK_POWER",
    "CHECK_SLOT",
    "COOL",
    "INSPECT",
    "REBOOT",
    "RESET",
    "RESTART_REPLICA",
    "RETURN",
    "shown",
    "typed",
]

# The driver refuses a reset while anything holds the GPU: engines, this agent, persistenced
# (NVSentinel#1690). `systemctl stop` of an engine waits for its requests.
RESET = Step(
    "reset the GPU",
    "{stop}farrier-agent nvml release && nvidia-smi --gpu-reset -i {gpu}; "
    "farrier-agent nvml acquire{start}",
)
REBOOT = Step("reboot the host", "systemctl reboot")
RESTART_REPLICA = Step("restart the replica", "farrier-agent restart {replicas}")
RETURN = Step("return the board", "nvidia-bug-report.sh")
INSPECT = Step("have the hardware inspected, then return the board", "nvidia-bug-report.sh")
CHECK_LINKS = Step("check the cables and bridges", "nvidia-smi nvlink --status -i {gpu}")
CHECK_SLOT = Step("check slot, riser and cables", "nvidia-smi -q -i {gpu}")
CHECK_POWER = Step("check the power cables", "nvidia-smi -q -d POWER -i {gpu}")
COOL = Step(
    "check fans, filters and inlet air", "nvidia-smi -q -d TEMPERATURE,PERFORMANCE -i {gpu}"
)


def typed(
    step: Step,
    *,
    gpu: str | None,
    replicas: Sequence[Replica],
    units: Mapping[str, Unit],
) -> str | None:
    """The command of *step* for *gpu*, which *replicas* use; None where there is none to type."""
    template = step.command
    if template is None or "{" not in template:
        return template
    if ("{gpu}" in template and gpu is None) or ("{replica" in template and not replicas):
        return None
    services = [replica.unit for replica in replicas]
    daemon = units.get(PERSISTENCED)
    if daemon is not None and daemon.active:
        services.append(PERSISTENCED)
    listed = " ".join(services)
    return template.format(
        gpu=gpu,
        replica=replicas[0].name if replicas else "",
        replicas=" ".join(replica.name for replica in replicas),
        stop=f"systemctl stop {listed} && " if services else "",
        start=f"; systemctl start {listed}" if services else "",
    )


def shown(step: Step) -> str | None:
    """The command of *step* for a page, with words where values go."""
    if step.command is None:
        return None
    return step.command.format(
        gpu="GPU",
        replica="REPLICA",
        replicas="REPLICA",
        stop="systemctl stop UNITS && ",
        start="; systemctl start UNITS",
    )
