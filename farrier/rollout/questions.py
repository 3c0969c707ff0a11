"""What a rollout asks a host with one command, and how the answer is cut into its parts. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from farrier_agent.rollout.previous import DIRECTORY, MARK, UNITS

from farrier.fleet import Target

__all__ = ["parts_of", "question", "question_of_units", "texts_of_units"]

_MARK = "== farrier rollout: "
_METRICS = """
import sys, urllib.request
*addresses, port = sys.argv[1:]
for address in addresses:
    try:
        with urllib.request.urlopen(f"http://{address}:{port}/metrics", timeout=5) as page:
            lines = page.read().decode().splitlines()
    except OSError:
        continue
    names = (
        *("llm_", "vllm:num_requests_w", "sglang:num_queue", "llamacpp:requests_d"),
        "transformers:requests_w",
    )
    print(*(line for line in lines if line.startswith(names)), sep="\\n")
    break
"""
"""Prints what of an agent's metrics is about requests; whoever has the agent has Python."""


def question(target: Target) -> str:
    """One command that says everything; each part behind a mark."""
    started = " ".join(shlex.quote(one.replica) for one in target.replicas)
    names = [one.replica for one in target.replicas]
    files = shlex.join(_files(names))
    marks = shlex.join(f"{DIRECTORY}/engine-{name}{MARK}" for name in names)
    return "\n".join(
        (
            f"echo; echo '{_MARK}status'; farrier-agent status --json",
            f"echo; echo '{_MARK}boot'; cat /proc/sys/kernel/random/boot_id",
            f"echo; echo '{_MARK}reboot'; [ -e /run/reboot-required ] && echo yes || echo no",
            f"echo; echo '{_MARK}started'",
            f"for r in {started}; do read -r c < /run/farrier/started/$r && echo $r $c; done"
            if started
            else ":",
            f"echo; echo '{_MARK}units'",
            f"grep -s '^X-FarrierConfigHash=' {files} /dev/null; grep -s . {marks} /dev/null"
            if started
            else ":",
            f"echo; echo '{_MARK}metrics'",
            # its address may be one of the host's; a certificate or password keeps us out
            f"python3 -I -c {shlex.quote(_METRICS)} 127.0.0.1 {shlex.quote(target.address)}"
            f" {target.agent_port} 2>/dev/null; true",
        )
    )


def parts_of(output: str) -> dict[str, str]:
    """The parts of the answer, by name."""
    parts: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in output.splitlines():
        if line.startswith(_MARK):
            lines = parts.setdefault(line.removeprefix(_MARK), [])
        else:
            lines.append(line)
    return {name: "\n".join(lines) for name, lines in parts.items()}


def question_of_units(replicas: Sequence[str]) -> str:
    """One command that prints the units of *replicas*, and those before them."""
    asked = (
        f"echo; echo '{_MARK}{at}'; cat {shlex.quote(path)} 2>/dev/null"
        for at, path in enumerate(_files(replicas))
    )
    return "; ".join([*asked, "true"])


def texts_of_units(replicas: Sequence[str], output: str) -> dict[str, tuple[str, str]]:
    """The text of each unit, and of the one before it ("": none), by replica."""
    parts = parts_of(output)
    return {
        replica: (parts.get(str(2 * at), ""), parts.get(str(2 * at + 1), ""))
        for at, replica in enumerate(replicas)
    }


def _files(replicas: Sequence[str]) -> list[str]:
    return [
        f"{place}/engine-{replica}.service" for replica in replicas for place in (UNITS, DIRECTORY)
    ]
