"""What the role writes into ``agent.toml``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from farrier_agent.config import AgentConfig, Member, Peer, Replica

from farrier.spec.check_hosts import is_over_ray
from farrier.spec.engines import ENGINES
from farrier.spec.ray import tells

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from farrier.spec import HostSpec, Model

__all__ = ["CONTROL_GROUP", "WEB_CONFIG", "agent_config"]

CONTROL_GROUP = "farrier"
"""Made by the role base; its members may use the agent's control socket."""
REQUESTS = "/run/farrier/agent/requests.sock"
"""Where the host's nginx tells the agent of its requests; named in the role nginx, too."""
GATEWAY = "/run/farrier/agent/gateway.sock"
"""Where a gateway's HAProxy tells the agent of its requests; named in the role gateway, too."""
WEB_CONFIG = "/etc/farrier/web.yml"
WARM_UP = 1800.0
"""Seconds; the agent's own default."""


def agent_config(
    spec: HostSpec,
    settings: Mapping[str, Any],
    hashes: Mapping[str, str],
    drains: Mapping[str, Any],
    *,
    gateways: bool,
    fleet: Iterable[HostSpec] = (),
    gateway_tls: str | None = None,
) -> AgentConfig:
    """The host's ``agent.toml``.

    *hashes* maps a replica to its unit's configuration hash. *drains* are the settings of the role
    ``engine``, whose drains are this host's where the agent's own are not said. *gateways*: the
    fleet has some, which take a moment to hear that a replica drains. *fleet* is asked for the
    other replicas of the host's models, and on a gateway for all models. *gateway_tls* is the
    ``address:port`` at which this host, a gateway, answers with TLS.
    """
    said = spec.agent
    serves = "gpu" in spec.groups
    is_gateway = "gateway" in spec.groups
    fleet = tuple(fleet)
    config = AgentConfig(
        host=spec.name,
        accelerator=spec.accelerator if serves else "cpu",
        listen=_listen(settings, spec.agent_port),
        check_listen=_listen(settings, said.check_port) if serves else None,
        control_group=CONTROL_GROUP,
        nvml_library=said.nvml_library,
        tick=settings["agent_tick"],
        settle_seconds=_first(said.settle_seconds, 3.0 if gateways else 0.0),
        drain_seconds=_first(said.drain_seconds, drains["engine_drain_seconds"]),
        drain_policy=said.drain_policy or drains["engine_drain_policy"],
        warm_up_seconds=_first(said.warm_up_seconds, _longest_start(spec)),
        wedged_seconds=said.wedged_seconds,
        silent_seconds=said.silent_seconds,
        notices=said.notices,
        sys_root=spec.roots.sys,
        kmsg=f"{spec.roots.dev}/kmsg",
        requests_socket=REQUESTS if serves else None,
        gateway_socket=GATEWAY if is_gateway else None,
        gateway_models=_models(fleet) if is_gateway else [],
        gateway_tls=gateway_tls if is_gateway else None,
        web_config=WEB_CONFIG if settings["agent_web_config"] else None,
        collectors_off=list(said.collectors_off),
        observe_only=list(said.observe_only),
        fabric=said.fabric,
        peers=_peers(spec, fleet),
        replicas=[
            Replica(
                name=model.replica,
                model=model.name,
                engine=ENGINES[model.engine].asked_as(spec.accelerator),
                unit=model.unit,
                port=model.port,
                adapters=list(model.adapters),
                gpus=list(model.gpus),
                config_hash=hashes[model.replica],
            )
            for model in spec.models
        ],
        members=[_member(model, spec, hashes) for model in spec.members],
    )
    if said.notices_address is None:
        return config
    return msgspec.structs.replace(config, notices_address=said.notices_address)


def _member(model: Model, spec: HostSpec, hashes: Mapping[str, str]) -> Member:
    rank = spec.ranks[model.replica]
    tells_it = is_over_ray(model) and rank.number == 0
    return Member(
        name=model.replica,
        replica=rank.replica,
        rank=rank.number,
        head=rank.head,
        unit=model.unit,
        gpus=list(model.gpus),
        config_hash=hashes[model.replica],
        cluster=tells(model.replica) if tells_it else None,
        nodes=rank.size if tells_it else None,
    )


def _models(fleet: Iterable[HostSpec]) -> list[str]:
    """All that clients may ask the gateway for."""
    return sorted(
        {name for host in fleet for model in host.models for name in (model.name, *model.adapters)}
    )


def _peers(spec: HostSpec, fleet: Iterable[HostSpec]) -> list[Peer]:
    """The replicas of the models of *spec* on the other hosts of *fleet*."""
    served = {model.name for model in spec.models}
    return [
        Peer(
            host=other.name,
            model=model.name,
            address=_address(other.address, other.agent.check_port),
            replica=model.replica,
        )
        for other in fleet
        if other.name != spec.name
        for model in other.models
        if model.name in served
    ]


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _listen(settings: Mapping[str, Any], port: int) -> str:
    return _address(settings["agent_address"], port)


def _first(value: float | None, otherwise: float) -> float:
    return otherwise if value is None else value


def _longest_start(spec: HostSpec) -> float:
    """How long a converge waits is no bound for the agent: an engine may come up after that."""
    return max([WARM_UP, *(model.start_timeout for model in spec.models)])
