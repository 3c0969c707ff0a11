"""The machine: its clock, memory, and the way from GPU to GPU."""

from __future__ import annotations

from typing import TYPE_CHECKING

from farrier.preflight.verdict import Code, Reason

if TYPE_CHECKING:
    from collections.abc import Iterator

    from farrier.preflight.found import Case

__all__ = ["CODES", "RULES", "SKEW_SECONDS"]

SKEW_SECONDS = 30.0
"""Clocks that differ by more make logs and metrics of several hosts disagree; certificates and
apt's indices fail at minutes to hours."""

HUGEPAGES_SHARE = 0.1
"""Memory in huge pages that nothing here uses, as a share of all."""

CLOCK_SKEW = Code(
    "clock-skew",
    "warn",
    "The host's clock differs from yours by more than 30 seconds: metrics and logs of several hosts"
    " disagree; by more, certificates and apt's indices are not valid yet, or any more.",
    "apt-get install -y systemd-timesyncd && timedatectl set-ntp true",
)
CLOCK_FREE = Code(
    "clock-unsynchronised",
    "warn",
    "Nothing keeps the host's clock right.",
    "apt-get install -y systemd-timesyncd && timedatectl set-ntp true",
)
IOMMU_TRANSLATED = Code(
    "iommu-translated",
    "warn",
    "The IOMMU translates what goes from GPU to GPU over PCIe: slow or impossible, NCCL hangs or"
    " takes the way through memory (NCCL's troubleshooting: IO virtualization).",
    "sed -i 's/^GRUB_CMDLINE_LINUX=\"/&iommu=pt /' {etc}/default/grub && update-grub"
    " && systemctl reboot",
)
ACS_ON = Code(
    "acs-on",
    "warn",
    "PCI bridges send what goes from GPU to GPU up to the root complex (ACS): peer-to-peer loses"
    " bandwidth or hangs (NCCL's troubleshooting: PCI Access Control Services). The line lasts"
    " until the next boot; the firmware's setup turns it off for good.",
    "for b in {bridges}; do setpci -s $b ECAP_ACS+0x6.w=0000; done",
)
HUGEPAGES = Code(
    "hugepages-reserved",
    "warn",
    "More than a tenth of the memory is reserved as huge pages, which no engine uses.",
    "sysctl -w vm.nr_hugepages=0;"
    " sed -i '/^vm.nr_hugepages/d' /etc/sysctl.conf /etc/sysctl.d/*.conf",
)


def clock(case: Case) -> Iterator[Reason]:
    """Right, and kept so. A container's clock is another machine's."""
    machine, told_at = case.found.machine, case.found.looked_at
    here = case.basics.time
    if here is not None and told_at is not None and abs(here - told_at) > SKEW_SECONDS:
        ahead = "ahead of" if here > told_at else "behind"
        yield CLOCK_SKEW.reason(f"its clock is {abs(here - told_at):.0f} s {ahead} this machine's")
    elif machine and machine.clock_synchronized is False and not _container(case):
        yield CLOCK_FREE.reason("nothing keeps its clock right")


def _container(case: Case) -> bool:
    return case.found.kernel is not None and case.found.kernel.container


def peer_to_peer(case: Case) -> Iterator[Reason]:
    """A straight way between GPUs that work on one replica."""
    machine = case.found.machine
    together = [model for model in case.wanted.models if len(model.gpus) > 1]
    if machine is None or not case.wanted.cuda or not together or case.nvswitch:
        return
    names = ", ".join(model.replica for model in together)
    if machine.iommu == "translated":
        yield IOMMU_TRANSLATED.reason(
            f"the IOMMU translates what goes from GPU to GPU ({names} has several)",
            etc=case.wanted.spec.roots.etc,
        )
    if machine.acs:
        yield ACS_ON.reason(
            f"{len(machine.acs)} PCI bridges above GPUs redirect peer-to-peer traffic (ACS;"
            f" {names} has several GPUs)",
            bridges=" ".join(machine.acs),
        )


def hugepages(case: Case) -> Iterator[Reason]:
    """No memory reserved that nobody uses."""
    machine = case.found.machine
    if machine is None or not machine.hugepages or not machine.hugepage_kb or not machine.memory_mb:
        return
    reserved = machine.hugepages * machine.hugepage_kb // 1024
    if reserved > HUGEPAGES_SHARE * machine.memory_mb:
        yield HUGEPAGES.reason(
            f"{reserved} of {machine.memory_mb} MiB of memory are reserved as huge pages, which no"
            " engine uses"
        )


CODES = (CLOCK_SKEW, CLOCK_FREE, IOMMU_TRANSLATED, ACS_ON, HUGEPAGES)
RULES = (clock, peer_to_peer, hugepages)
