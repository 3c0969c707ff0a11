"""The one schema of ``agent.toml``: what the operator's side writes and the agent reads.

The file is ``/etc/farrier/agent.toml``. The operator's side builds an :class:`AgentConfig` and
writes it with :func:`dumps`; the agent reads it with :func:`load`. A field that is unknown, missing
or of the wrong type is refused with its path (``$.replicas[0].port``), never ignored.
"""

from __future__ import annotations

import ipaddress
import sys
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import msgspec

from farrier_agent.engines import ENGINES

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = [
    "COLLECTORS",
    "SCHEMA",
    "AgentConfig",
    "ConfigError",
    "Member",
    "Peer",
    "Replica",
    "dumps",
    "load",
    "loads",
    "split_address",
]

SCHEMA = 1
"""Version of this schema. A reader refuses a file of a newer one."""

DEFAULT_PATH = Path("/etc/farrier/agent.toml")

Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]
Label = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")]


class ConfigError(ValueError):
    """``agent.toml`` cannot be used; the message names the file, the field and what is wrong."""


class Replica(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One engine serving one model on this host.

    ``name`` is a DNS label, unique on the host; ``model`` is what clients name, and ``adapters``
    are LoRA adapters of it that they may name instead; ``port`` is the engine's loopback port;
    ``gpus`` are NVML indices, empty on a CPU host. ``config_hash`` is the sha256 of everything that
    the engine was configured from: when it differs from what the running unit recorded at its
    start, a restart is pending.
    """

    name: Label
    model: str
    engine: str
    unit: str
    port: Port
    adapters: list[str] = []
    gpus: list[int] = []
    config_hash: str


class Member(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """This host's share of a replica whose head, with the gate and the drain, is on another host.

    ``name`` is its own, ``replica`` that of the whole, of which it is number ``rank``. ``head`` is
    the head's host, which by Ray has a share, too: rank 0, and ``cluster`` is the file in which its
    node tells how the cluster of so many ``nodes`` is.
    """

    name: Label
    replica: Label
    rank: Annotated[int, msgspec.Meta(ge=0)]
    head: str
    unit: str
    gpus: list[int] = []
    config_hash: str
    cluster: str | None = None
    nodes: int | None = None


class Peer(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A replica of ``model`` on the host of that name: ``address`` answers for it there.

    ``address`` is that host, by name or IP address, and the port of its agent's ``check_listen``.
    """

    host: str
    model: str
    address: str
    replica: Label


Collector = Literal["gpu", "xid", "pci", "process", "engine", "requests", "gateway", "certificate"]
COLLECTORS: tuple[str, ...] = get_args(Collector)
"""Those that may be switched off; units and replicas are what the agent works with."""
Seconds = Annotated[float, msgspec.Meta(gt=0, le=7 * 86400)]


class AgentConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """All of ``agent.toml``.

    ``listen`` is ``address:port`` of the agent's HTTP endpoint. ``gate_dir`` holds one empty file
    per open gate, ``started_dir`` one file per running replica with the ``config_hash`` it was
    started from; neither may survive a reboot. ``records_dir`` keeps the replicas' states, which
    does, and ``evidence_dir`` what root's evidence program leaves. ``run_dir`` is the agent's own,
    with its ``control.sock`` for root and the members of ``control_group`` (None: for nobody else).
    ``check_listen`` is ``address:port`` for gateways (:mod:`.agentcheck`), None for none.
    ``nvml_library`` is a path to load NVML from instead of the linker's choice, ``bus`` the socket
    of the system bus. ``tick`` is seconds between collections. ``nginx_user`` is as whom nginx's
    workers run: their sockets are the requests in flight.

    ``state_dir`` is the agent's own memory: which GPUs it knows, what is latched; ``rollout_dir``
    has the host's lease, its audit and copies of ledgers. ``units_dir`` has the engines' units and
    ``previous_dir`` those from before (:mod:`.rollout.previous`). ``sys_root``,
    ``proc_root`` and ``kmsg`` are where sysfs, procfs and the kernel's log are. nginx tells its
    requests to ``requests_socket`` (None: not told), and on a gateway HAProxy, run by
    ``gateway_user``, tells its own to ``gateway_socket``: counted for ``gateway_models``, those of
    the fleet; ``gateway_tls`` is ``address:port`` where it answers with TLS, None for nowhere.
    ``web_config`` is a file of Prometheus's exporter-toolkit for the HTTP endpoint.
    ``collectors_off`` are not run, ``observe_only`` are rules of health that drain nothing.
    ``fabric``: whether GPUs need NVIDIA's fabric manager; ``auto`` goes by what they say
    themselves. ``peers`` are the replicas of the same models on other hosts: asked whether they
    serve, before a drain that nobody wanted.

    ``members`` are this host's shares of replicas whose heads are on other hosts. Their units are
    watched and told with the host's own; nothing here starts, drains or judges them.

    ``settle_seconds`` is how long a draining replica still takes requests, 0 without a gateway;
    ``drain_seconds`` and ``drain_policy`` hold where who asks for a drain does not say otherwise.
    ``warm_up_seconds`` bounds loading and warming up; an engine with requests and without progress
    for ``wedged_seconds`` is restarted; of one that tells nothing of its work only its sockets are
    seen, and ``silent_seconds`` without a byte on them count. ``notices`` names the cloud whose
    announcements are watched at ``notices_address``, None for none.

    Raises ValueError (from :func:`loads`: :class:`ConfigError`) when two replicas share a name, a
    unit or a port, an engine or a rule is unknown, or an address or path cannot be one.
    """

    schema: Literal[1] = 1
    host: str
    accelerator: Literal["cuda", "cpu"]
    listen: str = "0.0.0.0:9810"
    gate_dir: str = "/run/farrier/open"
    started_dir: str = "/run/farrier/started"
    records_dir: str = "/var/lib/farrier/replicas"
    evidence_dir: str = "/var/lib/farrier/evidence"
    run_dir: str = "/run/farrier/agent"
    control_group: str | None = None
    check_listen: str | None = None
    state_dir: str = "/var/lib/farrier/agent"
    rollout_dir: str = "/var/lib/farrier/rollout"
    units_dir: str = "/etc/systemd/system"
    previous_dir: str = "/var/lib/farrier/previous"
    nvml_library: str | None = None
    sys_root: str = "/sys"
    proc_root: str = "/proc"
    kmsg: str = "/dev/kmsg"
    requests_socket: str | None = None
    gateway_socket: str | None = None
    gateway_user: str = "haproxy"
    gateway_models: list[str] = []
    gateway_tls: str | None = None
    web_config: str | None = None
    collectors_off: list[Collector] = []
    observe_only: list[str] = []
    fabric: Literal["required", "none", "auto"] = "auto"
    peers: list[Peer] = []
    bus: str = "/run/dbus/system_bus_socket"
    tick: Seconds = 5.0
    nginx_user: str = "www-data"
    settle_seconds: Annotated[float, msgspec.Meta(ge=0, le=7 * 86400)] = 3.0
    drain_seconds: Seconds = 900.0
    drain_policy: Literal["extend", "abort", "force"] = "extend"
    warm_up_seconds: Seconds = 1800.0
    wedged_seconds: Seconds = 25.0
    silent_seconds: Seconds = 300.0
    notices: Literal["aws", "gcp", "azure"] | None = None
    notices_address: str = "169.254.169.254:80"
    replicas: list[Replica] = []
    members: list[Member] = []

    def __post_init__(self) -> None:
        for name in ("listen", "check_listen", "notices_address", "gateway_tls"):
            if (address := getattr(self, name)) is not None:
                _checked(name, address)
        for peer in self.peers:
            host, colon, port = peer.address.rpartition(":")
            if not (host and colon and port.isascii() and port.isdigit() and 0 < int(port) < 65536):
                raise ValueError(f"peers: {peer.address!r} is not host:port")
        for name in _PATHS:
            path = getattr(self, name)
            if path is not None and not path.startswith("/"):
                raise ValueError(f"{name} {path!r} is not an absolute path")
        for field in ("name", "unit", "port"):
            values = [getattr(replica, field) for replica in self.replicas]
            values += [getattr(member, field) for member in self.members if field != "port"]
            twice = sorted({str(value) for value in values if values.count(value) > 1})
            if twice:
                raise ValueError(f"two replicas have the {field} {', '.join(twice)}")
        for replica in self.replicas:
            if replica.engine not in ENGINES:
                known = ", ".join(sorted(ENGINES))
                raise ValueError(
                    f"replica {replica.name}: unknown engine {replica.engine!r} (known: {known})"
                )
        if self.observe_only:
            from farrier_agent.health.rules import observing  # noqa: PLC0415 - few need it

            observing(self.observe_only)


_PATHS = (
    *("gate_dir", "started_dir", "records_dir", "evidence_dir", "run_dir", "state_dir"),
    *(
        "units_dir",
        "previous_dir",
        "rollout_dir",
        "nvml_library",
        "sys_root",
        "proc_root",
        "kmsg",
        "requests_socket",
    ),
    *("gateway_socket", "web_config", "bus"),
)


def _checked(name: str, address: str) -> None:
    try:
        split_address(address)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def split_address(listen: str) -> tuple[str, int]:
    """``address:port`` as its two parts, ``[::1]:9810`` too. Raises ValueError."""
    address, colon, port = listen.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise ValueError(f"{listen!r} is not address:port")
    try:
        return str(ipaddress.ip_address(address.strip("[]"))), int(port)
    except ValueError:
        raise ValueError(f"{listen!r} does not begin with an IP address") from None


def loads(text: str, source: str = "agent.toml") -> AgentConfig:
    """Parse TOML *text*; *source* names it in errors. Raises :class:`ConfigError`."""
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{source}: not valid TOML: {error}") from error
    except RecursionError:
        raise ConfigError(f"{source}: nested too deeply to be a configuration") from None
    schema = data.get("schema")
    if isinstance(schema, int) and schema > SCHEMA:
        raise ConfigError(
            f"{source}: schema {schema} is newer than this agent's ({SCHEMA}): upgrade the agent"
        )
    try:
        return msgspec.convert(data, AgentConfig)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{source}: {error}") from error


def load(path: Path = DEFAULT_PATH) -> AgentConfig:
    """Read and parse the file at *path*. Raises :class:`ConfigError`, also when unreadable."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8: {error.reason} at byte {error.start}") from error
    return loads(text, str(path))


def dumps(config: AgentConfig) -> str:
    """*config* as TOML that :func:`loads` reads back as the same value.

    Needs the package ``tomli-w``, which the operator's side has and the host does not need.
    """
    import tomli_w  # noqa: PLC0415 - see above

    data: dict[str, Any] = msgspec.to_builtins(config)
    if not config.members:
        del data["members"]  # a host without has the text it always had, and keeps its agent
    for member in data.get("members", ()):
        for name in ("cluster", "nodes"):
            if member[name] is None:
                del member[name]
    return tomli_w.dumps({key: value for key, value in data.items() if value is not None})
