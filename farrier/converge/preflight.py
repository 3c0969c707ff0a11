"""What has to be true of a host before a deploy changes the first thing on it.

One command reads the facts, :func:`judge` compares them with the host's spec, and every problem is
told at once with its repair. A host that fails drops out; the others go on, and the run ends
with 1.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pyinfra import host
from pyinfra.api import FactBase

from farrier.connecting import SUDO_EXPLAINED
from farrier.converge.commands import Refuse
from farrier.converge.questions import Question, answer
from farrier.converge.typed import operation
from farrier.spec import PathSource

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from farrier.converge.commands import Commands
    from farrier.spec import HostSpec

__all__ = ["SUPPORTED", "HostFacts", "Listener", "judge", "preflight", "wanted_ports"]

SUPPORTED = {"debian 12", "debian 13", "ubuntu 22.04", "ubuntu 24.04"}
"""Systems that the roles were written for; on the Ubuntus they have not been run yet."""

MINIMUM_MB = {"/": 500, "/var": 500}
"""Free space for packages and logs; what an engine needs in /opt, its environment checks."""


@dataclass(frozen=True, slots=True)
class Listener:
    """A process that listens on *port*: its *program*, and the *unit* that it runs in."""

    port: int
    program: str
    pid: int
    unit: str


@dataclass(frozen=True, slots=True)
class HostFacts:
    """A host as it was found. *models* maps a directory to ``ok`` or what is missing."""

    system: str
    free_mb: Mapping[str, int]
    listeners: tuple[Listener, ...]
    models: Mapping[str, str] = field(default_factory=dict)


_SCRIPT = r"""
. /etc/os-release; echo "system $ID ${VERSION_ID:-}"
df -Pm / /var | awk 'NR > 1 {print "free", $4}'
for d in __MODELS__; do
    if [ ! -d "$d" ]; then echo "model no-directory $d";
    elif [ ! -s "$d/config.json" ]; then echo "model no-config.json $d";
    else echo "model ok $d"; fi
done
unit_of() { # PID: the innermost service or scope of its cgroup; by the shell alone, as it is fast
    while read -r path; do
        while [ "$path" != "${path%/*}" ]; do
            case "${path##*/}" in *.service | *.scope) unit=${path##*/}; return;; esac
            path=${path%/*}
        done
    done < "/proc/$1/cgroup"
}
ss -Hltnp 2>/dev/null | while read -r _ _ _ local _ users; do
    pid=${users#*pid=}; pid=${pid%%,*}; program=${users#*\"}; program=${program%%\"*}
    unit=
    [ -e "/proc/$pid/cgroup" ] && unit_of "$pid"
    echo "listen ${local##*:} ${pid:-0} ${unit:--} $program"
done; true
"""


class HostPreflight(FactBase[HostFacts | None]):
    """:class:`HostFacts`; None when the host would not answer (sudo refused, no shell)."""

    def command(self, models: Sequence[str]) -> str:
        """One shell script."""
        return _SCRIPT.replace("__MODELS__", " ".join(shlex.quote(path) for path in models)).strip()

    @staticmethod
    def default() -> HostFacts | None:
        """Unknown."""
        return None

    def process(self, output: list[str]) -> HostFacts:
        """Parse what the script printed."""
        return parse(output)


def parse(output: Sequence[str]) -> HostFacts:
    """Parse the lines ``system …``, ``free …``, ``model …`` and ``listen …``."""
    system, free, models, listeners = "", [], {}, []
    for line in output:
        kind, _, rest = line.partition(" ")
        match kind:
            case "system":
                system = rest.strip()
            case "free":
                free.append(int(rest))
            case "model":
                state, _, path = rest.partition(" ")
                models[path] = state
            case "listen":
                port, pid, unit, program = (rest + " ").split(" ", 3)
                listeners.append(
                    Listener(int(port), program.strip(), int(pid) if pid.isdigit() else 0, unit)
                )
    return HostFacts(system, dict(zip(MINIMUM_MB, free, strict=False)), tuple(listeners), models)


def wanted_ports(spec: HostSpec) -> dict[int, str]:
    """The ports that this host's units will listen on, with the unit."""
    ports = {spec.agent_port: "farrier-agent.service", 9100: "prometheus-node-exporter.service"}
    if "gpu" in spec.groups:
        ports[spec.nginx_port] = "nginx.service"
    if "monitor" in spec.groups:
        ports[9090] = "prometheus.service"
    return ports | {model.port: model.unit for model in spec.models}


def judge(facts: HostFacts, spec: HostSpec) -> Iterator[str]:
    """Every reason why this host is not fit to be changed, each with its repair."""
    if facts.system not in SUPPORTED:
        yield (
            f"runs {facts.system or 'an unknown system'}; Farrier knows"
            f" {', '.join(sorted(SUPPORTED))}"
        )
    for directory, minimum in MINIMUM_MB.items():
        if (free := facts.free_mb.get(directory, minimum)) < minimum:
            yield (
                f"{directory} has {free} MB free, {minimum} are needed: df -h {directory};"
                " apt-get clean; journalctl --vacuum-size=200M"
            )
    ports = wanted_ports(spec)
    for listener in sorted(set(facts.listeners), key=lambda item: (item.port, item.pid)):
        unit = ports.get(listener.port)
        if unit and listener.unit != unit:
            yield (
                f"port {listener.port}, meant for {unit}, is taken by {listener.program or '?'}"
                f" (pid {listener.pid}, {listener.unit}): stop it (systemctl status"
                f" {listener.pid}), or give {unit} another port in the inventory"
            )
    for model in spec.models:
        source = model.parsed_source() if model.source else None
        if not isinstance(source, PathSource):
            continue
        state = facts.models.get(str(source.path))
        if state == "no-directory":
            yield (
                f"model {model.name}: {source.path} does not exist on the host: copy the model"
                f" there (rsync -a {model.name}/ {spec.name}:{source.path}/), or correct source="
            )
        elif state == "no-config.json":
            yield (
                f"model {model.name}: {source.path} has no config.json, so it is not a model's"
                " directory, or an unfinished copy: copy it again, or correct source="
            )


def _models(spec: HostSpec) -> Question:
    sources = [model.parsed_source() for model in spec.models if model.source]
    paths = {str(source.path) for source in sources if isinstance(source, PathSource)}
    return Question(HostPreflight, {"models": sorted(paths)})


@operation(asks=_models)
def preflight(spec: HostSpec) -> Commands:
    """Refuse the host, with every reason, unless it is fit for *spec*. Changes nothing.

    + spec: what the host is meant to be
    """
    facts: HostFacts | None = answer()
    if facts is None:
        yield Refuse(
            host.connector_data.get(SUDO_EXPLAINED)
            or "the host did not let itself be looked at; what it said stands above\n"
            f"Look at: ssh {spec.address} sudo -n true; then run the deploy again"
        )
        return
    problems = list(judge(facts, spec))
    if problems:
        yield Refuse("nothing was changed on this host:\n" + "\n".join(f"- {p}" for p in problems))
    else:
        host.noop("fit to be changed")
