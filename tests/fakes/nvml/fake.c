/*
 * A fake NVML: the real nvidia-ml-py loads it as libnvidia-ml.so.1 where no GPU and no driver is.
 *
 * What it answers stands in a state file of "key value" lines ($FAKE_NVML_STATE, else
 * /etc/fake-nvml.state), looked at before every call, so that a test changes a GPU under a running
 * program by replacing the file. Without the file there is no driver (DRIVER_NOT_LOADED). The last
 * line of a key wins. Numbers are decimal or 0x hexadecimal, may be negative, and are given out as
 * they are, cut to the width that NVML has for them: every garbage value can be written
 * (9223372036854775794 bytes, 345 degrees, 808334905 percent).
 *
 * The host
 *   count 2                        number of GPUs (default 1, 0 to 64)
 *   driver 580.95.05               driver version; nvml and cuda (13000) likewise
 *   log /tmp/calls                 append "<pid> <function> [<gpu>]" for every call
 *   xid.<n> <gpu> <xid> [<type>]   an event, n = 1, 2, 3 …: given once to whoever waits for events
 *                                  of that GPU and type (default 8, a critical XID). Lines that
 *                                  stood there when nvmlInit was called are old and never given
 *
 * A GPU, by its number in this file
 *   0.<attribute> 41               an attribute (below) of GPU 0, in NVML's own units
 *   all.<attribute> 41             the same for every GPU that has no line of its own
 *   0.<attribute> N/A              NVML_ERROR_NOT_SUPPORTED
 *   0.lost 1                       every call on GPU 0 is NVML_ERROR_GPU_IS_LOST
 *   0.gone 1                       the same, and NVML no longer enumerates it: the indices of those
 *                                  after it shift, their numbers here and their UUIDs stay
 *
 * Faults of a function, which is the C symbol without a version suffix (nvmlInit,
 * nvmlDeviceGetMemoryInfo), or * for any; with the number of a GPU only for calls on that GPU
 *   err.<function>[.<gpu>] 18      returns 18 (err.* 18: driver and library differ; 13: the symbol
 *                                  is missing, which the binding does not tell apart)
 *   hang.<function>[.<gpu>] 60000  sleeps so many ms, or until the line is gone, then goes on
 *
 * Attributes, with the function that gives them where their name does not say; the defaults, an
 * idle H200 among NVSwitches, are in values.c
 *   identity     name serial uuid pci (00000000:18:00.0) pci.device vbios inforom gsp gsp.mode
 *                gsp.default architecture compute.major compute.minor minor
 *   memory       memory.total memory.reserved memory.used (bytes; the rest is free)
 *   use          utilization.gpu utilization.memory encoder decoder (percent) encoder.period
 *                decoder.period (us)
 *   heat         temperature temperature.memory (field 82) temperature.margin tlimit.shutdown
 *                tlimit.slowdown tlimit.memory tlimit.gpu (fields 193 to 196) threshold.<0..7>
 *                fans fan.<i> (percent)
 *   power        power.usage power.average power.limit power.default power.min power.max (mW)
 *                energy (mJ)
 *   clocks       clock.graphics clock.sm clock.memory clock.video clock.max.* (MHz)
 *                clocks.reasons clocks.supported (masks) pstate
 *   PCIe         pcie.generation pcie.width pcie.max.generation pcie.max.width pcie.replays
 *                pcie.tx pcie.rx (KB/s)
 *   errors       ecc.mode ecc.pending ecc.<corrected|uncorrected>.<volatile|aggregate>[.<l1|l2|
 *                dram|register|texture|texture_shm|cbu|sram>] (none of them with ecc.mode 0)
 *                sram.threshold sram.<aggregate|volatile>.<parity|secded|corrected>
 *                sram.bucket.<l2|sm|pcie|mcu|other> remapped.<corrected|uncorrected|pending|failed>
 *                remapper.<max|high|partial|low|none> retired.sbe retired.dbe (addresses: 0x1000,…)
 *                retired.pending recovery (field 230)
 *   fabric       fabric.state fabric.status fabric.clique fabric.health fabric.summary
 *   modes        persistence compute.mode mig.mode mig.pending mig.max events.supported nvlinks
 *   processes    processes 4711:1000,4712 (pid:bytes, N/A without a number; also pid:bytes:gpu
 *                instance:compute instance); processes.graphics and processes.mps likewise
 *   MIG          mig.<k>.gi 7 makes MIG device k, with mig.<k>.ci, .uuid, .name, .memory.total,
 *                .memory.reserved, .memory.used, .slices, .multiprocessors, .processes
 *   fields       fv.<id>[.<scope>] [<type>:]<value> for nvmlDeviceGetFieldValues, of any field;
 *                without a line fields.c says which attribute it is. <type> is d, ui, ul, ull, sll,
 *                si, us or a number (garbage); the value err:<code> gives that field's nvmlReturn
 *
 * Struct layouts are checked against the installed binding by tests/agent/test_fake_nvml.py, which
 * also drives every function. Not faked: the D state (SIGSTOP the caller), the driver's latency.
 */
