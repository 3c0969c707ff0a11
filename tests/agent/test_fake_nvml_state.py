"""What the state file of the fake NVML can say: GPUs that go, fields, events, MIG, garbage."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.agent.test_fake_nvml import ask


@pytest.mark.parametrize("count", [0, 1, 8, 16])
def test_any_number_of_gpus_with_names_of_their_own(
    nvml_library: Path, tmp_path: Path, count: int
) -> None:
    program = """
n.nvmlInit()
handles = [n.nvmlDeviceGetHandleByIndex(i) for i in range(n.nvmlDeviceGetCount())]
names = {n.nvmlDeviceGetUUID(h) for h in handles}
places = {n.nvmlDeviceGetPciInfo(h).busId for h in handles}
print(len(handles), len(names), len(places))
"""
    answer = ask(nvml_library, tmp_path, f"count {count}\n", program)
    assert answer == f"{count} {count} {count}"


def test_a_gpu_that_is_gone_shifts_indices_and_no_names(nvml_library: Path, tmp_path: Path) -> None:
    program = """
n.nvmlInit()
def who():
    handles = [n.nvmlDeviceGetHandleByIndex(i) for i in range(n.nvmlDeviceGetCount())]
    return [(n.nvmlDeviceGetIndex(h), n.nvmlDeviceGetMinorNumber(h),
             n.nvmlDeviceGetUUID(h)[-1]) for h in handles]
first = n.nvmlDeviceGetHandleByIndex(0)
print(who())
put("count 3\\n0.gone 1\\n1.temperature 50\\n")
print(who())
print(error(n.nvmlDeviceGetTemperature, first, 0), error(n.nvmlDeviceGetHandleByIndex, 2))
print(n.nvmlDeviceGetTemperature(n.nvmlDeviceGetHandleByIndex(0), 0))
"""
    assert ask(nvml_library, tmp_path, "count 3\n", program).splitlines() == [
        "[(0, 0, '0'), (1, 1, '1'), (2, 2, '2')]",
        "[(0, 1, '1'), (1, 2, '2')]",
        "NVMLError_GpuIsLost NVMLError_InvalidArgument",
        "50",
    ]


def test_field_values_have_types_codes_and_scopes(nvml_library: Path, tmp_path: Path) -> None:
    state = """\
0.power.usage 90000
0.temperature.memory 77
0.remapped.pending 1
0.recovery 2
0.tlimit.slowdown -2
0.fv.161.3 12
0.fv.165.5 0
0.fv.186 ui:808334905
0.fv.94 err:15
0.fv.142 N/A
0.fv.143 9:7
0.fv.82.1 d:1.5
"""
    program = """
n.nvmlInit()
h = n.nvmlDeviceGetHandleByIndex(0)
for v in n.nvmlDeviceGetFieldValues(h, [82, 144, 230, 194, 190, (161, 3), (161, 4), (165, 5),
        (165, 6), (165, 18), (138, 0xffffffff), 186, 94, 142, 143, (82, 1), 9999]):
    print(v.fieldId, v.scopeId, v.nvmlReturn, v.valueType,
          v.value.dVal if v.valueType == 0 else v.value.sllVal if v.valueType == 3 else
          v.value.siVal)
"""
    assert ask(nvml_library, tmp_path, state, program).splitlines() == [
        "82 0 0 1 77",
        "144 0 0 1 1",
        "230 0 0 1 2",
        "194 0 0 5 -2",
        "190 0 0 1 700000",
        "161 3 0 3 12",
        "161 4 0 3 0",
        "165 5 0 1 0",
        "165 6 0 1 1",
        "165 18 2 1 0",
        "138 4294967295 0 3 0",
        "186 0 0 1 808334905",
        "94 0 15 1 0",
        "142 0 3 1 0",
        "143 0 0 9 7",
        "82 1 0 0 1.5",
        "9999 0 3 3 0",
    ]


def test_garbage_is_given_out_as_it_is_written(nvml_library: Path, tmp_path: Path) -> None:
    state = """\
0.memory.used 9223372036854775794
0.temperature 345
0.temperature.margin -7
0.utilization.gpu 808334905
0.energy 0xffffffffffffffff
0.power.usage 4294967295
"""
    program = """
n.nvmlInit()
h = n.nvmlDeviceGetHandleByIndex(0)
print(n.nvmlDeviceGetMemoryInfo(h, n.nvmlMemory_v2).used, n.nvmlDeviceGetTemperature(h, 0),
      n.nvmlDeviceGetMarginTemperature(h), n.nvmlDeviceGetUtilizationRates(h).gpu,
      n.nvmlDeviceGetTotalEnergyConsumption(h), n.nvmlDeviceGetPowerUsage(h))
"""
    assert ask(nvml_library, tmp_path, state, program) == (
        "9223372036854775794 345 -7 808334905 18446744073709551615 4294967295"
    )


def test_errors_of_memory_and_fabric_are_in_their_places(
    nvml_library: Path, tmp_path: Path
) -> None:
    state = """\
0.ecc.uncorrected.volatile.sram 3
0.ecc.corrected.aggregate 9
0.sram.threshold 1
0.sram.bucket.other 4
0.remapped.uncorrected 2
0.remapped.failed 1
0.remapper.none 5
0.retired.dbe 0x1000,0x2000
0.fabric.state 2
0.fabric.status 999
0.fabric.health 0x1a9
"""
    program = """
n.nvmlInit()
h = n.nvmlDeviceGetHandleByIndex(0)
print(n.nvmlDeviceGetMemoryErrorCounter(h, 1, 0, 7), n.nvmlDeviceGetTotalEccErrors(h, 0, 1),
      n.nvmlDeviceGetMemoryErrorCounter(h, 1, 0, 2))
