"""Models that cannot start, and the words with which they are refused.

docs/engines.md lists them; ``tests/full/test_bad_input.py`` puts those with a code on a host and
compares what was told, letter by letter. ``{path}`` is the model's directory or file, ``{ssh}`` the host.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["REFUSALS", "Refusal"]


@dataclass(frozen=True)
class Refusal:
    """*what* is wrong, the *message*, and the line that repairs it.

    *code* is preflight's, "" for what only the deploy itself finds out; *shown_by* is the host test
    that showed it.
    """

    what: str
    message: str
    repair: str
    code: str = ""
    shown_by: str = "bad_input"


_COPY = "tar -C {name} -cf - . | {ssh} 'sudo mkdir -p {path} && sudo tar -C {path} -xf -'"
_AGAIN = "copy it again (rsync resumes), or correct source="
_SAME = "copy it again, or correct the inventory"

REFUSALS: dict[str, Refusal] = {
    "architecture": Refusal(
        "an architecture that the engine does not know",
        "model {name}: vLLM 0.32.0 has no NoSuchForCausalLM, and Transformers no type 'nosuch'",
        'models: {name} needs engine="custom" with a program that serves NoSuchForCausalLM, or a'
        " vllm_version that does",
        "model-architecture",
    ),
    "quantisation": Refusal(
        "a quantisation that the GPU lacks (MXFP4 on a T4)",
        "model {name}: mxfp4 needs compute capability 8.0, which Turing does not have",
        "models: {name} needs GPUs of compute capability 8.0 or newer, or other weights",
        "model-quantisation-gpu",
    ),
    "heads": Refusal(
        "tensor parallelism that does not divide the heads",
        "model {name}: 3 attention heads and 3 of keys and values cannot be divided among 2 GPUs",
        "models: {name} takes tensor-parallel-size 1 or 3",
        "model-heads",
    ),
    "rank": Refusal(
        "a LoRA rank over the limit",
        "model {name}: the adapter {adapter} has rank 64, the engine has room for 16",
        'models: {name} args={{"max-lora-rank": 64}}',
        "lora-rank",
    ),
    "context": Refusal(
        "a context longer than the model's",
        "model {name}: max-model-len 131072, and the model has a context of 2048 tokens",
        'models: {name} args={{"max-model-len": 2048}}',
        "model-context",
    ),
    "gguf": Refusal(
        "a GGUF cut short",
        "model {name}: {path} is cut short: {size} of at least {whole} bytes",
        "{ssh} 'sudo mkdir -p {folder} && sudo tee {path} > /dev/null' < {file}",
        "gguf-broken",
    ),
    "page": Refusal(
        "a config.json that is no JSON",
        f"model {{name}}: {{path}}/config.json is not valid JSON: {_SAME}",
        "{ssh} head -c 200 {path}/config.json",
        "model-config-broken",
    ),
    "empty": Refusal(
        "an empty config.json",
        f"model {{name}}: {{path}}/config.json is empty: {_SAME}",
        "{ssh} ls -ld {path}/config.json",
        "model-config-broken",
    ),
    "folder": Refusal(
        "a directory in place of config.json",
        f"model {{name}}: {{path}}/config.json is a directory: {_SAME}",
        "{ssh} ls -ld {path}/config.json",
        "model-config-broken",
    ),
    "header": Refusal(
        "safetensors cut short within their header",
        f"model {{name}}: {{path}}/model.safetensors is cut short: 50 of at least {{whole}} bytes:"
        f" {_AGAIN}",
        _COPY,
        "model-incomplete",
    ),
    "data": Refusal(
        "safetensors cut short",
        f"model {{name}}: {{path}}/model.safetensors is cut short: {{size}} of {{whole}} bytes:"
        f" {_AGAIN}",
        _COPY,
        "model-incomplete",
    ),
    "pointer": Refusal(
        "a pointer of git-lfs in place of weights",
        "model {name}: {path}/model.safetensors is a pointer of git-lfs, not the weights (git lfs"
        f" pull, where it came from): {_AGAIN}",
        _COPY,
        "model-incomplete",
    ),
    "tarball": Refusal(
        "a tarball with the wrong hash",
        "{url} has the SHA-256 {found}, and the inventory wants {wanted}: the file is another than"
        " was meant, or damaged. Nothing was kept or unpacked.",
        "Compare with the hash that its project publishes, and correct the one that is wrong",
        shown_by="llama_cpp",
    ),
    "image": Refusal(
        "an image that is not there",
        "{registry} has no image {image} with the digest {digest}",
        "skopeo inspect docker://{image}:TAG, or the registry's page, for the digest of the image"
        " that is meant; correct image= and run the deploy again",
        shown_by="images",
    ),
}