#include "fake.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

EXPORT const char *nvmlErrorString(int code)
{
    switch (code) {
    case SUCCESS: return "Success";
    case UNINITIALIZED: return "Uninitialized";
    case INVALID_ARGUMENT: return "Invalid Argument";
    case NOT_SUPPORTED: return "Not Supported";
    case 4: return "Insufficient Permissions";
    case NOT_FOUND: return "Not Found";
    case INSUFFICIENT_SIZE: return "Insufficient Size";
    case DRIVER_NOT_LOADED: return "Driver Not Loaded";
    case TIMEOUT: return "Timeout";
    case 13: return "Function Not Found";
    case GPU_IS_LOST: return "GPU is lost";
    case 16: return "GPU requires reset";
    case 18: return "Driver/library version mismatch";
    case VERSION_MISMATCH: return "Argument version mismatch";
    default: return "Unknown Error";
    }
}

static int system_text(const char *function, const char *key, const char *otherwise, char *out,
                       unsigned size)
{
    char value[VALUE_SIZE];
    int code = enter(function, -1);
    if (code != SUCCESS)
        return code;
    return copy_text(state_find(key, value) ? value : otherwise, out, size);
}

EXPORT int nvmlSystemGetDriverVersion(char *out, unsigned size)
{
    return system_text("nvmlSystemGetDriverVersion", "driver", "580.95.05", out, size);
}

EXPORT int nvmlSystemGetNVMLVersion(char *out, unsigned size)
{
    return system_text("nvmlSystemGetNVMLVersion", "nvml", "13.580.95.05", out, size);
}

EXPORT int nvmlSystemGetCudaDriverVersion(int *out)
{
    char value[VALUE_SIZE];
    int code = enter("nvmlSystemGetCudaDriverVersion", -1);
    if (code == SUCCESS)
        *out = state_find("cuda", value) ? atoi(value) : 13000;
    return code;
}

/* The sizes of the layouts in fake.h, for the test that compares them with the binding's. */
EXPORT int fakeStructSize(const char *name)
{
    static const struct { const char *name; int size; } sizes[] = {
        {"c_nvmlMemory_t", sizeof(memory_t)},
        {"c_nvmlMemory_v2_t", sizeof(memory_v2_t)},
        {"c_nvmlUtilization_t", sizeof(utilization_t)},
        {"c_nvmlTemperature_v1_t", sizeof(temperature_t)},
        {"c_nvmlMarginTemperature_v1_t", sizeof(margin_t)},
        {"nvmlPciInfo_t", sizeof(pci_t)},
        {"c_nvmlProcessInfo_v2_t", sizeof(process_t)},
        {"c_nvmlProcessInfo_v3_t", sizeof(process_t)},
        {"c_nvmlValue_t", sizeof(value_t)},
        {"c_nvmlFieldValue_t", sizeof(field_t)},
        {"c_nvmlEventData_t", sizeof(event_t)},
        {"c_nvmlEccSramErrorStatus_v1_t", sizeof(sram_t)},
        {"c_nvmlRowRemapperHistogramValues", sizeof(histogram_t)},
        {"c_nvmlGpuFabricInfo_t", sizeof(fabric_t)},
        {"c_nvmlGpuFabricInfo_v2_t", sizeof(fabric_v2_t)},
        {"c_nvmlGpuFabricInfo_v3_t", sizeof(fabric_v3_t)},
        {"c_nvmlDeviceAttributes", sizeof(attributes_t)},
    };
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        if (strcmp(sizes[i].name, name) == 0)
            return sizes[i].size;
    return -1;
}
