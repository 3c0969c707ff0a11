"""The agent's reading of NVML: base units, and absence instead of nonsense."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from farrier_agent.nvml import values

PROGRAM = """
import sys, msgspec
from farrier_agent.nvml import session
one = session.Session(sys.argv[1], lost_retry=0.0)
for line in sys.stdin:
    with open(sys.argv[2] + ".new", "w") as out: out.write(line.replace(";", "\\n"))
    __import__("os").replace(sys.argv[2] + ".new", sys.argv[2])
    try: print(msgspec.json.encode(one.read()).decode())
    except session.NvmlError as error: print(msgspec.json.encode({"error": str(error)}).decode())
"""


def read(library: Path, tmp_path: Path, *states: str) -> list[Any]:
    """What one session reads while NVML goes through *states* (lines divided by semicolons)."""
    path = tmp_path / "state"
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(library), str(path)],
        input="".join(f"{state};\n" for state in states),
        env={**os.environ, "FAKE_NVML_STATE": str(path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_base_units(nvml_library: Path, tmp_path: Path) -> None:
    state = "0.utilization.gpu 61;0.utilization.memory 23;0.clock.sm 1590;0.memory.used 300"
    (gpus,) = read(nvml_library, tmp_path, state)
    (gpu,) = gpus["devices"]
    assert gpu["utilization_ratio"] == 0.61
    assert gpu["memory_busy_ratio"] == 0.23
    assert gpu["sm_clock_hertz"] == 1_590_000_000
    assert gpu["power_watts"] == 76.5
    assert gpu["power_limit_watts"] == 700.0
    assert gpu["temperature_celsius"] == 31.0
    assert gpu["memory_used_bytes"] == 300
    assert gpu["memory_total_bytes"] == 150754820096
    assert gpus["problems"] == []
    assert gpus["driver_version"] == "580.95.05"


def test_what_a_gpu_does_not_support_is_absent_and_no_problem(
    nvml_library: Path, tmp_path: Path
) -> None:
    (gpus,) = read(nvml_library, tmp_path, "0.utilization.gpu N/A;0.power.usage N/A")
    (gpu,) = gpus["devices"]
    assert gpu["utilization_ratio"] is None
    assert gpu["memory_busy_ratio"] is None
    assert gpu["power_watts"] is None
    assert gpu["power_limit_watts"] == 700.0
    assert gpus["problems"] == []


def test_nonsense_is_absent_and_told(nvml_library: Path, tmp_path: Path) -> None:
    state = "0.temperature 345;0.utilization.gpu 808334905;0.memory.used 9223372036854775794"
    (gpus,) = read(nvml_library, tmp_path, state)
    (gpu,) = gpus["devices"]
    assert gpu["temperature_celsius"] is None
    assert gpu["utilization_ratio"] is None
    assert gpu["memory_used_bytes"] is None
    assert gpu["memory_total_bytes"] is None
    assert len(gpus["problems"]) == 3


def test_an_odd_error_costs_one_value(nvml_library: Path, tmp_path: Path) -> None:
    (gpus,) = read(nvml_library, tmp_path, "err.nvmlDeviceGetPowerUsage.0 999")
    assert gpus["devices"][0]["power_watts"] is None
    assert gpus["devices"][0]["temperature_celsius"] == 31.0
    assert gpus["problems"] == ["GPU 0: nvmlDeviceGetPowerUsage: Unknown Error"]


def test_a_lost_gpu_keeps_its_name_and_can_come_back(nvml_library: Path, tmp_path: Path) -> None:
    before, lost, still, back = read(
        nvml_library, tmp_path, "count 2", "count 2;1.lost 1", "count 2;1.lost 1", "count 2"
    )
    assert [gpu["up"] for gpu in before["devices"]] == [True, True]
    for gpus in (lost, still):
        assert gpus["count"] == 2
        assert [gpu["up"] for gpu in gpus["devices"]] == [True, False]
        assert gpus["devices"][1]["uuid"] == before["devices"][1]["uuid"]
        assert gpus["devices"][1]["temperature_celsius"] is None
        assert gpus["devices"][0]["temperature_celsius"] == 31.0
    assert back == before


def test_a_gpu_that_was_lost_from_the_start_is_told(nvml_library: Path, tmp_path: Path) -> None:
    (gpus,) = read(nvml_library, tmp_path, "count 2;0.lost 1")
    assert [gpu["index"] for gpu in gpus["devices"]] == [1]
    assert gpus["problems"] == ["GPU 0 is lost, and its UUID is not known"]


def test_a_gpu_that_vanishes_gives_its_index_to_the_next(
    nvml_library: Path, tmp_path: Path
) -> None:
    two = "count 2;0.uuid GPU-a;1.uuid GPU-b"
    before, after = read(nvml_library, tmp_path, two, "count 1;0.uuid GPU-b")
    assert [gpu["uuid"] for gpu in before["devices"]] == ["GPU-a", "GPU-b"]
    assert [gpu["uuid"] for gpu in after["devices"]] == ["GPU-b"]


def test_a_driver_that_goes_and_comes(nvml_library: Path, tmp_path: Path) -> None:
    gone, there, mismatch, again = read(
        nvml_library,
        tmp_path,
        "err.nvmlInit 9",
        "count 1",
        "err.nvmlDeviceGetCount 18",
        "count 1",
    )
    assert gone == {"error": "nvmlInit: Driver Not Loaded"}
    assert there["count"] == 1
    assert "reboot the host" in mismatch["error"]
    assert again == there


def test_no_gpu_at_all_is_a_count_of_zero(nvml_library: Path, tmp_path: Path) -> None:
    (gpus,) = read(nvml_library, tmp_path, "count 0")
    assert gpus["count"] == 0
    assert gpus["devices"] == []


def test_a_library_that_is_not_there_is_named(tmp_path: Path) -> None:
    (answer,) = read(tmp_path / "libnvidia-ml.so.1", tmp_path, "count 1")
    assert str(tmp_path / "libnvidia-ml.so.1") in answer["error"]


@pytest.mark.parametrize(
    ("convert", "raw", "value"),
    [
        (values.ratio, 0, 0.0),
        (values.ratio, 100, 1.0),
        (values.ratio, 101, None),
        (values.celsius, -10, -10.0),
        (values.celsius, 345, None),
        (values.watts, 0, 0.0),
        (values.watts, 2**32 - 1, None),
        (values.hertz, 0, 0),
        (values.hertz, 14001, 14_001_000_000),
        (values.hertz, 2**32 - 1, None),
    ],
)
def test_ranges(convert: Any, raw: int, value: float | None) -> None:
    assert convert(raw) == value
