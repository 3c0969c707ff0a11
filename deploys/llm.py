"""The whole fleet: from a bare host to a served model, and every host scraped.

    pyinfra inventory deploys/llm.py

Running engines are never restarted by it, nor is a driver exchanged that is there; see the last
lines of its output.
"""

from pyinfra import config, host

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
from farrier.converge.preflight import preflight
from farrier.inventory import current_fleet
from farrier.spec.check_hosts import is_over_ray

config.SUDO = host.data.get("ssh_user") != "root"

fleet = current_fleet()
spec = fleet.hosts[host.name]

preflight(spec, name="Preflight")
roles.base.base()

if "gpu" in spec.groups and spec.accelerator == "cuda":
    roles.nvidia_driver.nvidia_driver(spec)
    roles.cuda_toolkit.cuda_toolkit()
    roles.nvidia_container_toolkit.nvidia_container_toolkit(spec.roots.proc)

roles.node_exporter.node_exporter()
if "monitor" in spec.groups:
    roles.alertmanager.alertmanager(spec, fleet.group("monitor"))
    roles.prometheus.prometheus(list(fleet.hosts.values()))
    roles.grafana.grafana(spec)

llama_cpp = roles.llama_cpp.llama_cpp_release(
    roles.llama_cpp.DEFAULTS.read(host.data), spec.accelerator
)
over_ray = any(is_over_ray(model) for model in spec.carried)
program = {
    "llama_cpp": f"{llama_cpp.path}/{llama_cpp.program}",
    "vllm": roles.vllm.vllm_environment(
        spec.accelerator, roles.vllm.DEFAULTS.read(host.data), ray=over_ray
    ).path,
    "ollama": roles.ollama.ollama_release(roles.ollama.DEFAULTS.read(host.data)).path,
    "transformers": roles.transformers.transformers_environment(
        spec.accelerator, roles.transformers.DEFAULTS.read(host.data)
    ).path,
    "sglang": roles.sglang.sglang_environment(
        spec.accelerator, roles.sglang.DEFAULTS.read(host.data)
    ).path,
    "trtllm": roles.trtllm.trtllm_environment(
        spec.accelerator, roles.trtllm.DEFAULTS.read(host.data)
    ).path,
}
engine_settings = roles.engine.DEFAULTS.read(host.data)
unit_texts = {
    model.unit: roles.engine.unit_text(
        model, spec, engine_settings, program.get(model.engine, "/usr")
    )
    for model in spec.carried
}

if "gpu" in spec.groups:
    roles.nginx.nginx(spec, fleet.group("gateway"))

roles.agent.agent(
    spec,
    {model.replica: roles.engine.config_hash(unit_texts[model.unit]) for model in spec.carried},
    engine_settings,
    gateways=bool(fleet.group("gateway")),
    fleet=fleet.hosts.values(),
    gateway_tls=roles.gateway.tls_address(roles.gateway.DEFAULTS.read(host.data)),
)

# Before the engines load: a new model is known, and said to be not ready, from the first moment on.
if "gateway" in spec.groups:
    roles.gateway.gateway(spec, fleet.hosts.values())

if any(model.engine == "vllm" for model in spec.carried):
    roles.vllm.vllm(spec.accelerator, ray=over_ray)
if any(model.engine == "transformers" for model in spec.models):
    roles.transformers.transformers(spec.accelerator)
if any(model.engine == "sglang" and model.command is None for model in spec.models):
    roles.sglang.sglang(spec.accelerator)
if any(model.engine == "trtllm" and model.command is None for model in spec.models):
    roles.trtllm.trtllm(spec.accelerator)
if any(model.engine == "ollama" for model in spec.models):
    roles.ollama.ollama()
if any(model.engine == "llama_cpp" and model.command is None for model in spec.models):
    roles.llama_cpp.llama_cpp(spec.accelerator)
if any(model.parsed_image() for model in spec.models):
    roles.podman.podman(spec)

if "gpu" in spec.groups:
    roles.engine.engine(spec, unit_texts)
    roles.engine.serve(spec, unit_texts)
