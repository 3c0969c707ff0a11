/* Which GPUs there are, and who they are. */
#include "fake.h"
#include <stdio.h>
#include <string.h>
#include <strings.h>

EXPORT int nvmlDeviceGetCount_v2(unsigned *out)
{
    int code = enter("nvmlDeviceGetCount", -1);
    if (code == SUCCESS)
        *out = (unsigned)index_of(gpu_total());
    return code;
}

/* NVML hands out the handle of a lost GPU only as an error: hence enter() and not a plain check. */
EXPORT int nvmlDeviceGetHandleByIndex_v2(unsigned index, nvmlDevice_t *out)
{
    state_look();
    int gpu = gpu_at(index);
    int code = enter("nvmlDeviceGetHandleByIndex", gpu);
    if (code == SUCCESS && gpu < 0)
        code = INVALID_ARGUMENT;
    if (code == SUCCESS)
        *out = handle_of(gpu);
    return code;
}

static void uuid_of(nvmlDevice_t device, char out[VALUE_SIZE])
{
    if (text_of(device, "uuid", out) == SUCCESS)
        return;
    if (device->mig < 0)
        snprintf(out, VALUE_SIZE, "GPU-fa4e0000-0000-4000-8000-%012x", (unsigned)device->gpu);
    else
        snprintf(out, VALUE_SIZE, "MIG-fa4e0000-0000-4000-8000-%04x%08x", (unsigned)device->mig,
                 (unsigned)device->gpu);
}

static void bus_id_of(nvmlDevice_t device, char out[VALUE_SIZE])
{
    if (text_of(device, "pci", out) != SUCCESS)
        snprintf(out, VALUE_SIZE, "%08X:%02X:00.0", (unsigned)device->gpu / 28u,
                 (0x18u + (unsigned)device->gpu % 28u * 8u) & 0xffu);
}

static int find_handle(const char *function, void (*name_of)(nvmlDevice_t, char *),
                       const char *name, nvmlDevice_t *out)
{
    char value[VALUE_SIZE];
    int gpu = -1;
    state_look();
    for (int one = gpu_total() - 1; one >= 0 && is_initialized(); one--) {
        name_of(handle_of(one), value);
        if (strcasecmp(value, name) == 0 && !gpu_gone(one))
            gpu = one;
    }
    int code = enter(function, gpu);
    if (code == SUCCESS && gpu < 0)
        code = NOT_FOUND;
    if (code == SUCCESS)
        *out = handle_of(gpu);
    return code;
}

EXPORT int nvmlDeviceGetHandleByUUID(const char *uuid, nvmlDevice_t *out)
{
    return find_handle("nvmlDeviceGetHandleByUUID", uuid_of, uuid, out);
}

EXPORT int nvmlDeviceGetHandleByPciBusId_v2(const char *bus_id, nvmlDevice_t *out)
{
    return find_handle("nvmlDeviceGetHandleByPciBusId", bus_id_of, bus_id, out);
}

EXPORT int nvmlDeviceGetIndex(nvmlDevice_t device, unsigned *out)
{
    int code = enter_device("nvmlDeviceGetIndex", device);
    if (code == SUCCESS)
        *out = (unsigned)index_of(device->gpu);
    return code;
}

EXPORT int nvmlDeviceGetMinorNumber(nvmlDevice_t device, unsigned *out)
{
    char text[VALUE_SIZE] = "";
    int code = enter_device("nvmlDeviceGetMinorNumber", device);
    if (code != SUCCESS)
        return code;
    *out = (unsigned)device->gpu;
    if (text_of(device, "minor", text) != SUCCESS)
        return *text ? NOT_SUPPORTED : SUCCESS;
    return unsigned_of(device, "minor", out);
}

EXPORT int nvmlDeviceGetUUID(nvmlDevice_t device, char *out, unsigned size)
{
    char value[VALUE_SIZE];
    int code = enter_device("nvmlDeviceGetUUID", device);
    if (code != SUCCESS)
        return code;
    uuid_of(device, value);
    return copy_text(value, out, size);
}

EXPORT int nvmlDeviceGetPciInfo_v3(nvmlDevice_t device, pci_t *out)
{
    char value[VALUE_SIZE];
    unsigned function = 0;
    int code = enter_device("nvmlDeviceGetPciInfo", device);
    if (code != SUCCESS)
        return code;
    memset(out, 0, sizeof *out);
    bus_id_of(device, value);
    sscanf(value, "%x:%x:%x.%x", &out->domain, &out->bus, &out->device, &function);
    out->pci_device_id = 0x233510deu;
    unsigned_of(device, "pci.device", &out->pci_device_id);
    snprintf(out->bus_id_legacy, sizeof out->bus_id_legacy, "%04X:%02X:%02X.%X",
             out->domain & 0xffffu, out->bus & 0xffu, out->device & 0xffu, function & 0xfu);
    snprintf(out->bus_id, sizeof out->bus_id, "%.31s", value);
    return SUCCESS;
}

