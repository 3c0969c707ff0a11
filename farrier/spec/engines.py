"""The engines that Farrier knows, and the flags of theirs that it sets itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

__all__ = ["ENGINES", "PARALLEL_FLAGS", "RESERVED_ENV", "TRTLLM_OPTIONS", "Engine"]

PARALLEL_FLAGS = (
    "tensor-parallel-size",
    "pipeline-parallel-size",
    "data-parallel-size",
    "prefill-context-parallel-size",
)
"""vLLM uses the product of these, each 1 by default, as its number of GPUs (0.32.0,
config/parallel.py). Tensor parallelism stands first."""

TRTLLM_OPTIONS = "/opt/farrier/trtllm/serve.yaml"
"""What every ``trtllm-serve`` is told besides its flags: the role ``trtllm`` writes it."""


@dataclass(frozen=True)
class Engine:
    """What a model's fields have to look like for one kind of engine.

    ``reserved`` maps a flag to the reason why it is not the operator's. ``needs_source``: it
    cannot serve without a model. ``has_command``: it is started by the model's own ``command`` and
    takes no ``args``. ``parallel``: adapters and drafts are told as to vLLM. ``needs_gpus``: it
    has no build for a CPU. ``takes`` are the kinds of its source: ``directory``, ``hub``, ``gguf``,
    ``ollama``. Where it ``may_have_command``, the role's program runs unless the model has one.
    Without ``takes_args`` it has no flags; ``reserved_env`` maps a variable of its
    environment to the reason why it is not the operator's.

    ``one_gpu``: it cannot share a model among several. ``sizes``: flags whose product has to be
    the number of its GPUs, tensor parallelism first; where there is none the role sets that one.
    ``own_name``: it tells the last part of its source's path as the model's name, whatever clients
    call it; of the hub the repository.

    ``example`` is how its program is started, as a ``command``; where it stands, the program has to
    listen on loopback. ``wants`` maps words that its command has to have to the reason why.
    ``adapter`` is how the agent asks it, by the name of its module there.
    """

    name: str
    needs_source: bool = True
    has_command: bool = False
    parallel: bool = False
    reserved: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    needs_gpus: bool = False
    takes: tuple[str, ...] = ("directory", "hub")
    example: tuple[str, ...] = ()
    wants: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    adapter: str = ""
    adapter_on_cpu: str = ""
    user: str = "farrier-engine"
    takes_args: bool = True
    one_gpu: bool = False
    sizes: tuple[str, ...] = ()
    own_name: bool = False
    may_have_command: bool = False
    reserved_env: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    def by_command(self, command: object) -> bool:
        """Whether a model with this *command* is started by it, not by what a role installed."""
        return self.has_command or (self.may_have_command and command is not None)

    def asked_as(self, accelerator: str) -> str:
        """The agent's adapter for it on a host with *accelerator*."""
        on_cpu = self.adapter_on_cpu if accelerator == "cpu" else ""
        return on_cpu or self.adapter or self.name


_LOOPBACK = "engines listen on 127.0.0.1 only, nginx is in front of them"
_NGINX = "nginx speaks to clients, the engine only to nginx"

_ONE_HOST = (
    "a replica is one unit on one host: it is laid out by gpus and the …-parallel-size flags"
)
_ONE_SERVER = (
    "one API server for a unit: of several the others do not wait for what they serve when the unit"
    " stops; more of them are more replicas"
)

VLLM = Engine(
    name="vllm",
    parallel=True,
    sizes=PARALLEL_FLAGS,
    user="farrier-vllm",
    reserved=MappingProxyType(
        {
            "host": _LOOPBACK,
            "port": "it is the model's field port",
            "uds": _LOOPBACK,
            "model": "it comes from the model's field source",
            "revision": "it is the part of source behind the @",
            "code-revision": "it is the part of source behind the @",
            "served-model-name": "it is the model's field name",
            "api-key": "nginx checks the keys; they come from api_keys_file",
            "config": "a file could set what Farrier sets; write the flags in args",
            "download-dir": "models are fetched once, before the engine starts",
            "root-path": _NGINX,
            "middleware": _NGINX,
            "ssl-keyfile": _NGINX,
            "ssl-certfile": _NGINX,
            "ssl-ca-certs": _NGINX,
            "ssl-cert-reqs": _NGINX,
            "ssl-ciphers": _NGINX,
            "enable-ssl-refresh": _NGINX,
            "api-server-count": _ONE_SERVER,
            **dict.fromkeys(
                ("headless", "nnodes", "node-rank", "master-addr"),
                "it comes from the model's field hosts, for one replica over several hosts",
            ),
            "master-port": "it is the model's field master_port",
            **dict.fromkeys(
                (
                    *("data-parallel-rank", "data-parallel-start-rank"),
                    *("data-parallel-size-local", "data-parallel-address"),
                    *("data-parallel-rpc-port", "data-parallel-hybrid-lb"),
                    *("data-parallel-external-lb", "data-parallel-multi-port-external-lb"),
                ),
                _ONE_HOST,
            ),
            "uvicorn-log-level": "nginx keeps the access log",
            "disable-uvicorn-access-log": "nginx keeps the access log",
            "help": "it would print and exit",
            "version": "it would print and exit",
        }
    ),
)
CUSTOM = Engine(
    name="custom",
    needs_source=False,
    has_command=True,
    takes=("directory", "hub", "gguf"),
    adapter="openai",
)

_LISTENS = ("--host", "{host}", "--port", "{port}")
_LOAD = MappingProxyType(
    {"--metrics": "without it the agent sees neither its requests nor whether it gets on"}
)

