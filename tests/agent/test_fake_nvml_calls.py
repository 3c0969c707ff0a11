"""Every function of the fake NVML, driven through the real nvidia-ml-py in one process each."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pynvml
import pytest

LAYOUTS = [
    *("c_nvmlMemory_t", "c_nvmlMemory_v2_t", "c_nvmlUtilization_t", "c_nvmlTemperature_v1_t"),
    *("c_nvmlMarginTemperature_v1_t", "nvmlPciInfo_t", "c_nvmlProcessInfo_v2_t"),
    *("c_nvmlProcessInfo_v3_t", "c_nvmlValue_t", "c_nvmlFieldValue_t", "c_nvmlEventData_t"),
    *("c_nvmlEccSramErrorStatus_v1_t", "c_nvmlRowRemapperHistogramValues"),
    *("c_nvmlGpuFabricInfo_t", "c_nvmlGpuFabricInfo_v2_t", "c_nvmlGpuFabricInfo_v3_t"),
    "c_nvmlDeviceAttributes",
]

CALLS = {
    # C symbol -> a call of it on GPU 1, `h`; `m` is a MIG device of GPU 0
    "nvmlInitWithFlags": "n.nvmlInit()",
    "nvmlShutdown": "n.nvmlShutdown()",
    "nvmlSystemGetDriverVersion": "n.nvmlSystemGetDriverVersion()",
    "nvmlSystemGetNVMLVersion": "n.nvmlSystemGetNVMLVersion()",
    "nvmlSystemGetCudaDriverVersion": "n.nvmlSystemGetCudaDriverVersion()",
    "nvmlDeviceGetCount_v2": "n.nvmlDeviceGetCount()",
    "nvmlDeviceGetHandleByIndex_v2": "n.nvmlDeviceGetHandleByIndex(1)",
    "nvmlDeviceGetHandleByUUID": "n.nvmlDeviceGetHandleByUUID(UUID)",
    "nvmlDeviceGetHandleByPciBusId_v2": "n.nvmlDeviceGetHandleByPciBusId('00000000:20:00.0')",
    "nvmlDeviceGetPciInfo_v3": "n.nvmlDeviceGetPciInfo(h)",
    "nvmlDeviceGetMemoryInfo": "n.nvmlDeviceGetMemoryInfo(h)",
    "nvmlDeviceGetMemoryInfo_v2": "n.nvmlDeviceGetMemoryInfo(h, n.nvmlMemory_v2)",
    "nvmlDeviceGetTemperature": "n.nvmlDeviceGetTemperature(h, 0)",
    "nvmlDeviceGetTemperatureV": "n.nvmlDeviceGetTemperatureV(h, 0)",
    "nvmlDeviceGetTemperatureThreshold": "n.nvmlDeviceGetTemperatureThreshold(h, 0)",
    "nvmlDeviceGetClockInfo": "n.nvmlDeviceGetClockInfo(h, 3)",
    "nvmlDeviceGetMaxClockInfo": "n.nvmlDeviceGetMaxClockInfo(h, 3)",
    "nvmlDeviceGetPcieThroughput": "n.nvmlDeviceGetPcieThroughput(h, 1)",
    "nvmlDeviceGetFanSpeed_v2": "n.nvmlDeviceGetFanSpeed_v2(h, 1)",
    "nvmlDeviceGetTotalEccErrors": "n.nvmlDeviceGetTotalEccErrors(h, 1, 0)",
    "nvmlDeviceGetMemoryErrorCounter": "n.nvmlDeviceGetMemoryErrorCounter(h, 0, 1, 7)",
    "nvmlDeviceGetSramEccErrorStatus": "n.nvmlDeviceGetSramEccErrorStatus(h, sram)",
    "nvmlDeviceGetRetiredPages": "n.nvmlDeviceGetRetiredPages(h, 1)",
    "nvmlDeviceGetRetiredPages_v2": "n.nvmlDeviceGetRetiredPages_v2(h, 0)",
    "nvmlDeviceGetGpuFabricInfo": "n.nvmlDeviceGetGpuFabricInfo(h, fabric1)",
    "nvmlDeviceGetGpuFabricInfoV": "n.nvmlDeviceGetGpuFabricInfoV(h, fabric3)",
    "nvmlDeviceGetFieldValues": "n.nvmlDeviceGetFieldValues(h, [82, (165, 3)])",
    "nvmlDeviceGetComputeRunningProcesses_v3": "n.nvmlDeviceGetComputeRunningProcesses(h)",
    "nvmlDeviceGetGraphicsRunningProcesses_v3": "n.nvmlDeviceGetGraphicsRunningProcesses(h)",
    "nvmlDeviceGetMPSComputeRunningProcesses_v3": "n.nvmlDeviceGetMPSComputeRunningProcesses(h)",
    "nvmlDeviceGetMigDeviceHandleByIndex": "n.nvmlDeviceGetMigDeviceHandleByIndex(h, 0)",
    "nvmlDeviceGetGpuInstanceId": "n.nvmlDeviceGetGpuInstanceId(m)",
    "nvmlDeviceGetComputeInstanceId": "n.nvmlDeviceGetComputeInstanceId(m)",
    "nvmlDeviceGetAttributes_v2": "n.nvmlDeviceGetAttributes(m)",
    "nvmlDeviceGetDeviceHandleFromMigDeviceHandle": (
        "n.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(m)"
    ),
    "nvmlEventSetCreate": "n.nvmlEventSetCreate()",
    "nvmlDeviceRegisterEvents": "n.nvmlDeviceRegisterEvents(h, 8, events)",
    "nvmlEventSetWait_v2": "timed_out(events)",
    "nvmlEventSetFree": "n.nvmlEventSetFree(n.nvmlEventSetCreate())",
}
"""Those with more than a handle; the others are called with it alone."""

NO_CALL = {"nvmlErrorString", "nvmlInit_v2", "fakeStructSize"}
"""No function of a driver, or one that the binding does not call."""

ON_NO_GPU = {
    *("nvmlInitWithFlags", "nvmlShutdown", "nvmlDeviceGetCount_v2", "nvmlEventSetCreate"),
    *("nvmlEventSetWait_v2", "nvmlEventSetFree", "nvmlSystemGetDriverVersion"),
    *("nvmlSystemGetNVMLVersion", "nvmlSystemGetCudaDriverVersion"),
}

STATE = """\
count 2
1.mig.mode 1
1.mig.0.gi 7
1.mig.0.ci 2
1.threshold.0 95
1.fans 2
1.fan.0 40
1.fan.1 50
1.retired.dbe 0x1000,0x2000
1.retired.sbe 0
1.retired.pending 1
1.processes 4711:1000
"""

PROGRAM = """
import ctypes, json, os, sys
ctypes.CDLL(sys.argv[1])
import pynvml as n
UUID = "GPU-fa4e0000-0000-4000-8000-000000000001"
calls, base, path = json.loads(sys.argv[2]), sys.argv[3], os.environ["FAKE_NVML_STATE"]
def put(text):
    with open(path + ".new", "w") as out: out.write(text)
    os.replace(path + ".new", path)
