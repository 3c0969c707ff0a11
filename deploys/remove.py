"""Takes one of Farrier's roles, or all of them, away from hosts.

    pyinfra inventory deploys/remove.py --data role=prometheus
    pyinfra inventory deploys/remove.py --data role=all --limit gpu03

A role is removed from the hosts whose groups have it. Removing ``engine`` drains the replicas: it
waits for the requests in flight. Removing ``nginx``, ``vllm``, ``transformers``, ``sglang``,
``trtllm``, ``ollama``, ``podman`` or ``base`` alone cuts them.
``nvidia_driver`` is refused while engines run, and purges the packages that Farrier installed for
it. Debian's other packages, the models in /srv/models, the users, Prometheus' samples,
Alertmanager's silences and Grafana's database stay. A following deploys/llm.py brings everything
back.
"""

from pyinfra import config, host, logger
from pyinfra.api.exceptions import PyinfraError

import roles.agent
import roles.alertmanager
import roles.base
import roles.cuda_toolkit
import roles.engine
import roles.gateway
import roles.grafana
import roles.llama_cpp
import roles.nginx
import roles.node_exporter
import roles.nvidia_container_toolkit
import roles.nvidia_driver
import roles.ollama
import roles.podman
import roles.prometheus
import roles.sglang
import roles.transformers
import roles.trtllm
import roles.vllm
from farrier.inventory import current_fleet

config.SUDO = host.data.get("ssh_user") != "root"

spec = current_fleet().hosts[host.name]

# In the order in which they are taken away: what depends on others goes before them.
REMOVALS = {
    "gateway": ("gateway", roles.gateway.remove),
    "engine": ("gpu", lambda: roles.engine.remove(spec)),
    "agent": (None, roles.agent.remove),
    "nginx": ("gpu", roles.nginx.remove),
    "vllm": ("gpu", roles.vllm.remove),
    "ollama": ("gpu", roles.ollama.remove),
    "transformers": ("gpu", roles.transformers.remove),
    "sglang": ("gpu", roles.sglang.remove),
    "trtllm": ("gpu", roles.trtllm.remove),
    "llama_cpp": ("gpu", roles.llama_cpp.remove),
    "podman": ("gpu", roles.podman.remove),
    "nvidia_container_toolkit": ("gpu", roles.nvidia_container_toolkit.remove),
    "cuda_toolkit": ("gpu", roles.cuda_toolkit.remove),
    "nvidia_driver": ("gpu", roles.nvidia_driver.remove),
    "grafana": ("monitor", roles.grafana.remove),
    "alertmanager": ("monitor", roles.alertmanager.remove),
    "prometheus": ("monitor", roles.prometheus.remove),
    "node_exporter": (None, roles.node_exporter.remove),
    "base": (None, roles.base.remove),
}

asked = host.data.get("role")
if asked not in {*REMOVALS, "all"}:
    raise PyinfraError(
        f"{f'there is no role {asked!r}' if asked else 'no role was named'}; nothing was changed.\n"
        f"  Roles: {', '.join(sorted(REMOVALS))}, and all\n"
        "  Say which: pyinfra inventory deploys/remove.py --data role=NAME [--limit HOST]"
    )

for role, (group, remove) in REMOVALS.items():
    if asked not in {role, "all"} or (group and group not in spec.groups):
        continue
    names = ", ".join(model.replica for model in spec.models)
    told = {"engine": f"removing engine waits until what {names} serves has ended"}
    if asked != "all":
        told |= dict.fromkeys(
            ("nginx", "vllm", "transformers", "sglang", "trtllm", "podman", "base"),
            f"removing {role} cuts what {names} serves; nothing is drained",
        )
    for model in spec.members if role in told else ():
        rank = spec.ranks[model.replica]
        if rank.head == host.name:
            continue
        host.log_styled(
            f"removing {role} takes {rank.replica} of {rank.head} down, which has rank"
            f" {rank.number} here: drain it there first",
            fg="yellow",
            log_func=logger.warning,
        )
    if role in told and spec.models:
        host.log_styled(
            told[role],
            fg="yellow",
            log_func=logger.warning,
        )
    remove()
