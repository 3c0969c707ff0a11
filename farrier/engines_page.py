"""docs/engines.md: every engine, how it is asked and how it ends, made from the code.

``python -m farrier.engines_page`` writes it; with ``--check`` nothing is written, and the exit code
is 1 unless the page is right.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from farrier_agent.engines import ENGINES as ADAPTERS
from farrier_agent.engines import Engine as Adapter

from farrier.engine_refusals import REFUSALS
from farrier.generated import row, writing
from farrier.spec.engines import ENGINES, Engine

__all__ = ["PAGE", "TRIED", "page"]

PAGE = Path(__file__).parents[1] / "docs" / "engines.md"

TRIED: Mapping[str, str] = MappingProxyType(
    {
        "vllm": "the real thing, on CPUs",
        "custom": "a stand-in, on hosts",
        "sglang": "a stand-in: it needs CUDA",
        "trtllm": "a stand-in: it needs CUDA",
        "llama_cpp": "the real thing, built on a host, on CPUs",
        "ollama": "a stand-in: its program could not be had",
        "transformers": "the real thing, on CPUs",
        "tgi": "a stand-in: its own image could not be had",
        "triton": "a stand-in in an image, on hosts, by the real podman: its own could not be had",
    }
)
"""What the agent was tried with, for each engine."""

_HEAD = """\
<!-- Written by `make docs` from farrier/spec/engines.py and agent/farrier_agent/engines: change it
there. -->
# Engines

An engine is a program that serves one model on a loopback port. Whatever it is, a replica of it
is the same unit (`engine-<replica>.service`), the same gate, the same warm-up and the same drain:
the requests in flight are nginx's sockets towards it, so its own metrics are not needed for that,
and SIGTERM is sent when none is left. What differs is how the agent asks it, one small module each.

*Tried on* says what the agent was tried with: the real program on hosts, with drains and restarts
under load, or a stand-in that speaks its dialect (`tests/fakes/engine`: one program, each dialect
as data, written after the sources of the version that is named), with a warm-up, a look at its
work, and its SIGTERM. What engines answer to OpenAI's client is in [fidelity.md](fidelity.md).

"""

_AFTER = """
## By a command

Engines that no role installs, and SGLang, TensorRT-LLM and llama.cpp where they are your own, are
started by the model's `command`; the agent knows them all the same. `{host}`, `{port}`, `{model}`
and `{path}` are filled in; the address has to be `{host}`.

    from farrier.spec import Model

    Model("coder", engine="sglang", source="path:/srv/models/coder", gpus=[0, 1],
          command=["/opt/sglang/bin/python", "-m", "sglang.launch_server",
                   "--model-path", "{path}", "--served-model-name", "{model}",
                   "--host", "{host}", "--port", "{port}", "--tp-size", "2", "--enable-metrics"])

"""

_VLLM = """
## vLLM

How it is laid out on a host is in [layouts.md](layouts.md).

- The first request with `logprobs` makes vLLM compile, even with `enforce-eager`, and the whole
  engine stands still meanwhile. So the agent asks for them before the gate opens: the step
  `logprobs` of its warm-up, and no other measures what that takes.
- On CPUs that is C++, by g++ with Python's headers (`vllm_cpu_packages`): 111 s on two busy cores,
  three times the rest of the start, once for each version and replica, as what was compiled is kept
  with its other caches (`TORCHINDUCTOR_CACHE_DIR`). Without a compiler the request is answered 500
  (`InvalidCxxCompiler`) and the engine ends, whoever asked.
- With `enforce-eager` on CPUs nothing is to be compiled, and nothing is: its unit sets
  `TORCHDYNAMO_DISABLE=1`, and the first request with `logprobs` took no longer than the one without
  before it (0.2 s), without a compiler. `env={"TORCHDYNAMO_DISABLE": "0"}` is vLLM's own way.
- Seen with vLLM 0.32.0 on CPUs, before that variable was set: nothing else was compiled for a
  request with `enforce-eager`.
  Asked, one after the other: `top_logprobs`, `prompt_logprobs` (short and long), `echo`,
  `temperature`, `seed`, `top_p`, `top_k`, `min_p`, penalties, `logit_bias`, `bad_words`,
  `min_tokens`, `allowed_token_ids`, `n`, `response_format` (both), structured outputs by a regular
  expression and by a choice, and 3 and 16 requests with logprobs at once: each answered within
  0.3 s, and no file more in the cache.

