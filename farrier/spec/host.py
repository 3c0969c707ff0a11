"""A host as the roles see it, read and checked from the inventory's data."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from farrier.facts.roots import Roots
from farrier.spec.access import OPEN_ACCESS, check_access
from farrier.spec.agent import AgentSettings, agent_findings, read_agent
from farrier.spec.check_model import (
    Finding,
    check_model,
    did_you_mean,
    is_whole,
    shown,
)
from farrier.spec.grafana import check_grafana
from farrier.spec.keys import ApiKey
from farrier.spec.model import FIRST_PORT, Model
from farrier.spec.places import argument_place
from farrier.spec.problems import NOWHERE, Place, Problem
from farrier.spec.ray import read_ray_token
from farrier.spec.receivers import Receiver, check_durations, check_receivers
from farrier.spec.spanning import Rank

__all__ = ["FIELDS", "HostSpec", "read_host"]

FIELDS = (
    "accelerator",
    "address",
    "agent_check_port",
    "agent_port",
    "alertmanager_receivers",
    "api_keys_file",
    "models",
    "nginx_clients",
    "nginx_gateways",
    "nginx_port",
    "open_access",
    "ray_token_file",
    "roots",
)
"""Host data that this module reads; the roles' DEFAULTS and pyinfra's ssh_… fields come on top."""

FOREIGN_PORTS = {
    9100: "node exporter's port",
    9090: "Prometheus' port",
    9093: "Alertmanager's port",
    9094: "Alertmanager's port",
}
ACCELERATORS = ("cuda", "cpu")
ROOTS = frozenset(root.name for root in fields(Roots))

_ADDRESS = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?|[0-9a-fA-F:]*:[0-9a-fA-F:]*")


@dataclass(frozen=True)
class HostSpec:
    """One host of the fleet: what the roles consume.

    ``address`` is where the other hosts reach it (``address`` of the inventory, else
    ``ssh_hostname``, else its name). ``api_keys`` maps a key's name to the key; it is empty where
    ``open_access`` is set, and on hosts whose data names no ``api_keys_file``. ``roots`` is where
    the host's facts are read: other directories than the running host's are for tests, and for a
    look at a mounted image (``roots = {"sys": "/srv/tree/sys"}``). ``receivers`` are told of alerts
    by hosts of group monitor; ``receiver_secrets`` are what their files hold, by ``NAME.FIELD``,
    ``grafana_secrets`` the password of Grafana's administrator. ``members`` are its shares of other
    hosts' replicas, and its nodes of Ray, whose token is ``ray_token``; ``ranks`` are its places in
    replicas over several hosts, by their name here.
    """

    name: str
    groups: tuple[str, ...] = ()
    address: str = ""
    accelerator: Literal["cuda", "cpu"] = "cuda"
    models: tuple[Model, ...] = ()
    api_keys: Mapping[str, ApiKey] = field(default_factory=dict, repr=False)
    open_access: bool = False
    nginx_port: int = 8080
    agent_port: int = 9810
    agent: AgentSettings = field(default_factory=AgentSettings)
    roots: Roots = field(default_factory=Roots)
    receivers: tuple[Receiver, ...] = ()
    receiver_secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    grafana_secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    ray_token: str = field(default="", repr=False)
    members: tuple[Model, ...] = ()
    ranks: Mapping[str, Rank] = field(default_factory=dict)

    @property
    def carried(self) -> tuple[Model, ...]:
        """All that engines run here: its replicas, and its shares of others."""
        return (*self.models, *self.members)


def read_host(
    name: str,
    groups: Iterable[str],
    data: Mapping[str, Any],
    where: Callable[[str], Place] = lambda _field: NOWHERE,
    *,
    root: Path | None = None,
    known: Iterable[str] = (),
) -> tuple[HostSpec, list[Problem]]:
    """Read the host *name* from its merged inventory *data*.

    *where* tells in which file a field of the data was written. *root* is the directory that
    ``api_keys_file`` is relative to (default: the current one). *known* are names of data that
    others read, against which a misspelt one is compared. The HostSpec may be used only if the
    list of problems is empty.
    """
    reading = _Reading(name, tuple(dict.fromkeys(groups)), data, root or Path.cwd())
    problems = []
    for path, message in reading.findings(known):
        place = reading.place(path, where)
        problems.append(Problem(place.file, place.line, name, path, message))
    return reading.spec(), problems


class _Reading:
    """One pass over a host's data: every field is taken as far as its type allows."""

    def __init__(
        self, name: str, groups: tuple[str, ...], data: Mapping[str, Any], root: Path
    ) -> None:
        self.name = name
        self.groups = groups
        self.data = data
        self.root = root
        models = data.get("models", ())
        self.models: tuple[Any, ...] = tuple(models) if isinstance(models, list | tuple) else ()
        self.api_keys: dict[str, ApiKey] = {}
        receivers = data.get("alertmanager_receivers", ())
        self.receivers: tuple[Any, ...] = (
            tuple(receivers) if isinstance(receivers, list | tuple) else ()
        )
        self.receiver_secrets: dict[str, str] = {}
        self.grafana_secrets: dict[str, str] = {}
        self.ray_token = ""

    def spec(self) -> HostSpec:
        return HostSpec(
            name=self.name,
            groups=self.groups,
            address=str(self._address()[1]),
            accelerator="cpu" if self.data.get("accelerator") == "cpu" else "cuda",
            models=tuple(model for model in self.models if isinstance(model, Model)),
            api_keys=self.api_keys,
            open_access=self.data.get("open_access") == OPEN_ACCESS,
            nginx_port=self.data.get("nginx_port", HostSpec.nginx_port),
            agent_port=self.data.get("agent_port", HostSpec.agent_port),
            agent=read_agent(self.data),
            roots=self._roots(),
            receivers=tuple(one for one in self.receivers if isinstance(one, Receiver)),
            receiver_secrets=self.receiver_secrets,
            grafana_secrets=self.grafana_secrets,
            ray_token=self.ray_token,
        )

    def place(self, path: str, where: Callable[[str], Place]) -> Place:
        match = re.match(r"(models|alertmanager_receivers)\[(\d+)\]\.(.+)", path)
        if match is None:
            return where(path.partition("[")[0])
        listed = self.models if match[1] == "models" else self.receivers
        one = listed[int(match[2])]
        if isinstance(one, Model | Receiver) and one.place.file:
            return argument_place(one.place, match[3])
        return where(match[1])

    def findings(self, known: Iterable[str]) -> Iterator[Finding]:
        yield from self._fields(known)
        models = self.data.get("models", ())
        if not isinstance(models, list | tuple):
            yield "models", f"must be a list: models = [Model(…)], not {shown(models)}"
        elif models and "gpu" not in self.groups:
            yield "models", "models are served by the hosts of group gpu; this host is not in it"
        accelerator = self.data.get("accelerator", "cuda")
        for index, model in enumerate(self.models):
            if isinstance(model, Model):
                for path, message in check_model(model, accelerator):
                    yield f"models[{index}].{path}", message
            else:
                yield f"models[{index}]", f"must be a Model(…), not {shown(model)}"
        yield from self._shared()
        whose = "this host's" if self.models else "the fleet's" if "gateway" in self.groups else ""
        yield from check_access(self.data, whose, self.root, self.api_keys)
        yield from self._told()

    def _fields(self, known: Iterable[str]) -> Iterator[Finding]:
        accelerator = self.data.get("accelerator", "cuda")
        if accelerator not in ACCELERATORS:
            hint = did_you_mean(accelerator, ACCELERATORS)
            yield "accelerator", f"{shown(accelerator)} is neither 'cuda' nor 'cpu'{hint}"
        origin, address = self._address()
        if not isinstance(address, str) or not _ADDRESS.fullmatch(address):
            yield origin, f"{shown(address)} is no host name or IP address"
        for name in ("nginx_port", "agent_port"):
            port = self.data.get(name, getattr(HostSpec, name))
            if not is_whole(port) or port not in range(1, 65536):
                yield name, f"must be a port from 1 to 65535, not {shown(port)}"
        yield from agent_findings(self.data)
        yield from self._misplaced()
        every = {*FIELDS, *known}
        for name in self.data:
            if name not in every and (hint := did_you_mean(name, every, cutoff=0.8)):
                yield name, f"nothing reads {name!r}{hint}"

    def _roots(self) -> Roots:
        given = self.data.get("roots", {})
        known = ROOTS & given.keys() if isinstance(given, Mapping) else set()
        return Roots(**{name: str(given[name]) for name in known})

    def _misplaced(self) -> Iterator[Finding]:
        """What is wrong with ``roots``."""
        given = self.data.get("roots", {})
        if not isinstance(given, Mapping):
            yield "roots", f"must be a table such as {{'sys': '/srv/tree/sys'}}, not {shown(given)}"
            return
        for name, value in given.items():
            if name not in ROOTS:
                hint = did_you_mean(str(name), ROOTS)
                yield "roots", f"{shown(name)} is none of {', '.join(sorted(ROOTS))}{hint}"
            elif not isinstance(value, str) or (name != "kernel" and not value.startswith("/")):
                yield "roots", f"{name} must be an absolute path on the host, not {shown(value)}"

    def _address(self) -> tuple[str, Any]:
        for origin in ("address", "ssh_hostname"):
            if origin in self.data:
                return origin, self.data[origin]
        # a connector of pyinfra's: @local, @ssh/gpu01
        return "", self.name.rpartition("/")[2].lstrip("@")

    def _shared(self) -> Iterator[Finding]:
        """Ports, GPUs and names that two models, or a model and the host, claim."""
        ports: dict[int, str] = dict(FOREIGN_PORTS)
        owners = {"nginx_port": "nginx's port", "agent_port": "the agent's port"}
        defaults = {name: getattr(HostSpec, name) for name in owners}
        if "gpu" in self.groups:  # nobody asks the other hosts' agents
            owners["agent_check_port"] = "the port on which gateways ask the agent"
            defaults["agent_check_port"] = AgentSettings.check_port
        for name, owner in owners.items():
            port = self.data.get(name, defaults[name])
            if port in ports:
                yield name, f"{port} is {ports[port]}"
            elif is_whole(port):
                ports[port] = owner
        ssh: Any = self.data.get("ssh_port")
        if is_whole(ssh):
            ports.setdefault(ssh, "sshd's port")
        models = {
            f"models[{index}]": model
            for index, model in enumerate(self.models)
            if isinstance(model, Model)
        }
        yield from _claimed_ports(models, ports)
        yield from _claimed_gpus(models)
        yield from _claimed_names(models)

    def _told(self) -> Iterator[Finding]:
        try:
            self.ray_token = read_ray_token(self.data, self.root)
        except ValueError as error:
            yield "ray_token_file", str(error)
        yield from check_grafana(self.data, self.root, self.grafana_secrets)
        yield from check_durations(self.data)
        name = "alertmanager_receivers"
        if name not in self.data:
            return
        if "monitor" not in self.groups:
            yield name, "hosts of group monitor send alerts; this host is not in it"
        for path, message in check_receivers(self.data[name], self.root, self.receiver_secrets):
            yield f"{name}{path}", message


