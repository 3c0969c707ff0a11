/* Errors of memory, rows and pages, and how the GPU stands with the fabric. */
#include "fake.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

EXPORT int nvmlDeviceGetEccMode(nvmlDevice_t device, unsigned *mode, unsigned *pending)
{
    return device_pair("nvmlDeviceGetEccMode", device, "ecc.mode", "ecc.pending", mode, pending);
}

static int count_errors(const char *function, nvmlDevice_t device, unsigned type, unsigned counter,
                        const char *location, u64 *out)
{
    char name[64];
    u64 mode = 0;
    if (type > 1 || counter > 1)
        return INVALID_ARGUMENT;
    int code = device_number(function, device, "ecc.mode", &mode);
    if (code != SUCCESS || !mode)
        return code == SUCCESS ? NOT_SUPPORTED : code;
    snprintf(name, sizeof name, "ecc.%s.%s%s%s", type ? "uncorrected" : "corrected",
             counter ? "aggregate" : "volatile", *location ? "." : "", location);
    return number_of(device, name, out);
}

EXPORT int nvmlDeviceGetTotalEccErrors(nvmlDevice_t device, unsigned type, unsigned counter,
                                       u64 *out)
{
    return count_errors("nvmlDeviceGetTotalEccErrors", device, type, counter, "", out);
}

EXPORT int nvmlDeviceGetMemoryErrorCounter(nvmlDevice_t device, unsigned type, unsigned counter,
                                           unsigned location, u64 *out)
{
    static const char *const locations[] = {"l1",      "l2",          "dram", "register",
                                            "texture", "texture_shm", "cbu",  "sram"};
    if (location >= sizeof locations / sizeof *locations)
        return INVALID_ARGUMENT;
    return count_errors("nvmlDeviceGetMemoryErrorCounter", device, type, counter,
                        locations[location], out);
}

EXPORT int nvmlDeviceGetSramEccErrorStatus(nvmlDevice_t device, sram_t *out)
{
    static const char *const names[] = {
        "sram.aggregate.parity", "sram.aggregate.secded", "sram.aggregate.corrected",
        "sram.volatile.parity",  "sram.volatile.secded",  "sram.volatile.corrected",
        "sram.bucket.l2",        "sram.bucket.sm",        "sram.bucket.pcie",
        "sram.bucket.mcu",       "sram.bucket.other"};
    if (out->version != (sizeof(sram_t) | 1u << 24))
        return VERSION_MISMATCH;
    int code = device_unsigned("nvmlDeviceGetSramEccErrorStatus", device, "sram.threshold",
                               &out->threshold_exceeded);
    for (size_t i = 0; code == SUCCESS && i < sizeof names / sizeof *names; i++)
        code = number_of(device, names[i], &out->counts[i]);
    return code;
}

EXPORT int nvmlDeviceGetRemappedRows(nvmlDevice_t device, unsigned *corrected,
                                     unsigned *uncorrected, unsigned *pending, unsigned *failed)
{
    int code = device_pair("nvmlDeviceGetRemappedRows", device, "remapped.corrected",
                           "remapped.uncorrected", corrected, uncorrected);
    if (code == SUCCESS)
        code = unsigned_of(device, "remapped.pending", pending);
    return code == SUCCESS ? unsigned_of(device, "remapped.failed", failed) : code;
}

EXPORT int nvmlDeviceGetRowRemapperHistogram(nvmlDevice_t device, histogram_t *out)
{
    int code = device_pair("nvmlDeviceGetRowRemapperHistogram", device, "remapper.max",
                           "remapper.high", &out->max, &out->high);
    if (code == SUCCESS)
        code = unsigned_of(device, "remapper.partial", &out->partial);
    if (code == SUCCESS)
        code = unsigned_of(device, "remapper.low", &out->low);
    return code == SUCCESS ? unsigned_of(device, "remapper.none", &out->none) : code;
}

static int retired_pages(nvmlDevice_t device, unsigned cause, unsigned *count, u64 *addresses,
                         u64 *timestamps)
{
    char text[VALUE_SIZE];
    unsigned found = 0, room = addresses ? *count : 0;
    int code = enter_device("nvmlDeviceGetRetiredPages", device);
    if (code == SUCCESS)
        code = cause > 1 ? INVALID_ARGUMENT
                         : text_of(device, cause ? "retired.dbe" : "retired.sbe", text);
    if (code != SUCCESS)
        return code;
    for (char *rest = text; *rest && strcmp(text, "0") != 0; found++) {
        u64 address = strtoull(rest, &rest, 0);
        rest += strcspn(rest, ",");
        rest += *rest == ',';
        if (found < room) {
            addresses[found] = address;
            if (timestamps)
                timestamps[found] = 1700000000000000ull + found;
        }
    }
    *count = found;
    return found > room ? INSUFFICIENT_SIZE : SUCCESS;
}

EXPORT int nvmlDeviceGetRetiredPages(nvmlDevice_t device, unsigned cause, unsigned *count,
                                     u64 *addresses)
{
    return retired_pages(device, cause, count, addresses, NULL);
}

EXPORT int nvmlDeviceGetRetiredPages_v2(nvmlDevice_t device, unsigned cause, unsigned *count,
                                        u64 *addresses, u64 *timestamps)
{
    return retired_pages(device, cause, count, addresses, timestamps);
}

EXPORT int nvmlDeviceGetRetiredPagesPendingStatus(nvmlDevice_t device, unsigned *out)
{
    return device_unsigned("nvmlDeviceGetRetiredPagesPendingStatus", device, "retired.pending",
                           out);
}

static int read_fabric(const char *function, nvmlDevice_t device, fabric_v3_t *out)
{
    unsigned state = 0, status = 0;
    int code = device_pair(function, device, "fabric.state", "fabric.status", &state, &status);
    if (code != SUCCESS)
        return code;
    out->state = (unsigned char)state;
    out->status = (int)status;
    for (size_t i = 0; i < sizeof out->cluster; i++)
        out->cluster[i] = (unsigned char)(0xfa ^ i);
    unsigned_of(device, "fabric.clique", &out->clique);
    unsigned_of(device, "fabric.health", &out->health);
    unsigned summary = 0;
    unsigned_of(device, "fabric.summary", &summary);
    out->summary = (unsigned char)summary;
    return SUCCESS;
}

EXPORT int nvmlDeviceGetGpuFabricInfo(nvmlDevice_t device, fabric_t *out)
{
    fabric_v3_t found = {0};
    int code = read_fabric("nvmlDeviceGetGpuFabricInfo", device, &found);
    if (code != SUCCESS)
        return code;
    *out = (fabric_t){.status = found.status, .clique = found.clique, .state = found.state};
    memcpy(out->cluster, found.cluster, sizeof out->cluster);
    return SUCCESS;
}

EXPORT int nvmlDeviceGetGpuFabricInfoV(nvmlDevice_t device, fabric_v2_t *out)
{
    unsigned version = out->version;
    if (version != (sizeof(fabric_v2_t) | 2u << 24) && version != (sizeof(fabric_v3_t) | 3u << 24))
        return VERSION_MISMATCH;
    fabric_v3_t found = {.version = version};
    int code = read_fabric("nvmlDeviceGetGpuFabricInfoV", device, &found);
    if (code == SUCCESS) /* the third begins as the second does */
        memcpy(out, &found, version & 0xffffu);
    return code;
}