_ONE_UNIT = "a replica is one unit on one host: it is laid out by gpus"
SGLANG = Engine(
    name="sglang",
    may_have_command=True,
    needs_gpus=True,
    sizes=("tp-size", "pp-size", "dp-size"),
    example=(
        "/opt/sglang/bin/python",
        *("-m", "sglang.launch_server", "--model-path", "{path}"),
        *("--served-model-name", "{model}", *_LISTENS, "--enable-metrics"),
    ),
    wants=MappingProxyType({"--enable-metrics": _LOAD["--metrics"]}),
    reserved=MappingProxyType(
        {
            "host": _LOOPBACK,
            "port": "it is the model's field port",
            "model": "it comes from the model's field source",
            "model-path": "it comes from the model's field source",
            "revision": "it is the part of source behind the @",
            "served-model-name": "it is the model's field name",
            "enable-metrics": "the agent reads them",
            "api-key": "nginx checks the keys; they come from api_keys_file",
            "admin-api-key": "nginx passes on /v1 only",
            "config": "a file could set what Farrier sets; write the flags in args",
            "download-dir": "models are fetched once, before the engine starts",
            "device": "it is the host's accelerator",
            "base-gpu-id": "it comes from the model's field gpus",
            "gpu-id-step": "it comes from the model's field gpus",
            **dict.fromkeys(("fastapi-root-path", "ssl-keyfile", "ssl-certfile"), _NGINX),
            **dict.fromkeys(("tensor-parallel-size", "tp"), "args may have tp-size"),
            **dict.fromkeys(("pipeline-parallel-size", "pp"), "args may have pp-size"),
            **dict.fromkeys(("data-parallel-size", "dp"), "args may have dp-size"),
            **dict.fromkeys(("nnodes", "node-rank", "dist-init-addr"), _ONE_UNIT),
            "help": "it would print and exit",
        }
    ),
)
TRTLLM = Engine(
    name="trtllm",
    may_have_command=True,
    needs_gpus=True,
    own_name=True,
    sizes=("tp-size", "pp-size", "cp-size"),
    example=("/opt/trtllm/bin/trtllm-serve", "{path}", *_LISTENS),
    reserved=MappingProxyType(
        {
            "host": _LOOPBACK,
            "port": "it is the model's field port",
            "revision": "it is the part of source behind the @",
            "gpus-per-node": "it comes from the model's field gpus",
            "grpc": "clients and the agent speak HTTP",
            **dict.fromkeys(
                ("tensor-parallel-size", "pipeline-parallel-size", "context-parallel-size"),
                "args may have tp-size, pp-size and cp-size",
            ),
            **dict.fromkeys(
                ("server-role", "metadata-server-config-file", "disagg-cluster-uri"), _ONE_UNIT
            ),
            "help": "it would print and exit",
        }
    ),
)
LLAMA_CPP = Engine(
    name="llama_cpp",
    may_have_command=True,
    takes=("gguf",),
    example=(
        *("/opt/llama.cpp/bin/llama-server", "--model", "{path}", "--alias", "{model}"),
        *(*_LISTENS, "--metrics"),
    ),
    wants=_LOAD,
    reserved=MappingProxyType(
        {
            "host": _LOOPBACK,
            "port": "it is the model's field port",
            "model": "it comes from the model's field source",
            "alias": "it is the model's field name",
            "metrics": "the agent reads them",
            "api-key": "nginx checks the keys; they come from api_keys_file",
            "api-key-file": "nginx checks the keys; they come from api_keys_file",
            "api-prefix": _NGINX,
            "ssl-key-file": _NGINX,
            "ssl-cert-file": _NGINX,
        }
    ),
)
_STORE = "each pinned model has a directory of its own in the replica's state directory"
OLLAMA = Engine(
    name="ollama",
    takes=("gguf", "ollama"),
    takes_args=False,
    adapter_on_cpu="ollama-on-cpu",
    reserved_env=MappingProxyType(
        {
            "OLLAMA_HOST": "it listens on 127.0.0.1, at the model's field port",
            "OLLAMA_MODELS": _STORE,
            "OLLAMA_NOPRUNE": _STORE,
        }
    ),
)
TRANSFORMERS = Engine(
    name="transformers",
    one_gpu=True,
    reserved=MappingProxyType(
        {
            "host": _LOOPBACK,
            "port": "it is the model's field port",
            "model": "it comes from the model's field source",
            "revision": "it is the part of source behind the @",
            "served-model-name": "it is the model's field name",
            "device": "it is the host's accelerator",
            "help": "it would print and exit",
        }
    ),
)
TGI = Engine(
    name="tgi",
    has_command=True,
    needs_gpus=True,
    example=(
        *("/tgi-entrypoint.sh", "--model-id", "{path}", "--hostname", "{host}"),
        *("--port", "{port}"),
    ),
)
TRITON = Engine(
    name="triton",
    has_command=True,
    example=(
        *("/usr/bin/python3", "/opt/tritonserver/python/openai/openai_frontend/main.py"),
        *("--model-repository", "{path}", "--host", "{host}", "--openai-port", "{port}"),
    ),
)

ENGINES: Mapping[str, Engine] = MappingProxyType(
    {
        engine.name: engine
        for engine in (
            VLLM,
            CUSTOM,
            SGLANG,
            TRTLLM,
            LLAMA_CPP,
            OLLAMA,
            TRANSFORMERS,
            TGI,
            TRITON,
        )
    }
)

RESERVED_ENV: Mapping[str, str] = MappingProxyType(
    {
        "CUDA_VISIBLE_DEVICES": "it comes from the model's field gpus",
        "NVIDIA_VISIBLE_DEVICES": "it comes from the model's field gpus",
        "CUDA_DEVICE_ORDER": "gpus are numbered as nvidia-smi numbers them",
        "HOME": "the unit's state directory is the engine's home",
    }
)
