"""Before GPUs are reset or diagnosed: which, and which replicas have to give way for that."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec
from farrier_agent.boards.diagnosing import PACKAGES
from farrier_agent.boards.naming import meant
from farrier_agent.boards.told import tested_lines as lines
from rich.text import Text

from farrier.rollout.errors import RefusedError, RolloutError, UsageError
from farrier.rollout.host import Host, Look
from farrier.rollout.ledger import Ledger, Options
from farrier.rollout.plan import BOARDS, Kind
from farrier.rollout.seen import HostSeen

__all__ = ["board_lines", "can_be_done", "of_boards", "tested_lines"]

_LACKS, _OLDER = 9, 8
_NEEDS = {"gpu-reset": "nvidia-smi", "gpu-diag": "dcgmi"}


def of_boards(
    kind: Kind, options: Options, looks: Mapping[str, Look | None], word: str | None
) -> Options:
    """*options* with the GPUs that *word* means (all, without) of its one host, and their replicas.

    GPUs that NVLinks tie to others are reset with all of them: nvidia-smi refuses one alone. A GPU
    that no replica uses takes the whole host, too. Raises UsageError, RolloutError.
    """
    if len(options.limit) != 1:
        raise UsageError(f"one host at a time, and not {', '.join(options.limit) or 'all'}")
    (host,) = options.limit
    look = looks.get(host)
    if look is None:
        raise RolloutError(
            f"{host}: could not be asked: nothing was done", f"farrier status {host}"
        )
    seen = look.seen
    if not seen.boards:
        let_go = seen.nvml == "released"
        why = " (NVML was let go of, and not taken up again)" if let_go else ""
        raise RefusedError(
            f"{host}: its agent knows no GPU{why}: nothing was done",
            f"farrier exec --sudo {host} -- farrier-agent nvml acquire"
            if let_go
            else f"farrier fingerprint check {host}",
        )
    if word is None and kind == "gpu-diag":
        return options  # DCGM takes those that it finds
    every = tuple(one.uuid for one in seen.boards)
    gpus = every if word is None else (_meant(seen, word),)
    if kind == "gpu-reset" and any(one.linked for one in seen.boards if one.uuid in gpus):
        gpus = every
    users = () if gpus == every else _users(seen, gpus)
    return msgspec.structs.replace(options, gpus=gpus, replicas=users)


def can_be_done(kind: Kind, host: Host) -> None:
    """Raises RefusedError where the host lacks the program, before anything is drained."""
    program = _NEEDS[kind]
    known = f"farrier-agent act {kind} --help >/dev/null 2>&1 || exit {_OLDER}"
    asked = f"command -v {program} >/dev/null || exit {_LACKS}; {known}"
    code = host.shell.run(asked, timeout=30).code
    if code == _OLDER:
        raise RefusedError(
            f"{host.name}: its agent is older than this farrier: nothing was drained",
            f"pyinfra --limit {host.name} inventory deploys/llm.py",
        )
    if code:
        ways = {
            "dcgmi": f"farrier exec --sudo {host.name} -- apt-get install -y {PACKAGES}",
            "nvidia-smi": f"farrier preflight {host.name}",
        }
        where = " (NVIDIA's repository has it)" if program == "dcgmi" else ""
        raise RefusedError(
            f"{host.name}: it has no {program}{where}: nothing was drained", ways[program]
        )


def board_lines(ledger: Ledger) -> Iterator[Text]:
    """What is reset or diagnosed, and who has to give way."""
    options = ledger.options
    if ledger.kind not in BOARDS or not ledger.hosts:
        return
    (host,) = ledger.hosts
    what = "reset" if ledger.kind == "gpu-reset" else f"diagnosed (level {options.diag})"
    yield Text.assemble((host.host, "bold"), f"  {what}: {', '.join(options.gpus) or 'every GPU'}")
    if not options.replicas:
        why = "; NVLinks tie them together" if len(options.gpus) > 1 else ""
        yield Text(f"{' ' * len(host.host)}  the whole host has to give way{why}")


def tested_lines(ledger: Ledger) -> Iterator[Text]:
    """What DCGM said of each host."""
    for host in ledger.hosts:
        for line in lines(tuple(host.tests)):
            yield Text.assemble((host.host, "bold"), f"  {line}")


def _meant(seen: HostSeen, word: str) -> str:
    try:
        return meant(word, [(one.index, one.uuid) for one in seen.boards])
    except ValueError as error:
        raise UsageError(f"{seen.host}: {error}") from error


def _users(seen: HostSeen, gpus: tuple[str, ...]) -> tuple[str, ...]:
    """The replicas that use one of *gpus*; none: it has to be the whole host."""
    indices = {one.index for one in seen.boards if one.uuid in gpus}
    return tuple(one.name for one in seen.replicas if indices & set(one.gpus))