sram = n.c_nvmlEccSramErrorStatus_v1_t()
n.nvmlDeviceGetSramEccErrorStatus(h, ctypes.byref(sram))
print(sram.bThresholdExceeded, sram.aggregateUncBucketOther, sram.volatileCor)
print(n.nvmlDeviceGetRemappedRows(h), n.nvmlDeviceGetRowRemapperHistogram(h).none)
print(n.nvmlDeviceGetRetiredPages(h, 1), error(n.nvmlDeviceGetRetiredPages, h, 0))
for info in (n.c_nvmlGpuFabricInfo_v2_t(), n.c_nvmlGpuFabricInfo_v3_t()):
    n.nvmlDeviceGetGpuFabricInfoV(h, ctypes.byref(info))
    print(info.state, info.status, hex(info.healthMask))
put("0.ecc.mode 0\\n")
print(n.nvmlDeviceGetEccMode(h)[0], error(n.nvmlDeviceGetTotalEccErrors, h, 0, 0))
"""
    assert ask(nvml_library, tmp_path, state, program).splitlines() == [
        "3 9 0",
        "1 4 0",
        "(0, 2, 0, 1) 5",
        "[4096, 8192] NVMLError_NotSupported",
        "2 999 0x1a9",
        "2 999 0x1a9",
        "0 NVMLError_NotSupported",
    ]


def test_mig_devices_are_of_their_gpu(nvml_library: Path, tmp_path: Path) -> None:
    state = """\
count 2
1.mig.mode 1
1.mig.2.gi 7
1.mig.2.ci 1
1.mig.2.memory.total 1073741824
1.mig.2.memory.used 5
1.processes 4711:100:7:1,4712
"""
    program = """
n.nvmlInit()
g, h = n.nvmlDeviceGetHandleByIndex(0), n.nvmlDeviceGetHandleByIndex(1)
print(n.nvmlDeviceGetMigMode(g)[0], n.nvmlDeviceGetMigMode(h)[0],
      n.nvmlDeviceGetMaxMigDeviceCount(h))
print([error(n.nvmlDeviceGetMigDeviceHandleByIndex, h, i) for i in (0, 1)])
m = n.nvmlDeviceGetMigDeviceHandleByIndex(h, 2)
print(n.nvmlDeviceGetUUID(m)[:4], n.nvmlDeviceGetGpuInstanceId(m),
      n.nvmlDeviceGetComputeInstanceId(m), n.nvmlDeviceGetMemoryInfo(m, n.nvmlMemory_v2).used,
      n.nvmlDeviceGetAttributes(m).memorySizeMB, error(n.nvmlDeviceGetTemperature, m, 0))
for p in n.nvmlDeviceGetComputeRunningProcesses(h):
    print(p.pid, p.usedGpuMemory, p.gpuInstanceId, p.computeInstanceId)
"""
    assert ask(nvml_library, tmp_path, state, program).splitlines() == [
        "0 1 7",
        "['NVMLError_NotFound', 'NVMLError_NotFound']",
        "MIG- 7 1 5 1024 NVMLError_NotSupported",
        "4711 100 7 1",
        "4712 None 4294967295 4294967295",
    ]


def test_events_are_given_once_in_order_to_those_who_wait(
    nvml_library: Path, tmp_path: Path
) -> None:
    program = """
n.nvmlInit()
handles = [n.nvmlDeviceGetHandleByIndex(i) for i in (0, 1)]
events = n.nvmlEventSetCreate()
for h in handles: n.nvmlDeviceRegisterEvents(h, 8, events)
def address(h): return ctypes.cast(h, ctypes.c_void_p).value
def wait(events, ms=10000):
    try: e = n.nvmlEventSetWait_v2(events, ms)
    except n.NVMLError_Timeout: return None
    return [address(h) for h in handles].index(address(e.device)), e.eventData, e.eventType
print(wait(events, 200))
put("count 2\\nxid.3 1 48\\nxid.1 0 13\\nxid.2 0 79\\nxid.4 1 5 2\\n")
print(wait(events), wait(events), wait(events, 200))
put("count 2\\nxid.3 1 48\\nxid.5 0 31\\n")
print(wait(events), wait(events, 200))
other = n.nvmlEventSetCreate()
n.nvmlDeviceRegisterEvents(handles[1], 8, other)
put("count 2\\nxid.6 0 1\\nxid.7 1 2\\n")
print(wait(other), wait(other, 200), wait(events), wait(events))
"""
    assert ask(nvml_library, tmp_path, "count 2\nxid.1 0 94\n", program).splitlines() == [
        "None",
        "(0, 79, 8) (1, 48, 8) None",
        "(0, 31, 8) None",
        "(1, 2, 8) None (0, 1, 8) (1, 2, 8)",
    ]


def test_the_calls_are_logged(nvml_library: Path, tmp_path: Path) -> None:
    program = """
n.nvmlInit()
n.nvmlDeviceGetTemperature(n.nvmlDeviceGetHandleByIndex(1), 0)
print([line.split()[1:] for line in open(sys.argv[1] + ".log")])
"""
    log = f"{nvml_library}.log"
    Path(log).unlink(missing_ok=True)
    assert ask(nvml_library, tmp_path, f"count 2\nlog {log}\n", program) == (
        "[['nvmlInit'], ['nvmlDeviceGetHandleByIndex', '1'], ['nvmlDeviceGetTemperature', '1']]"
    )
