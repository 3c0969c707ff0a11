"""What engines call things: the paths and metrics of each, over one and the same work.

One program plays them all. A dialect is data: where it says that it lives and is ready, what else
it answers, what its metrics are called, and what SIGTERM does to it unless it was told otherwise.
``farrier_agent.engines`` has the other half, with where each of these was read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from . import shapes
from .manners import Manners
from .work import Work

Page = Callable[[str, Work], bytes]
Shape = Callable[[str, Work, Manners], Any]


@dataclass(frozen=True)
class Dialect:
    """``ready`` is 200 once it serves (``starting`` before), ``alive`` always.

    ``says`` maps further paths to their JSON, ``model`` what it makes of the served name.
    ``metrics`` is the path of its ``page``; "" where it has none. ``names_model``: it refuses
    requests for another model than its own.
    """

    ready: tuple[str, ...] = ("/health",)
    starting: int = 503
    alive: tuple[str, ...] = ()
    says: Mapping[str, Shape] = field(default_factory=dict)
    model: Callable[[str], str] = str
    metrics: str = ""
    page: Page = lambda _model, _work: b""
    on_sigterm: str = "cut"
    names_model: bool = True


def _page(*samples: tuple[str, str, str, Callable[[Work], float]]) -> Page:
    """The page of *samples*: kind, name, labels and value of each."""

    def page(model: str, work: Work) -> bytes:
        lines = []
        for kind, name, labels, value in samples:
            lines += [f"# HELP {name} Of the stand-in.", f"# TYPE {name} {kind}"]
            lines.append(f"{name}{labels.replace('MODEL', model)} {value(work):g}")
        return "\n".join([*lines, ""]).encode()

    return page


def _tagged(model: str) -> str:
    return model if ":" in model.rpartition("/")[2] else f"{model}:latest"


SIZE = 800 * 1024 * 1024


def _loaded(model: str, work: Work, manners: Manners) -> dict[str, Any]:
    """Ollama's /api/ps: a model is there once it was asked for."""
    on_gpus = int(SIZE * manners.on_gpus)
    one = {"name": _tagged(model), "model": _tagged(model), "size": SIZE, "size_vram": on_gpus}
    return {"models": [one] if work.prompted else []}


def _vllm(model: str, work: Work) -> bytes:
    return shapes.exposition(model, work)  # found at each call: tests/bench has another one


DIALECTS: Mapping[str, Dialect] = {
    "vllm": Dialect(metrics="/metrics", page=_vllm),
    "sglang": Dialect(
        ready=("/ready", "/health", "/health_generate"),
        metrics="/metrics",
        page=_page(
            ("gauge", "sglang:num_running_reqs", '{model_name="MODEL"}', lambda w: w.running),
            ("gauge", "sglang:num_queue_reqs", '{model_name="MODEL"}', lambda w: w.waiting),
            ("counter", "sglang:realtime_tokens_total", '{mode="decode"}', lambda w: w.generated),
        ),
        on_sigterm="finish",
    ),
    "trtllm": Dialect(
        says={"/metrics": lambda *_: []},
        metrics="/prometheus/metrics",
        page=_page(
            ("counter", "trtllm_request_success_total", "", lambda w: sum(w.ended().values())),
            ("gauge", "trtllm_num_requests_running", "", lambda w: w.running),
            ("gauge", "trtllm_num_requests_waiting", "", lambda w: w.waiting),
        ),
        on_sigterm="drain",
    ),
    "llama_cpp": Dialect(
        ready=("/health", "/v1/health"),
        metrics="/metrics",
        page=_page(
            ("counter", "llamacpp:prompt_tokens_total", "", lambda w: w.prompted),
            ("counter", "llamacpp:tokens_predicted_total", "", lambda w: w.generated),
            ("counter", "llamacpp:n_decode_total", "", lambda w: w.generated),
            ("gauge", "llamacpp:requests_processing", "", lambda w: w.running),
            ("gauge", "llamacpp:requests_deferred", "", lambda w: w.waiting),
        ),
    ),
    "ollama": Dialect(
        ready=(),
        alive=("/",),
        says={
            "/api/version": lambda *_: {"version": "0.33.0-standin"},
            "/api/ps": _loaded,
        },
        model=_tagged,
    ),
    "transformers": Dialect(
        metrics="/metrics",
        page=_page(
            ("gauge", "transformers:requests_running", "", lambda w: w.running),
            ("gauge", "transformers:requests_waiting", "", lambda w: w.waiting),
            ("counter", "transformers:generation_tokens_total", "", lambda w: w.generated),
        ),
        on_sigterm="drain",
    ),
    "tgi": Dialect(
        ready=("/health", "/ping"),
        says={"/info": lambda model, *_: {"model_id": f"/srv/models/{model}"}},
        metrics="/metrics",
        page=_page(
            ("gauge", "tgi_batch_current_size", "", lambda w: w.running),
            ("gauge", "tgi_queue_size", "", lambda w: w.waiting),
            ("counter", "tgi_batch_inference_count", '{method="decode"}', lambda w: w.generated),
        ),
        on_sigterm="drain",
        names_model=False,
    ),
    "triton": Dialect(
        ready=("/health/ready",),
        starting=400,
        metrics="/metrics",
        page=_page(
            (
                "gauge",
                "nv_inference_pending_request_count",
                '{model="MODEL"}',
                lambda w: w.waiting,
            ),
        ),
        on_sigterm="drain",
    ),
}