"""

_PYTHON = """
## SGLang

The role [`sglang`](roles/sglang.md) installs PyPI's wheels by their lock, side by side by version,
as vLLM's does. For CUDA only: a host with accelerator `cpu` is refused. Debian 13 is, too: what
SGLang 0.5.23 pins has no wheel for Python 3.13.

    Model("coder", engine="sglang", source="path:/srv/models/coder", gpus=[0, 1],
          args={"mem-fraction-static": 0.85, "context-length": 32768})

- `--tp-size` is the number of `gpus` unless `args` lays it out: `tp-size` x `pp-size` x `dp-size`
  has to be that number (with `enable-dp-attention` without `dp-size`).
- Heads that cannot be divided, a context longer than the model's, and a driver that is too old for
  the lock's CUDA are refused before anything is changed.
- What it compiles is kept for each replica and version. Kernels that nvcc compiles need a toolkit
  (`cuda_toolkit_version`).

## TensorRT-LLM

The role [`trtllm`](roles/trtllm.md) does the same, with a lock of your own: on PyPI there are only
names of it, whose wheels NVIDIA's index has, and Farrier has no lock of those. Without one hosts
are refused (`engine-unlocked`). On a machine that reaches NVIDIA's index (this was
never tried there: no such lock was made, and no `trtllm-serve` of one was started):

    echo tensorrt-llm==1.2.1 > trtllm.in
    uv pip compile trtllm.in -o locks/cuda-cp312.txt --generate-hashes --no-header --no-annotate \\
        --python-version 3.12 --python-platform x86_64-manylinux_2_31 \\
        --index https://pypi.nvidia.com --index https://download.pytorch.org/whl/cu130 \\
        --index-strategy unsafe-best-match

    trtllm_locks = "locks"      # in inventory/group_data

    Model("qwen", engine="trtllm", source="path:/srv/models/qwen", gpus=[0, 1],
          args={"max-batch-size": 64, "free-gpu-memory-fraction": 0.85})

- `trtllm-serve` tells a model's name itself: the last part of `source`, or of the hub the
  repository. Another `name` is refused.
- `--tp_size` is the number of `gpus` unless `args` has `tp-size`, `pp-size` or `cp-size`. Flags are
  written with dashes and told with underscores.
- Each replica is given `/opt/farrier/trtllm/serve.yaml`, with `return_perf_metrics`. A file of your
  own (`args={"extra-llm-api-options": "/srv/own.yaml"}`) takes its place and has to say it too.
- Its wheels are for Python 3.12, which Ubuntu 24.04 has and Debian has not.

"""

_IMAGES = """
## From an image

