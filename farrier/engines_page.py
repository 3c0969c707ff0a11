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
from farrier.engines_texts import (
    AFTER,
    IMAGES,
    LLAMA_CPP,
    OLLAMA,
    PROGRESS,
    PYTHON,
    REFUSED,
    STANDINS,
    TRANSFORMERS,
    VLLM,
)
from farrier.generated import row, writing
from farrier.spec.engines import ENGINES, Engine

__all__ = ["PAGE", "TRIED", "page"]

PAGE = Path(__file__).parents[1] / "docs" / "engines.md"

TRIED: Mapping[str, str] = MappingProxyType(
    {
        "vllm": "the real thing, on CPUs",
        "custom": "a stand-in, on hosts",
        "sglang": "a stand-in in a wheel of its name, on a host: it needs CUDA",
        "trtllm": "a stand-in in a wheel of its name, on a host: it needs CUDA",
        "llama_cpp": "the real thing, built on a host, on CPUs",
        "ollama": "a stand-in in a release tarball, on hosts: its program could not be had",
        "transformers": "the real thing, on CPUs",
        "tgi": "a stand-in in an image, on a host, by the real podman: its own could not be had",
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
        AFTER,
        _lines(commands),
        STANDINS,
        VLLM,
        PYTHON,
        IMAGES,
        LLAMA_CPP,
        OLLAMA,
        TRANSFORMERS,
        REFUSED,
        _lines(_refusals()),
        PROGRESS,
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
