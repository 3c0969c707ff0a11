"""What a drain of GPUs is for: a reset of them, or a diagnosis by DCGM."""

from __future__ import annotations

from farrier_agent.boards.told import tested_lines, worst
from farrier_agent.control.protocol import Diagnosed

from farrier.rollout.errors import RolloutError
from farrier.rollout.one_host import OneHost

__all__ = ["diagnose", "reset"]


def reset(it: OneHost) -> str:
    """Reset them; what nvidia-smi said. Raises RolloutError, also where it did not help."""
    record, gpus = it.record, it.ledger.options.gpus
    done = it.watched(lambda: it.through_cuts(lambda: it.host.gpu_reset(gpus, on_news=it.news)))
    with it.book.changing():
        record.output = done.words
    again = f"farrier rollout resume {it.ledger.id}, once it is put right"
    if done.status:
        raise RolloutError(
            f"{record.host}: nvidia-smi did not reset {', '.join(gpus)}: {done.words}",
            f"{again}; or a reboot: farrier rollout abort {it.ledger.id}, then"
            f" farrier rollout reboot --limit {record.host} --takeover",
        )
    if bad := [f"{one.uuid}: {'; '.join(one.amiss)}" for one in done.gpus if one.amiss]:
        raise RolloutError(
            f"{record.host}: the reset did not help, so it stays closed: {'; '.join(bad)}",
            f"farrier gpu bundle {record.host}/{done.gpus[0].uuid}; {again}",
        )
    return done.words


def diagnose(it: OneHost) -> str:
    """Have DCGM diagnose them; the results in words. Raises RolloutError where a test failed."""
    record, options = it.record, it.ledger.options
    level, attempt = options.diag or 1, record.diagnosed

    def ask() -> Diagnosed:
        return it.host.gpu_diag(level, options.gpus, attempt=attempt, on_news=it.news)

    done = it.watched(lambda: it.through_cuts(ask))
    with it.book.changing():
        record.tests = list(done.results)
        record.diagnosed += 1
    said = "; ".join(tested_lines(done.results))
    if worst(done.results) == "fail":
        bad = next((one.gpu for one in done.results if one.state == "fail" and one.gpu), None)
        place = f"{record.host}/{bad}" if bad else record.host
        raise RolloutError(
            f"{record.host}: DCGM's level {level} failed, so it stays closed: {said}",
            f"farrier gpu bundle {place}; farrier rollout resume {it.ledger.id} diagnoses anew",
        )
    return said