TGI and Triton exist only as images, and any engine that is started by a command may be one. The
model says which image; its `command` is then a program in that, with all of its arguments (the
image's own entry point does not count):

    Model("chat", engine="tgi", source="path:/srv/models/chat", gpus=[0, 1],
          image="ghcr.io/huggingface/text-generation-inference@sha256:…",    # a digest, no tag
          command=["/tgi-entrypoint.sh", "--model-id", "{path}", "--num-shard", "2",
                   "--hostname", "{host}", "--port", "{port}"])
    Model("chat", engine="tgi", …, image_archive="/srv/images/tgi-3.3.7.tar@sha256:…")

`image_archive` is what `podman save` or `docker save` wrote of one image: a path on the operator's
machine, or an address. It is fetched once per fleet and pushed. The role
[`podman`](roles/podman.md) pulls or loads the image in a converge, before its unit is written, and
nothing is pulled at a start. Another digest is another unit: a restart is pending until a rollout,
and the image from before stays for the way back (`podman image ls`; `podman image rm` is yours).

- It is the same unit, gate, drain and user, its main process `podman run`
  ([architecture.md](architecture.md#engines-in-images) says how). In the container the engine is
  `farrier-engine` with no capability; the image is read-only, and so is the model, which lies where
  it lies on the host (links that lead out of its directory lead nowhere). What it writes goes to
  the replica's state directory, its home, or to `/tmp`, which is memory.
- Its GPUs come by CDI: `nvidia_container_toolkit = True` ([driver.md](driver.md#containers)). It
  sees those of `gpus` only, numbered from 0.
- **TGI's own images since 3.1** keep their Python under `/root`, where only root may go
  ([issue 3082](https://github.com/huggingface/text-generation-inference/issues/3082)), and end with
  `libpython3.11.so.1.0: cannot open shared object file`. Two lines make one that others may run, to
  be saved as an archive: `FROM ghcr.io/huggingface/text-generation-inference:3.3.7` and
  `RUN chmod 755 /root`.

What of it was tried (`tests/full/test_images.py`): Debian's podman 4.3 and 5.4, crun and
catatonit on the lab's hosts, with an image of one layer (a Python and the stand-in, in Triton's
dialect), from an archive and from a stand-in for a registry: served, drained under load,
restarted, rebooted, changed for another image, killed in each of its processes, stopped with an
engine that ignores SIGTERM; archives and registries that refuse, or have not what is asked. CDI
was tried with devices that are none, overlay storage by hand (the lab's disks take none: its
layers are copies). What was not: the engines' own images, TGI's dialect on a host (it wants
GPUs), a GPU, a registry with TLS or with a login that succeeds, and podman's session keyring
(which the lab's hosts may not make).
"""

_LLAMA_CPP = """
## llama.cpp

Without a `command` the role [`llama_cpp`](roles/llama_cpp.md) brings llama-server: built once on
the host, at the lowest priority, from the sources that PyPI's llama-cpp-python carries, or unpacked
from a release (`llama_cpp_from = "release"`). Both are known by their hash, and kept side by side.
A request's header `X-Conversation-Id` does not reach it: with that, by its source, it generates on
when the client has left, where no drain sees it, and gives the answer to whoever knows the name
(`/v1/stream`).

    Model("small", engine="llama_cpp", gpus=[0], source="path:/srv/models/small.gguf",
          args={"ctx-size": 8192, "n-gpu-layers": 99})

"""

_OLLAMA = """
## Ollama

The role [`ollama`](roles/ollama.md) unpacks its release side by side by version; Ollama's own
installer is not used, as it overwrites units and restarts what runs.

    ollama_version = "0.33.0"
    ollama_sha256 = "…"      # from the release's sha256sum.txt; without it hosts are refused

    Model("qwen3:8b", replica="qwen3", engine="ollama", gpus=[0],
          source="ollama:qwen3:8b@500a1f067a9f…")     # all 64 digits of the manifest's digest
    Model("own", engine="ollama", gpus=[1], port=8102, source="path:/srv/models/own.gguf")

- Each pin has a store of its own in the replica's state directory. The unit fills it before the
  engine starts (`/opt/farrier/ollama/fill`), within `start_timeout` seconds; a pull that was cut
  goes on at the next start. A tag that means other weights than the pin is not served.
- Another pin is another unit: a restart is pending until a rollout, and the store before stays for
  the way back.
- Settings are `OLLAMA_…` variables in `env`; the unit sets the address, the store, a keep-alive
  without end, and one loaded model.
- SIGTERM cuts its streams, and it tells nothing of its requests: the drain in front of it is all
  there is. On a host with GPUs its gate opens only when all of the model is in their memory.
- nginx passes `/v1/…` only: its `/api/…` (pull, push, create, delete, copy, blobs) and
  `/debug/pprof` are for root on the host.

"""

_TRANSFORMERS = """
## Transformers

For models that no engine takes: the role [`transformers`](roles/transformers.md) brings a small
server of Farrier's own (`roles/transformers/server`: FastAPI over Hugging Face's Transformers), in
an environment with locks of its own, so its Transformers may be newer than vLLM's.

    Model("odd", engine="transformers", gpus=[0], source="path:/srv/models/odd",
          args={"dtype": "bfloat16", "max-model-len": 4096, "trust-remote-code": True})

- One model on one GPU, or the CPU, and one generation at a time; `max-waiting` requests wait (64),
  more are answered 503 with `Retry-After`. An engine that knows the model is many times faster.
- `/v1/chat/completions`, `/v1/completions` (stream or not; `stop`, `max_tokens`, `temperature`,
  `top_p`, `top_k`, `seed`, usage), `/v1/models`; for models that embed `/v1/embeddings`, pooled as
  the directory's `1_Pooling` says. What would be left out of an answer (`n`, `logprobs`, `tools`,
  `response_format`, pictures, …) is refused with 400, and so are messages for a model without a
  chat template.
- A client that leaves ends its generation with the token that is being made.
- Python code in the model's directory is run with `trust-remote-code` only, weights that are no
  safetensors are loaded with `allow-pickle` only. Where weights are missing, or there is no GPU, it
  ends and says why; it never takes the CPU instead.
- `/health` is 503 until a token was made. When the thread that computes is lost, it says so,
  answers what runs and waits with an error and exits with 1: systemd starts it again.
- SIGTERM: it stops listening, finishes what runs and waits within `shutdown-timeout` seconds (half
  of `engine_stop_timeout`), ends the rest with an error and exits with 0.
"""

_REFUSED = """
## What cannot start

Each of these with a code was put on a bare lab host, all in one inventory, and refused with these
words and exit code 3, by `farrier preflight` and by the deploy, and nothing on the host was another
than before ([preflight.md](preflight.md)). GPUs were files that stand for T4s. What has no code is
found by the deploy alone, when its turn comes; tests look for the beginning of these two messages.
*Shown by* is a part of `make test-full`; `{…}` is what differs.

"""

_PROGRESS = """
## Progress

A replica is *wedged* when it has requests and nothing moves ([health.md](health.md)). Where an
engine counts its work step by step, that is what is looked at, and 25 s without a step are enough.
Where it counts a request's tokens only when the request has ended, or not at all, its counters
would call a long answer a fault: no progress is read from them, and only 5 minutes without a byte
on any of its sockets count.

"""


def page() -> str:
    """The whole page."""
    lines = [
        "| engine | version | tried on | asked at | what SIGTERM does to running requests | how"
        " running requests are counted, besides nginx's sockets |",
        "|---|---|---|---|---|---|",
        *(_row(one) for one in ENGINES.values()),
    ]
    commands = ["| engine | source | its program |", "|---|---|---|"]
    commands += [_command(one) for one in ENGINES.values() if one.example]
    progress = ["| engine | progress by |", "|---|---|"]
    progress += [
        row([f"`{one.name}`", _adapter(one).progress or "bytes on its sockets"])
        for one in ENGINES.values()
    ]
    parts = (
        _HEAD,
        _lines(lines),
        _AFTER,
        _lines(commands),
        _VLLM,
        _PYTHON,
        _IMAGES,
        _LLAMA_CPP,
        _OLLAMA,
        _TRANSFORMERS,
        _REFUSED,
        _lines(_refusals()),
        _PROGRESS,
        _lines(progress),
    )
    return "".join(parts)


def _refusals() -> list[str]:
    return [
        "| what | code | message | next | shown by |",
        "|---|---|---|---|---|",
        *(
            row(
                [
                    one.what,
                    f"`{one.code}`" if one.code else "",
                    f"`{one.message}`",
                    f"`{one.repair.replace('{{', '{').replace('}}', '}')}`",
                    one.shown_by,
                ]
            )
            for one in REFUSALS.values()
        ),
    ]


def _lines(lines: list[str]) -> str:
    return "\n".join([*lines, ""])


def _adapter(engine: Engine) -> Adapter:
    return ADAPTERS[engine.asked_as("cuda")]


def _row(engine: Engine) -> str:
    adapter = _adapter(engine)
    asked = [f"`{path}`" for path in (*adapter.paths, *filter(None, [adapter.metrics]))]
    return row(
        [
            f"`{engine.name}`",
            adapter.known or "any",
            TRIED[engine.name],
            " ".join(asked),
            adapter.sigterm,
            adapter.counted,
        ]
    )


def _command(engine: Engine) -> str:
    kinds = {
        "directory": "`path:` a directory",
        "hub": "`hf:`",
        "gguf": "`path:` a `.gguf` file",
        "ollama": "`ollama:`",
    }
    source = ", ".join(kinds[kind] for kind in engine.takes)
    words = " ".join(engine.example)
    return row(
        [f"`{engine.name}`", source if engine.needs_source else f"{source}, or none", f"`{words}`"]
    )


main = writing(PAGE, page, "farrier/spec/engines.py and agent/farrier_agent/engines")

if __name__ == "__main__":
    main()
