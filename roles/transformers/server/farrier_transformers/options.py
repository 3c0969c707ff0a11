"""The command line."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["DTYPES", "Options", "parse"]

DTYPES = ("auto", "float32", "bfloat16", "float16")
TASKS = ("auto", "generate", "embed")


@dataclass(frozen=True)
class Options:
    """What is served, and how. ``shutdown_timeout`` is in seconds, ``max_model_len`` in tokens."""

    model: str
    name: str
    device: str
    revision: str | None = None
    host: str = "127.0.0.1"
    port: int = 8000
    dtype: str = "auto"
    task: str = "auto"
    max_model_len: int | None = None
    max_waiting: int = 64
    shutdown_timeout: float = 60.0
    trust_remote_code: bool = False
    allow_pickle: bool = False


def parse(words: Sequence[str] | None = None) -> Options:
    """The options in *words*, the process's own without; ends the process where they are wrong."""
    said = _parser().parse_args(words)
    return Options(
        model=said.model,
        name=said.served_model_name or Path(said.model).name,
        device=said.device,
        revision=said.revision,
        host=said.host,
        port=said.port,
        dtype=said.dtype,
        task=said.task,
        max_model_len=said.max_model_len,
        max_waiting=said.max_waiting,
        shutdown_timeout=said.shutdown_timeout,
        trust_remote_code=said.trust_remote_code,
        allow_pickle=said.allow_pickle,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m farrier_transformers",
        description="Serve one model of Hugging Face's Transformers with OpenAI's endpoints.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--model", required=True, help="a directory, or a repository of the Hugging Face hub")
    add("--revision", help="the repository's commit, tag or branch")
    add("--served-model-name", help="what clients ask for; default: the last part of --model")
    add("--host", default=Options.host, help="address to listen on (%(default)s)")
    add("--port", type=_whole(0), default=Options.port, help="port to listen on (%(default)s)")
    add(
        "--device",
        required=True,
        type=_device,
        help="cpu, cuda or cuda:N; where it is not there the server ends, it never takes another",
    )
    add("--dtype", choices=DTYPES, default="auto", help="of the weights; auto: the checkpoint's")
    add("--task", choices=TASKS, default="auto", help="auto: embed where the model cannot generate")
    add("--max-model-len", type=_whole(1), help="tokens of prompt and answer; default: the model's")
    add(
        "--max-waiting",
        type=_whole(0),
        default=Options.max_waiting,
        help="requests that wait while one runs; more are answered 503 (%(default)s)",
    )
    add(
        "--shutdown-timeout",
        type=_seconds,
        default=Options.shutdown_timeout,
        help="seconds after SIGTERM in which what runs and waits is finished (%(default)g)",
    )
    add("--trust-remote-code", action="store_true", help="run the Python code that the model has")
    add("--allow-pickle", action="store_true", help="weights that are not safetensors, too")
    return parser


def _whole(least: int) -> Callable[[str], int]:
    def whole(text: str) -> int:
        number = int(text)
        if number < least:
            raise argparse.ArgumentTypeError(f"{text} is less than {least}")
        return number

    return whole


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 <= seconds < 86400:
        raise argparse.ArgumentTypeError(f"{text}: seconds from 0 to a day")
    return seconds


def _device(text: str) -> str:
    kind, colon, number = text.partition(":")
    if kind not in {"cpu", "cuda"} or (colon and (kind == "cpu" or not number.isdecimal())):
        raise argparse.ArgumentTypeError(f"{text!r}: cpu, cuda or cuda:N")
    return text