def _claimed_ports(models: Mapping[str, Model], ports: dict[int, str]) -> Iterator[Finding]:
    wanted = {model.port for model in models.values() if is_whole(model.port)}
    free = next(port for port in range(FIRST_PORT, 65536) if port not in wanted | ports.keys())
    for here, model in models.items():
        if not is_whole(model.port):
            continue
        if model.port in ports:
            yield f"{here}.port", f"{model.port} is {ports[model.port]}; pick another, e.g. {free}"
        ports.setdefault(model.port, f"the port of {here} ({shown(model.replica)})")


def _claimed_gpus(models: Mapping[str, Model]) -> Iterator[Finding]:
    owners: dict[int, str] = {}
    for here, model in models.items():
        indices = model.gpus if isinstance(model.gpus, tuple) else ()
        for gpu in dict.fromkeys(gpu for gpu in indices if is_whole(gpu)):
            if gpu in owners:
                yield f"{here}.gpus", f"GPU {gpu} already belongs to {owners[gpu]}"
            owners.setdefault(gpu, f"{here} ({shown(model.replica)})")


def _claimed_names(models: Mapping[str, Model]) -> Iterator[Finding]:
    owners: dict[str, str] = {}
    for here, model in models.items():
        if not isinstance(model.replica, str) or not model.replica:
            continue
        if model.replica in owners:
            written = "name" if model.replica == model.name else "replica"
            yield (
                f"{here}.{written}",
                f"{owners[model.replica]} is already the replica {model.replica!r}; "
                "give one of them another replica='…'",
            )
        owners.setdefault(model.replica, here)
