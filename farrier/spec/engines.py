"""The engines that Farrier knows, and the flags of theirs that it sets itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

__all__ = ["ENGINES", "PARALLEL_FLAGS", "RESERVED_ENV", "Engine"]

PARALLEL_FLAGS = ("tensor-parallel-size", "pipeline-parallel-size", "data-parallel-size")
"""vLLM uses the product of these, each 1 by default, as its number of GPUs."""


@dataclass(frozen=True)
class Engine:
    """What a model's fields have to look like for one kind of engine.

    ``reserved`` maps a flag to the reason why it is not the operator's. ``needs_source``: it
    cannot serve without a model directory. ``has_command``: it is started by the model's own
    ``command`` and takes no ``args``. ``parallel``: PARALLEL_FLAGS tell how many GPUs it takes.
    """

    name: str
    needs_source: bool = True
    has_command: bool = False
    parallel: bool = False
    reserved: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


_LOOPBACK = "engines listen on 127.0.0.1 only, nginx is in front of them"
_NGINX = "nginx speaks to clients, the engine only to nginx"

VLLM = Engine(
    name="vllm",
    parallel=True,
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
            "uvicorn-log-level": "nginx keeps the access log",
            "disable-uvicorn-access-log": "nginx keeps the access log",
            "help": "it would print and exit",
            "version": "it would print and exit",
        }
    ),
)
CUSTOM = Engine(name="custom", needs_source=False, has_command=True)

ENGINES: Mapping[str, Engine] = MappingProxyType({engine.name: engine for engine in (VLLM, CUSTOM)})

RESERVED_ENV: Mapping[str, str] = MappingProxyType(
    {
        "CUDA_VISIBLE_DEVICES": "it comes from the model's field gpus",
        "NVIDIA_VISIBLE_DEVICES": "it comes from the model's field gpus",
        "CUDA_DEVICE_ORDER": "gpus are numbered as nvidia-smi numbers them",
        "HOME": "the unit's state directory is the engine's home",
    }
)
