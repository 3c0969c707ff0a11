/* Values that change from reading to reading: memory, use, heat, power, clocks, PCIe, modes. */
#include "fake.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define UNSIGNED(symbol, attribute)                                                                \
    EXPORT int symbol(nvmlDevice_t device, unsigned *out)                                          \
    {                                                                                              \
        return device_unsigned(#symbol, device, attribute, out);                                   \
    }
#define NUMBER(symbol, attribute)                                                                  \
    EXPORT int symbol(nvmlDevice_t device, u64 *out)                                               \
    {                                                                                              \
        return device_number(#symbol, device, attribute, out);                                     \
    }
#define PAIR(symbol, first, second)                                                                \
    EXPORT int symbol(nvmlDevice_t device, unsigned *one, unsigned *two)                           \
    {                                                                                              \
        return device_pair(#symbol, device, first, second, one, two);                              \
    }

UNSIGNED(nvmlDeviceGetPowerUsage, "power.usage")
UNSIGNED(nvmlDeviceGetEnforcedPowerLimit, "power.limit")
UNSIGNED(nvmlDeviceGetPowerManagementLimit, "power.limit")
UNSIGNED(nvmlDeviceGetPowerManagementDefaultLimit, "power.default")
PAIR(nvmlDeviceGetPowerManagementLimitConstraints, "power.min", "power.max")
NUMBER(nvmlDeviceGetTotalEnergyConsumption, "energy")
NUMBER(nvmlDeviceGetCurrentClocksEventReasons, "clocks.reasons")
NUMBER(nvmlDeviceGetCurrentClocksThrottleReasons, "clocks.reasons")
NUMBER(nvmlDeviceGetSupportedClocksEventReasons, "clocks.supported")
NUMBER(nvmlDeviceGetSupportedClocksThrottleReasons, "clocks.supported")
UNSIGNED(nvmlDeviceGetPerformanceState, "pstate")
UNSIGNED(nvmlDeviceGetCurrPcieLinkGeneration, "pcie.generation")
UNSIGNED(nvmlDeviceGetCurrPcieLinkWidth, "pcie.width")
UNSIGNED(nvmlDeviceGetMaxPcieLinkGeneration, "pcie.max.generation")
UNSIGNED(nvmlDeviceGetMaxPcieLinkWidth, "pcie.max.width")
UNSIGNED(nvmlDeviceGetPcieReplayCounter, "pcie.replays")
UNSIGNED(nvmlDeviceGetPersistenceMode, "persistence")
UNSIGNED(nvmlDeviceGetComputeMode, "compute.mode")
PAIR(nvmlDeviceGetEncoderUtilization, "encoder", "encoder.period")
PAIR(nvmlDeviceGetDecoderUtilization, "decoder", "decoder.period")
UNSIGNED(nvmlDeviceGetNumFans, "fans")
UNSIGNED(nvmlDeviceGetFanSpeed, "fan.0")

EXPORT int nvmlDeviceGetFanSpeed_v2(nvmlDevice_t device, unsigned fan, unsigned *out)
{
    char name[24];
    snprintf(name, sizeof name, "fan.%u", fan);
    return device_unsigned("nvmlDeviceGetFanSpeed", device, name, out);
}

EXPORT int nvmlDeviceGetPcieThroughput(nvmlDevice_t device, int counter, unsigned *out)
{
    return device_unsigned("nvmlDeviceGetPcieThroughput", device, counter ? "pcie.rx" : "pcie.tx",
                           out);
}

static int read_memory(nvmlDevice_t device, memory_v2_t *out)
{
    int code = enter_device("nvmlDeviceGetMemoryInfo", device);
    if (code == SUCCESS)
        code = number_of(device, "memory.total", &out->total);
    out->reserved = out->used = 0;
    if (code == SUCCESS && device->mig < 0)
        code = number_of(device, "memory.reserved", &out->reserved);
    if (code == SUCCESS && device->mig < 0)
        code = number_of(device, "memory.used", &out->used);
    if (device->mig >= 0) { /* a MIG device has no defaults */
        number_of(device, "memory.reserved", &out->reserved);
        number_of(device, "memory.used", &out->used);
    }
    out->free = out->total - out->reserved - out->used;
    return code;
}

/* The first form counts the reserved memory as used. */
EXPORT int nvmlDeviceGetMemoryInfo(nvmlDevice_t device, memory_t *out)
{
    memory_v2_t memory = {0};
    int code = read_memory(device, &memory);
    if (code == SUCCESS)
        *out = (memory_t){memory.total, memory.free, memory.used + memory.reserved};
    return code;
}

EXPORT int nvmlDeviceGetMemoryInfo_v2(nvmlDevice_t device, memory_v2_t *out)
{
    if (out->version != (sizeof(memory_v2_t) | 2u << 24))
        return VERSION_MISMATCH;
    memory_v2_t memory = {.version = out->version};
    int code = read_memory(device, &memory);
    if (code == SUCCESS)
        *out = memory;
    return code;
}

EXPORT int nvmlDeviceGetUtilizationRates(nvmlDevice_t device, utilization_t *out)
{
    return device_pair("nvmlDeviceGetUtilizationRates", device, "utilization.gpu",
                       "utilization.memory", &out->gpu, &out->memory);
}

EXPORT int nvmlDeviceGetTemperature(nvmlDevice_t device, int sensor, unsigned *out)
{
    if (sensor != 0)
        return INVALID_ARGUMENT;
    return device_unsigned("nvmlDeviceGetTemperature", device, "temperature", out);
}

EXPORT int nvmlDeviceGetTemperatureV(nvmlDevice_t device, temperature_t *out)
{
    if (out->version != (sizeof(temperature_t) | 1u << 24))
        return VERSION_MISMATCH;
    unsigned value = 0;
    int code = device_unsigned("nvmlDeviceGetTemperatureV", device, "temperature", &value);
    if (code == SUCCESS)
        out->temperature = (int)value;
    return code;
}

EXPORT int nvmlDeviceGetMarginTemperature(nvmlDevice_t device, margin_t *out)
{
    if (out->version != (sizeof(margin_t) | 1u << 24))
        return VERSION_MISMATCH;
    unsigned value = 0;
    int code = device_unsigned("nvmlDeviceGetMarginTemperature", device, "temperature.margin",
                               &value);
    if (code == SUCCESS)
        out->margin = (int)value;
    return code;
}

EXPORT int nvmlDeviceGetTemperatureThreshold(nvmlDevice_t device, int which, unsigned *out)
{
    char name[24];
    snprintf(name, sizeof name, "threshold.%d", which);
    return device_unsigned("nvmlDeviceGetTemperatureThreshold", device, name, out);
}

static const char *const clock_names[] = {"graphics", "sm", "memory", "video"};

static int read_clock(const char *function, const char *prefix, nvmlDevice_t device, int type,
                      unsigned *out)
{
    char name[32];
    if (type < 0 || type > 3)
        return INVALID_ARGUMENT;
    snprintf(name, sizeof name, "%s%s", prefix, clock_names[type]);
    return device_unsigned(function, device, name, out);
}

EXPORT int nvmlDeviceGetClockInfo(nvmlDevice_t device, int type, unsigned *out)
{
    return read_clock("nvmlDeviceGetClockInfo", "clock.", device, type, out);
}

EXPORT int nvmlDeviceGetMaxClockInfo(nvmlDevice_t device, int type, unsigned *out)
{
    return read_clock("nvmlDeviceGetMaxClockInfo", "clock.max.", device, type, out);
}

/* As NVML does: with too small an array only the number, and INSUFFICIENT_SIZE. */
static int list_processes(const char *function, nvmlDevice_t device, const char *name,
                          unsigned *count, process_t *out)
{
    char text[VALUE_SIZE] = "";
    unsigned found = 0, room = *count;
    int code = enter_device(function, device);
    if (code != SUCCESS)
        return code;
    if (text_of(device, name, text) != SUCCESS && text[0])
        return NOT_SUPPORTED;
    for (char *rest = text, *next; *rest; rest = next, found++) {
        next = rest + strcspn(rest, ",");
        if (*next)
            *next++ = '\0';
        process_t one = {0, ~0ull, ~0u, ~0u};
        sscanf(rest, "%u:%llu:%u:%u", &one.pid, &one.used, &one.gpu_instance,
               &one.compute_instance);
        if (out && found < room)
            out[found] = one;
    }
    *count = found;
    return found > room ? INSUFFICIENT_SIZE : SUCCESS;
}

EXPORT int nvmlDeviceGetComputeRunningProcesses_v3(nvmlDevice_t device, unsigned *count,
                                                   process_t *out)
{
    return list_processes("nvmlDeviceGetComputeRunningProcesses", device, "processes", count, out);
}

EXPORT int nvmlDeviceGetGraphicsRunningProcesses_v3(nvmlDevice_t device, unsigned *count,
                                                    process_t *out)
{
    return list_processes("nvmlDeviceGetGraphicsRunningProcesses", device, "processes.graphics",
                          count, out);
}

EXPORT int nvmlDeviceGetMPSComputeRunningProcesses_v3(nvmlDevice_t device, unsigned *count,
                                                      process_t *out)
{
    return list_processes("nvmlDeviceGetMPSComputeRunningProcesses", device, "processes.mps",
                          count, out);
}
