"""May there be a canary? Before anything is changed, and before it is drained. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from farrier.rollout.errors import RefusedError
from farrier.rollout.gateways import SHARE

__all__ = ["Replica", "check_gateways", "check_replicas"]

Replica = tuple[str, str]
"""The name of a replica on the canary's host, and its model."""


def check_replicas(
    host: str,
    replicas: Iterable[Replica],
    others: Callable[[str], tuple[str, ...]],
    *,
    certain: bool,
) -> None:
    """Refuse *host* as canary where its *replicas* could not be compared. Raises RefusedError.

    *others* says who else serves a model (``HOST:REPLICA``). *certain*: exactly these are changed;
    else some of them may be, and only what cannot be whichever they are is refused.
    """
    models = [model for _, model in replicas]
    alone = sorted({model for model in models if not others(model)})
    if alone and (certain or len(alone) == len(set(models))):
        raise RefusedError(
            f"{host} cannot be the canary: nobody else serves {', '.join(alone)}, so there is"
            " nothing to compare it with",
            "the same with --first and a host whose models others serve, or without --canary",
        )
    twice = sorted({model for model in models if models.count(model) > 1})
    if twice and certain:
        raise RefusedError(
            f"{host} cannot be the canary: it has more than one replica of {', '.join(twice)},"
            " and a gateway gives one of each model a share",
            "the same with --first and another host, or without --canary",
        )


def check_gateways(
    host: str,
    replicas: Iterable[Replica],
    others: Callable[[str], tuple[str, ...]],
    known: Mapping[str, Iterable[str]],
    shares: Mapping[str, Mapping[str, int]],
) -> None:
    """Refuse where a gateway cannot give *replicas* of *host* a share. Raises RefusedError.

    *known* are the replicas that each gateway has, *shares* who has one there now, in percent.
    """
    if not known:
        raise RefusedError(
            "a canary's share is given by gateways, and the inventory has none",
            "the same without --canary: --first HOST --soak SECONDS compares it with before",
        )
    for gateway, there in known.items():
        for name, model in replicas:
            if f"{host}:{name}" not in there:
                raise RefusedError(
                    f"gateway {gateway} does not know {host}:{name}: it was not converged since",
                    f"pyinfra inventory deploys/llm.py --limit {gateway}",
                )
            taken = [one for one in others(model) if one in shares.get(gateway, {})]
            if taken:
                raise RefusedError(
                    f"on gateway {gateway} {taken[0]} has"
                    f" {shares[gateway][taken[0]]} % of {model} already, as of another canary",
                    f"farrier exec --sudo {gateway} -- {SHARE} {taken[0]} 100, if that one is over",
                )
