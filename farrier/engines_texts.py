"""What docs/engines.md says of each engine in words; :mod:`farrier.engines_page` has its tables."""

from __future__ import annotations

__all__ = [
    "AFTER",
    "IMAGES",
    "LLAMA_CPP",
    "OLLAMA",
    "PROGRESS",
    "PYTHON",
    "REFUSED",
    "STANDINS",
    "TRANSFORMERS",
    "VLLM",
]

STANDINS = """
## What was tried on stand-ins

Of Ollama, SGLang, TensorRT-LLM and TGI the programs themselves were not there to be run: CUDA
wheels without a GPU, a tarball and images that could not be fetched. `tests/full/test_standins.py`
has their roles bring programs of the same name instead, which take the flags that the units say and
serve with the stand-in, in that engine's dialect: a tarball of Ollama's layout from a mirror, by
its SHA-256; wheels with locks, by `…_locks` and `…_find_links`; an image archive. GPUs are a fake
NVML's, and CDI devices that are none. On Debian 12 all four on one host, on Debian 13 Ollama on a
CPU. So what was shown is the roles, the units, the adapters, the gate and the drain:

- from bare to serving; a second converge changes nothing; what the engines tell, in
  Prometheus;
- drained and made ready again, restarted, rebooted under load: no request lost, none executed
  twice, by the stand-ins' own account;
- what SIGTERM alone does: Ollama's cuts its streams, SGLang's serves on and says that it is not
  ready, TensorRT-LLM's finishes what it has; a process that is killed comes back (not TGI's: what
  both do to an image is in `tests/full/test_images.py`);
- another version beside the first and back, under load (Ollama, SGLang);
- a pin that is another than the library's serves nothing; `/api/…` and `/debug/pprof` are closed.

Not on these hosts: what is refused beforehand (`tests/unit`) and the roles' removal. What real
programs do in their places was not shown: kernels, memory, the time that a start takes,
tensor parallelism, and whatever of their behaviour the facts of their sources do not say.

"""

AFTER = """
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

VLLM = """
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

PYTHON = """
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

IMAGES = """
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
layers are copies). What was not: the engines' own images, a GPU, a registry with TLS or with a
login that succeeds, and podman's session keyring (which the lab's hosts may not make).
"""

LLAMA_CPP = """
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

OLLAMA = """
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

TRANSFORMERS = """
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

REFUSED = """
## What cannot start

Each of these with a code was put on a bare lab host, all in one inventory, and refused with these
words and exit code 3, by `farrier preflight` and by the deploy, and nothing on the host was another
than before ([preflight.md](preflight.md)). GPUs were files that stand for T4s. What has no code is
found by the deploy alone, when its turn comes; tests look for the beginning of these two messages.
*Shown by* is a part of `make test-full`; `{…}` is what differs.

"""

PROGRESS = """
## Progress

A replica is *wedged* when it has requests and nothing moves ([health.md](health.md)). Where an
engine counts its work step by step, that is what is looked at, and 25 s without a step are enough.
Where it counts a request's tokens only when the request has ended, or not at all, its counters
would call a long answer a fault: no progress is read from them, and only 5 minutes without a byte
on any of its sockets count.

"""
