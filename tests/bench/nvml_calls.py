"""How long each NVML call of the agent takes, and what it answers: ``-m tests.bench.nvml_calls``.

Works with any libnvidia-ml.so.1, real or fake, and needs only the agent and its dependencies. The
session makes its calls as ever, and every C function is timed where the binding looks it up. What
is printed is Markdown for docs/benchmarks.md; ``--capture`` keeps the reading itself, as JSON.
"""

from __future__ import annotations

import argparse
import ctypes
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pynvml
from farrier_agent.gpus import Gpus
from farrier_agent.nvml.errors import NvmlError
from farrier_agent.nvml.session import Session

from tests.bench.figures import table

__all__ = ["Timed", "main", "percentile"]

TYPES = ("double", "uint", "ulong", "ulonglong", "longlong", "int", "ushort")


class Timed:
    """A loaded library whose functions are timed: microseconds by function, and return codes."""

    def __init__(self, library: Any) -> None:
        self.micros: dict[str, list[float]] = defaultdict(list)
        self.codes: dict[str, Counter[int]] = defaultdict(Counter)
        self.fields: dict[tuple[int, int], tuple[int, int, int, int]] = {}
        self._library = library

    def __getattr__(self, name: str) -> Any:
        function = getattr(self._library, name)
        if name == "nvmlErrorString":  # the binding sets its result type
            return function

        def call(*args: Any) -> int:
            begun = time.perf_counter_ns()
            code = int(function(*args))
            micros = (time.perf_counter_ns() - begun) / 1000
            row = name
            if name == "nvmlDeviceGetFieldValues":
                row = f"{name} ({args[1].value} fields)"
                self._look(args[2])
            self.micros[row].append(micros)
            self.codes[row][code] += 1
            return code

        return call

    def _look(self, array: Any) -> None:
        for one in array:
            found = (one.nvmlReturn, one.valueType, one.value.ullVal, one.latencyUsec)
            self.fields.setdefault((one.fieldId, one.scopeId), found)


def percentile(values: Sequence[float], part: float) -> float:
    """The value that *part* (0 to 1) of *values* do not exceed, one of them."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


def load(path: str | None) -> Timed:
    """Load libnvidia-ml.so.1 into the binding, timed. Raises OSError."""
    if path is not None:
        ctypes.CDLL(path)
    timed = Timed(ctypes.CDLL("libnvidia-ml.so.1"))
    pynvml.nvmlLib = timed
    return timed


def readings(session: Session, times: int, every: float) -> tuple[Gpus, list[float], float]:
    """The last of so many readings, the milliseconds of each, and CPU milliseconds of one."""
    walls, cpu = [], 0.0
    for number in range(times):
        if number:
            time.sleep(every)
        begun, busy = time.perf_counter(), time.process_time()
        gpus = session.read()
        walls.append((time.perf_counter() - begun) * 1000)
        cpu += (time.process_time() - busy) * 1000
    return gpus, walls, cpu / times


def of_calls(timed: Timed) -> str:
    """A row for each function: calls, microseconds, return codes."""
    rows = []
    for name, micros in sorted(timed.micros.items(), key=lambda item: -percentile(item[1], 0.5)):
        figures = [percentile(micros, 0.5), percentile(micros, 0.99), max(micros)]
        codes = ", ".join(
            f"{code}" + (f" ({count} times)" if len(timed.codes[name]) > 1 else "")
            for code, count in sorted(timed.codes[name].items())
        )
        rows.append([f"`{name}`", str(len(micros)), *(f"{one:.1f}" for one in figures), codes])
    return table(["call", "calls", "p50 µs", "p99 µs", "max µs", "returns"], rows)


def of_fields(timed: Timed) -> str:
    """A row for each field value that was asked for, of all its links together: first answers."""
    rows: dict[tuple[int, int, int], list[tuple[int, int, int]]] = defaultdict(list)
    for (number, scope), (code, kind, raw, latency) in sorted(timed.fields.items()):
        rows[number, code, kind if code == 0 else 0].append((scope, raw, latency))
    return table(
        ["field", "scopes", "returns", "type", "raw value", "latency µs"],
        [_field(*key, found) for key, found in rows.items()],
    )


def _field(number: int, code: int, kind: int, found: Sequence[tuple[int, int, int]]) -> list[str]:
    scopes = [scope for scope, _, _ in found]
    words = "all" if scopes[0] == 2**32 - 1 else str(scopes[0])
    if len(scopes) > 1:
        words += f" to {scopes[-1]}"
    if code:
        return [str(number), words, str(code), "", "", ""]
    name = TYPES[kind] if 0 <= kind < len(TYPES) else str(kind)
    return [str(number), words, "0", name, str(found[0][1]), str(max(one[2] for one in found))]


def of_readings(kinds: Iterable[tuple[str, Sequence[float], float, float]]) -> str:
    """A row for each kind of reading: calls, milliseconds, and CPU."""
    rows = [
        [name, f"{calls:.0f}"]
        + [f"{one:.2f}" for one in (percentile(walls, 0.5), percentile(walls, 0.99), cpu)]
        for name, walls, cpu, calls in kinds
    ]
    return table(["reading", "calls", "p50 ms", "p99 ms", "CPU ms"], rows)


def main(arguments: Sequence[str] | None = None, say: Callable[[str], None] = print) -> int:
    """Measure and tell; 1 when NVML cannot be used."""
    options = _parse(arguments)
    try:
        timed = load(options.library)
        first = Session(options.library)
        initial, walls, cpu = readings(first, 1, 0)
        kinds = [("the first, with NVML's start", walls, cpu, float(_calls(timed)))]
        first.close()
        for name, slow_every in (("of a tick", 1e9), ("with the slow tier", 0.0)):
            session = Session(options.library, slow_every=slow_every)
            session.read()
            before = _calls(timed)
            gpus, walls, cpu = readings(session, options.readings, options.every)
            kinds.append((name, walls, cpu, (_calls(timed) - before) / options.readings))
            session.close()
    except (NvmlError, OSError) as error:
        print(f"nvml_calls: {error}", file=sys.stderr)
        return 1
    names = Counter(gpu.name or "no name" for gpu in gpus.devices)
    what = ", ".join(f"{count} x {name}" for name, count in names.items()) or "no GPU"
    say(f"{what}; driver {gpus.driver_version}, NVML {gpus.nvml_version}\n")
    say("\n\n".join([of_readings(kinds), of_calls(timed), of_fields(timed)]))
    for problem in dict.fromkeys([*initial.problems, *gpus.problems]):
        say(f"\nproblem: {problem}")
    for field, count in gpus.invalid_total.items():
        say(f"\nout of range: {field}, {count} times")
    if options.capture is not None:
        options.capture.write_bytes(msgspec.json.format(msgspec.json.encode(gpus), indent=1))
    return 0


def _calls(timed: Timed) -> int:
    return sum(len(one) for one in timed.micros.values())


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="nvml_calls", description=__doc__)
    parser.add_argument("--library", help="libnvidia-ml.so.1 (default: the linker's choice)")
    parser.add_argument("--readings", type=int, default=200, help="of each kind (default 200)")
    parser.add_argument("--every", type=float, default=0.05, help="seconds between (default 0.05)")
    parser.add_argument("--capture", type=Path, help="a file for the last reading, as JSON")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