#define TEXT(symbol, function, attribute)                                                          \
    EXPORT int symbol(nvmlDevice_t device, char *out, unsigned size)                               \
    {                                                                                              \
        return device_text(function, device, attribute, out, size);                                \
    }

TEXT(nvmlDeviceGetName, "nvmlDeviceGetName", "name")
TEXT(nvmlDeviceGetSerial, "nvmlDeviceGetSerial", "serial")
TEXT(nvmlDeviceGetVbiosVersion, "nvmlDeviceGetVbiosVersion", "vbios")
TEXT(nvmlDeviceGetInforomImageVersion, "nvmlDeviceGetInforomImageVersion", "inforom")

EXPORT int nvmlDeviceGetGspFirmwareVersion(nvmlDevice_t device, char *out)
{
    return device_text("nvmlDeviceGetGspFirmwareVersion", device, "gsp", out, 64);
}

EXPORT int nvmlDeviceGetGspFirmwareMode(nvmlDevice_t device, unsigned *enabled, unsigned *otherwise)
{
    return device_pair("nvmlDeviceGetGspFirmwareMode", device, "gsp.mode", "gsp.default", enabled,
                       otherwise);
}

EXPORT int nvmlDeviceGetArchitecture(nvmlDevice_t device, unsigned *out)
{
    return device_unsigned("nvmlDeviceGetArchitecture", device, "architecture", out);
}

EXPORT int nvmlDeviceGetCudaComputeCapability(nvmlDevice_t device, unsigned *major, unsigned *minor)
{
    return device_pair("nvmlDeviceGetCudaComputeCapability", device, "compute.major",
                       "compute.minor", major, minor);
}

/* ---- MIG ------------------------------------------------------------------------------------- */

EXPORT int nvmlDeviceGetMigMode(nvmlDevice_t device, unsigned *mode, unsigned *pending)
{
    return device_pair("nvmlDeviceGetMigMode", device, "mig.mode", "mig.pending", mode, pending);
}

EXPORT int nvmlDeviceGetMaxMigDeviceCount(nvmlDevice_t device, unsigned *out)
{
    return device_unsigned("nvmlDeviceGetMaxMigDeviceCount", device, "mig.max", out);
}

EXPORT int nvmlDeviceGetMigDeviceHandleByIndex(nvmlDevice_t device, unsigned index,
                                               nvmlDevice_t *out)
{
    u64 mode = 0, instance = 0;
    int code = device_number("nvmlDeviceGetMigDeviceHandleByIndex", device, "mig.mode", &mode);
    if (code != SUCCESS)
        return code;
    if (index >= MAX_MIG || device->mig >= 0)
        return INVALID_ARGUMENT;
    *out = mig_handle_of(device->gpu, (int)index);
    return mode && number_of(*out, "gi", &instance) == SUCCESS ? SUCCESS : NOT_FOUND;
}

EXPORT int nvmlDeviceIsMigDeviceHandle(nvmlDevice_t device, unsigned *out)
{
    int code = enter_device("nvmlDeviceIsMigDeviceHandle", device);
    if (code == SUCCESS)
        *out = device->mig >= 0;
    return code;
}

EXPORT int nvmlDeviceGetDeviceHandleFromMigDeviceHandle(nvmlDevice_t mig, nvmlDevice_t *out)
{
    int code = enter_device("nvmlDeviceGetDeviceHandleFromMigDeviceHandle", mig);
    if (code == SUCCESS)
        *out = handle_of(mig->gpu);
    return code;
}

static int instance_of(const char *function, nvmlDevice_t device, const char *name, unsigned *out)
{
    int code = enter_device(function, device);
    if (code == SUCCESS && device->mig < 0)
        return INVALID_ARGUMENT;
    *out = 0;
    if (code == SUCCESS && unsigned_of(device, "gi", out) != SUCCESS)
        return NOT_FOUND;
    *out = 0;
    if (code == SUCCESS)
        unsigned_of(device, name, out);
    return code;
}

EXPORT int nvmlDeviceGetGpuInstanceId(nvmlDevice_t device, unsigned *out)
{
    return instance_of("nvmlDeviceGetGpuInstanceId", device, "gi", out);
}

EXPORT int nvmlDeviceGetComputeInstanceId(nvmlDevice_t device, unsigned *out)
{
    return instance_of("nvmlDeviceGetComputeInstanceId", device, "ci", out);
}

EXPORT int nvmlDeviceGetAttributes_v2(nvmlDevice_t device, attributes_t *out)
{
    u64 bytes = 0;
    int code = enter_device("nvmlDeviceGetAttributes", device);
    if (code != SUCCESS)
        return code;
    if (device->mig < 0)
        return NOT_SUPPORTED;
    memset(out, 0, sizeof *out);
    out->gpu_slices = out->compute_slices = 1;
    unsigned_of(device, "slices", &out->gpu_slices);
    unsigned_of(device, "compute_slices", &out->compute_slices);
    unsigned_of(device, "multiprocessors", &out->multiprocessors);
    number_of(device, "memory.total", &bytes);
    out->memory_mib = bytes >> 20;
    return SUCCESS;
}
