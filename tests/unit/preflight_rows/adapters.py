"""LoRA adapters that are missing, too large, of another kind, or of another model."""

from __future__ import annotations

from dataclasses import replace

from farrier.facts.weights import WeightsFacts
from farrier.preflight.found import Case
from farrier.weights.adapter import Adapter
from tests.unit.preflight_hosts import QWEN, SPEC, case
from tests.unit.preflight_rows.parts import Row

__all__ = ["LAW", "ROWS", "adapted"]

LAW = "/srv/adapters/law"


def adapted(found: Adapter | str | None, **fields: object) -> Case:
    """A host whose model has an adapter that was *found* so, None for not at all."""
    model = replace(QWEN, lora={"law": f"path:{LAW}"}, **fields)  # type: ignore[arg-type]
    weights = WeightsFacts(adapters={} if found is None else {LAW: found})
    return case(spec=replace(SPEC, models=(model,)), weights=weights)


ROWS = {
    "an adapter that is not there": Row(
        adapted(None),
        "refused",
        "lora-missing",
        f"tar -C law -cf - . | ssh admin@192.0.2.11 'sudo mkdir -p {LAW} && sudo tar -C {LAW} -xf"
        " -'",
        "operator",
    ),
    "a rank above the engine's": Row(
        adapted(Adapter(33)),
        "refused",
        "lora-rank",
        'models: qwen args={"max-lora-rank": 64}',
        "inventory",
    ),
    "an adapter that no room is enough for": Row(
        adapted(Adapter(1024), args={"max-lora-rank": 512}),
        "refused",
        "lora-unsupported",
        f"models: qwen without the adapter {LAW}, or with one that is plain LoRA",
        "inventory",
    ),
    "an adapter of a kind that vLLM does not take": Row(
        adapted(Adapter(8, "", "uses DoRA")),
        "refused",
        "lora-unsupported",
        f"models: qwen without the adapter {LAW}, or with one that is plain LoRA",
        "inventory",
    ),
    "an adapter of another model": Row(
        adapted(Adapter(8, "meta-llama/Llama-3.1-8B")),
        "attention",
        "lora-base",
        f"ssh admin@192.0.2.11 grep base_model_name_or_path {LAW}/adapter_config.json",
        "operator",
    ),
}
