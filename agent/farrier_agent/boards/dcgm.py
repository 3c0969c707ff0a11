"""What ``dcgmi`` prints, as typed values. Pure.

DCGM 3 and 4 shape their JSON differently; a document that is neither is refused, never taken for
one without faults.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from farrier_agent.boards.told import Tested, Verdict

__all__ = ["DcgmError", "discovered", "results"]

_STATES: dict[str, Verdict] = {
    "pass": "pass",
    "warn": "warn",
    "warning": "warn",
    "fail": "fail",
    "skip": "skip",
    "skipped": "skip",
    "not run": "skip",
    "notrun": "skip",
}
_ROW = re.compile(r"\|\s*(\d+)\s*\|")
_UUID = re.compile(r"Device UUID:\s*(GPU-[0-9a-fA-F-]+)")
_MOST_WORDS = 1000


class DcgmError(ValueError):
    """What it printed cannot be understood; the message has the beginning of it."""


def discovered(text: str) -> dict[int, str]:
    """The GPUs of ``dcgmi discovery -l``: UUID by DCGM's own number."""
    found: dict[int, str] = {}
    number: int | None = None
    for line in text.splitlines():
        if match := _ROW.match(line):
            number = int(match[1])
        if number is not None and (match := _UUID.search(line)):
            found[number] = match[1]
    return found


def results(text: str, gpus: Mapping[int, str]) -> tuple[Tested, ...]:
    """The results in the JSON *text* of ``dcgmi diag -j``; *gpus* are UUIDs by DCGM's number.

    Raises DcgmError, also with the runtime error that DCGM tells instead of results.
    """
    begin, end = text.find("{"), text.rfind("}")
    try:
        whole = json.loads(text[begin : end + 1]) if begin >= 0 else None
    except (ValueError, RecursionError):
        whole = None
    told = next((v for k, v in whole.items() if "diagnostic" in k.lower()), None) if whole else None
    if not isinstance(told, dict):
        raise DcgmError(f"dcgmi diag printed no result: {_short(text)}")
    error = told.get("runtime_error") or told.get("error")
    if error:
        raise DcgmError(f"DCGM could not diagnose: {_short(str(error))}")
    found = tuple(_all(told, gpus))
    if not found:
        raise DcgmError(f"dcgmi diag printed no test: {_short(text)}")
    return found


def _all(told: dict[str, Any], gpus: Mapping[int, str]) -> Iterator[Tested]:
    for category in _listed(told.get("test_categories")):
        for test in _listed(category.get("tests")):
            name = str(test.get("name") or category.get("category") or "?")
            for result in _listed(test.get("results")):
                state = _STATES.get(str(result.get("status", "")).strip().lower())
                if state is None:
                    raise DcgmError(f"a result of {name} is {result.get('status')!r}")
                words = tuple(_words(result))
                for gpu in _of(result, gpus):
                    yield Tested(test=name, state=state, gpu=gpu, words=words)


def _of(result: dict[str, Any], gpus: Mapping[int, str]) -> Iterator[str | None]:
    """The GPUs that *result* is of; None once where it is of none."""
    group = str(result.get("entity_group", "GPU")).upper()
    ids = result.get("gpu_id", result.get("gpu_ids", result.get("entity_id")))
    numbers = re.findall(r"\d+", str(ids)) if ids is not None and group == "GPU" else []
    if not numbers:
        yield None
    for number in numbers:
        yield gpus.get(int(number), f"DCGM's GPU {number}")


def _words(result: dict[str, Any]) -> Iterator[str]:
    for key in ("warnings", "warning", "info"):
        said = result.get(key)
        for one in said if isinstance(said, list) else [said]:
            text = one.get("warning") or one.get("message") if isinstance(one, dict) else one
            if text:
                yield _short(str(text))


def _listed(value: object) -> list[dict[str, Any]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def _short(text: str) -> str:
    return " ".join(text.split())[:_MOST_WORDS] or "nothing"