def timed_out(events):
    try: n.nvmlEventSetWait_v2(events, 1)
    except n.NVMLError_Timeout: return "timeout"
put(base)
n.nvmlInit()
h = n.nvmlDeviceGetHandleByIndex(1)
m = n.nvmlDeviceGetMigDeviceHandleByIndex(h, 0)
events = n.nvmlEventSetCreate()
sram = n.c_nvmlEccSramErrorStatus_v1_t()
fabric1, fabric3 = n.c_nvmlGpuFabricInfo_t(), n.c_nvmlGpuFabricInfo_v3_t()
sram, fabric1, fabric3 = map(ctypes.byref, (sram, fabric1, fabric3))
def result(call):
    try: answer = eval(call)
    except n.NVMLError as error: return f"error {error.value}"
    return "" if answer is None else str(answer)
out = {}
for symbol, call in calls.items():
    name = symbol.split("_v")[0].replace("WithFlags", "")
    got = [result(call)]
    if "Shutdown" in symbol: n.nvmlInit()
    for fault in ("err.NAME 999", "err.NAME.1 19", "err.* 18", "1.lost 1"):
        put(base + fault.replace("NAME", name) + "\\n")
        got.append(result(call))
        put(base)
        if "Shutdown" in symbol: n.nvmlInit()
    out[symbol] = got
print(json.dumps(out))
"""


def exported(library: Path) -> set[str]:
    out = subprocess.run(
        ["nm", "-D", "--defined-only", str(library)], capture_output=True, text=True, check=True
    )
    return {line.split()[-1] for line in out.stdout.splitlines()}


@pytest.fixture(scope="module")
def results(nvml_library: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    symbols = sorted(exported(nvml_library) - NO_CALL)
    calls = {symbol: CALLS.get(symbol, f"n.{symbol}(h)") for symbol in symbols}
    state = tmp_path_factory.mktemp("calls") / "state"
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(nvml_library), json.dumps(calls), STATE],
        env={**os.environ, "FAKE_NVML_STATE": str(state)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    found: dict[str, list[Any]] = json.loads(run.stdout)
    return found


@pytest.mark.parametrize("name", LAYOUTS)
def test_layouts_are_those_of_the_installed_binding(nvml_library: Path, name: str) -> None:
    size = ctypes.CDLL(str(nvml_library)).fakeStructSize
    assert size(name.encode()) == ctypes.sizeof(getattr(pynvml, name))


def test_every_call_of_the_table_is_exported(nvml_library: Path) -> None:
    assert set(CALLS) <= exported(nvml_library)


def test_a_bare_host_answers_every_call(results: dict[str, list[Any]]) -> None:
    refused = {symbol: got[0] for symbol, got in results.items() if got[0].startswith("error")}
    assert refused == {}


def test_every_call_has_the_error_of_its_function(results: dict[str, list[Any]]) -> None:
    assert {got[1] for got in results.values()} == {"error 999"}


def test_every_call_on_a_gpu_has_the_error_of_that_gpu(results: dict[str, list[Any]]) -> None:
    for symbol, got in results.items():
        assert got[2] == (got[0] if symbol in ON_NO_GPU else "error 19") or (
            # what a call prints may be another object's address
            symbol in ON_NO_GPU and not got[2].startswith("error")
        ), symbol


def test_a_mismatch_is_in_every_call(results: dict[str, list[Any]]) -> None:
    assert {got[3] for got in results.values()} == {"error 18"}


def test_a_lost_gpu_is_lost_to_every_call(results: dict[str, list[Any]]) -> None:
    for symbol, got in results.items():
        assert got[4].startswith("error") is (symbol not in ON_NO_GPU), symbol
        if symbol not in ON_NO_GPU:
            assert got[4] == "error 15", symbol
