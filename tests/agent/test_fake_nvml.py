"""The fake NVML under the real nvidia-ml-py, each time in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

PRELUDE = """
import ctypes, os, sys, threading, time
ctypes.CDLL(sys.argv[1])
import pynvml as n
def put(text):
    path = os.environ["FAKE_NVML_STATE"]
    with open(path + ".new", "w") as out: out.write(text)
    os.replace(path + ".new", path)
def error(function, *args):
    try: return function(*args)
    except n.NVMLError as problem: return type(problem).__name__
"""


def ask(library: Path, tmp_path: Path, state: str | None, program: str) -> str:
    path = tmp_path / "state"
    if state is not None:
        path.write_text(state)
    result = subprocess.run(
        [sys.executable, "-c", PRELUDE + program, str(library)],
        env={**os.environ, "FAKE_NVML_STATE": str(path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def test_the_binding_reads_every_field_in_its_place(nvml_library: Path, tmp_path: Path) -> None:
    state = """\
# two GPUs, the second of another kind
count 2
driver 570.1
all.memory.total 1000
1.memory.total 2000
1.memory.used 300
1.memory.reserved 40
1.name NVIDIA L4
1.utilization.gpu 61
1.utilization.memory 23
1.temperature 45
1.power.usage 65000
1.clock.sm 1590
"""
    program = """
n.nvmlInit()
h = n.nvmlDeviceGetHandleByIndex(1)
m, u = n.nvmlDeviceGetMemoryInfo(h, n.nvmlMemory_v2), n.nvmlDeviceGetUtilizationRates(h)
print(n.nvmlDeviceGetCount(), n.nvmlSystemGetDriverVersion(), n.nvmlDeviceGetName(h))
print(m.total, m.used, m.reserved, m.free, n.nvmlDeviceGetMemoryInfo(h).used)
print(u.gpu, u.memory, n.nvmlDeviceGetTemperature(h, 0), n.nvmlDeviceGetTemperatureV(h, 0))
print(n.nvmlDeviceGetPowerUsage(h), n.nvmlDeviceGetClockInfo(h, n.NVML_CLOCK_SM))
print(n.nvmlDeviceGetPciInfo(h).busId, n.nvmlDeviceGetUUID(h))
print(n.nvmlDeviceGetMemoryInfo(n.nvmlDeviceGetHandleByIndex(0), n.nvmlMemory_v2).total)
"""
    assert ask(nvml_library, tmp_path, state, program).splitlines() == [
        "2 570.1 NVIDIA L4",
        "2000 300 40 1660 340",
        "61 23 45 45",
        "65000 1590",
        "00000000:20:00.0 GPU-fa4e0000-0000-4000-8000-000000000001",
        "1000",
    ]


def test_errors_losses_and_gaps_follow_the_file(nvml_library: Path, tmp_path: Path) -> None:
    program = """
n.nvmlInit()
h = [n.nvmlDeviceGetHandleByIndex(i) for i in (0, 1)]
print([error(n.nvmlDeviceGetTemperature, one, 0) for one in h])
put("count 2\\n1.lost 1\\n0.temperature 50\\nerr.nvmlDeviceGetName.0 999\\n")
print([error(n.nvmlDeviceGetTemperature, one, 0) for one in h])
print(error(n.nvmlDeviceGetName, h[0]), error(n.nvmlDeviceGetHandleByIndex, 1))
print(error(n.nvmlDeviceGetHandleByIndex, 2))
"""
    assert ask(nvml_library, tmp_path, "count 2\n0.temperature N/A\n", program).splitlines() == [
        "['NVMLError_NotSupported', 31]",
        "[50, 'NVMLError_GpuIsLost']",
        "NVMLError_Unknown NVMLError_GpuIsLost",
        "NVMLError_InvalidArgument",
    ]


def test_without_a_file_there_is_no_driver(nvml_library: Path, tmp_path: Path) -> None:
    program = "print(error(n.nvmlInit), error(n.nvmlDeviceGetCount))"
    answer = ask(nvml_library, tmp_path, None, program)
    assert answer == "NVMLError_DriverNotLoaded NVMLError_Uninitialized"


def test_a_hung_call_lets_others_work_and_ends_with_its_line(
    nvml_library: Path, tmp_path: Path
) -> None:
    program = """
n.nvmlInit()
h = n.nvmlDeviceGetHandleByIndex(0)
hung = threading.Thread(target=n.nvmlDeviceGetTemperature, args=(h, 0))
hung.start()
hung.join(0.3)
print(hung.is_alive(), n.nvmlDeviceGetPowerUsage(h))
put("count 1\\n")
hung.join(10)
print(hung.is_alive())
"""
    state = "hang.nvmlDeviceGetTemperature.0 60000\n"
    assert ask(nvml_library, tmp_path, state, program).splitlines() == ["True 76500", "False"]
