"""What can be wrong with a model's ``hosts``, whatever else the fleet has."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from farrier.spec.engines import PARALLEL_FLAGS, Engine
from farrier.spec.model import MASTER_PORT, Model, PathSource, parse_source
from farrier.spec.problems import Finding
from farrier.spec.values import is_whole, shown

__all__ = ["BACKEND", "NO_RAY", "check_hosts", "check_ray", "check_stages", "is_over_ray"]

BACKEND = "distributed-executor-backend"
NO_RAY = (
    "vLLM on CPUs refuses Ray ('current platform … does not support ray', 0.32.0,"
    " v1/executor/ray_utils.py); several hosts without GPUs are hosts=[…]"
)
STAND_IN = "FARRIER_ENGINE_IS_A_STAND_IN"
"""In ``env``, ``"1"``: what is served is no vLLM. For tests of the cluster's life without GPUs."""
_OWN_ADDRESS = ("VLLM_HOST_IP", "VLLM_PORT")
"""Variables that have to differ between the hosts of a replica."""


def check_hosts(model: Model, engine: Engine) -> Iterator[Finding]:
    """Every problem of the hosts that *model* is to span, as far as it alone tells them."""
    names: Any = model.hosts
    if not isinstance(names, tuple) or not all(isinstance(name, str) for name in names):
        example = "['gpu01', 'gpu02']"
        yield "hosts", f"must be a list of hosts' names, such as {example}, not {shown(names)}"
        return
    if not is_whole(model.master_port) or model.master_port not in range(1024, 65536):
        yield "master_port", f"must be a port from 1024 to 65535, not {shown(model.master_port)}"
        return
    if not names:
        if model.master_port != MASTER_PORT:
            yield "master_port", "has no effect without hosts=[…]"
        return
    if engine.name != "vllm":
        yield "hosts", f"engine {engine.name!r} serves a replica on one host; hosts is for 'vllm'"
        return
    if len(names) < 2:
        yield "hosts", f"{list(names)} is one host: leave hosts out"
    elif len(set(names)) != len(names):
        yield "hosts", f"{list(names)} names a host twice"
    yield from _same_everywhere(model)
    yield from _sizes(model)


def is_over_ray(model: Model) -> bool:
    """Whether *model* spans its hosts by a cluster of Ray, and not by vLLM's own ``--nnodes``."""
    args: Any = model.args
    return model.spans > 1 and isinstance(args, Mapping) and args.get(BACKEND) == "ray"


def check_ray(model: Model, accelerator: str) -> Iterator[Finding]:
    """Where Ray cannot be had, or is of no use."""
    env: Any = model.env
    if model.args.get(BACKEND) != "ray":
        return
    if accelerator != "cuda" and not (isinstance(env, Mapping) and env.get(STAND_IN) == "1"):
        yield f"args.{BACKEND}", NO_RAY
    elif not model.hosts:
        yield (
            f"args.{BACKEND}",
            "'ray' is for a replica over several hosts, hosts=[…]: on one leave it out",
        )


def check_stages(model: Model) -> Iterator[Finding]:
    """What vLLM's CPU platform starts with, and then answers no request (seen with 0.32.0).

    Only its warm-up, which ``enforce-eager`` leaves out, makes the room for what a stage of the
    pipeline takes from the one before: without it the first request ends the engine.
    """
    args = {str(flag).replace("_", "-"): value for flag, value in model.args.items()}
    alone = any(flag in args for flag in PARALLEL_FLAGS)
    stages = args.get("pipeline-parallel-size", 1 if alone else model.spans)
    if args.get("enforce-eager") is True and isinstance(stages, int) and stages > 1:
        yield (
            "args.enforce-eager",
            f"with {stages} stages of a pipeline vLLM on CPUs starts and answers no request"
            " ('AssertionError' in sync_and_gather_intermediate_tensors, 0.32.0): leave it out, or"
            f" set args={{'tensor-parallel-size': {stages}}}",
        )


def _same_everywhere(model: Model) -> Iterator[Finding]:
    try:
        source = parse_source(model.source)
    except ValueError:
        return
    if not isinstance(source, PathSource):
        yield (
            "source",
            "with hosts=[…] it has to be a directory that is on each of them (path:/…): their"
            " units speak with one another only, and with no hub",
        )
    env: Any = model.env
    for name in _OWN_ADDRESS:
        if isinstance(env, Mapping) and name in env:
            yield f"env.{name}", "each host has its own: it comes from the host's address"


def _sizes(model: Model) -> Iterator[Finding]:
    args: Any = model.args
    if not isinstance(args, Mapping):
        return
    backend = args.get(BACKEND, "mp")
    if backend not in ("mp", "ray"):
        yield (
            f"args.{BACKEND}",
            f"is {shown(backend)}; hosts=[…] goes by vLLM's own way, 'mp', or by 'ray'",
        )
    if args.get("data-parallel-size", 1) != 1:
        yield (
            "args.data-parallel-size",
            "with hosts=[…] each copy of the model is a replica of its own",
        )
        return
    sizes = [args[flag] for flag in PARALLEL_FLAGS if flag in args]
    if not sizes or not all(is_whole(size) and size > 0 for size in sizes):
        return
    world = 1
    for size in sizes:
        world *= size
    if world % model.spans:
        yield (
            "hosts",
            f"{world} ranks cannot be divided among {model.spans} hosts: each has as many",
        )
