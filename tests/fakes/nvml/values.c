/* Attributes of a GPU: its own line, the line of all, the default below. */
#include "fake.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* DEFAULTS: an idle H200 in a system with NVSwitches */
static const struct { const char *name, *value; } defaults[] = {
    {"name", "NVIDIA H200"},
    {"serial", "1650000000000"},
    {"vbios", "96.00.BC.00.01"},
    {"inforom", "G520.0280.00.05"},
    {"gsp", "580.95.05"},
    {"gsp.mode", "1"},
    {"gsp.default", "1"},
    {"architecture", "9"},
    {"compute.major", "9"},
    {"compute.minor", "0"},
    {"memory.total", "150754820096"},
    {"memory.reserved", "673054720"},
    {"memory.used", "4194304"},
    {"utilization.gpu", "0"},
    {"utilization.memory", "0"},
    {"encoder", "0"},
    {"encoder.period", "167000"},   /* us */
    {"decoder", "0"},
    {"decoder.period", "167000"},
    {"temperature", "31"},
    {"temperature.memory", "34"},
    {"temperature.margin", "56"},
    {"tlimit.shutdown", "-8"},
    {"tlimit.slowdown", "-2"},
    {"tlimit.memory", "0"},
    {"tlimit.gpu", "0"},
    {"power.usage", "76500"},   /* mW, this and below */
    {"power.average", "76400"},
    {"power.limit", "700000"},
    {"power.default", "700000"},
    {"power.min", "200000"},
    {"power.max", "700000"},
    {"energy", "123456789"},    /* mJ */
    {"clock.graphics", "345"},  /* MHz, this and below */
    {"clock.sm", "345"},
    {"clock.memory", "3201"},
    {"clock.video", "765"},
    {"clock.max.graphics", "1980"},
    {"clock.max.sm", "1980"},
    {"clock.max.memory", "3201"},
    {"clock.max.video", "1545"},
    {"clocks.reasons", "1"},
    {"clocks.supported", "0x1ff"},
    {"pstate", "0"},
    {"pcie.generation", "5"},
    {"pcie.width", "16"},
    {"pcie.max.generation", "5"},
    {"pcie.max.width", "16"},
    {"pcie.replays", "0"},
    {"pcie.tx", "0"},           /* KB/s */
    {"pcie.rx", "0"},
    {"ecc.mode", "1"},
    {"ecc.pending", "1"},
    {"ecc.corrected.volatile", "0"},
    {"ecc.corrected.aggregate", "0"},
    {"ecc.uncorrected.volatile", "0"},
    {"ecc.uncorrected.aggregate", "0"},
    {"ecc.corrected.volatile.dram", "0"},
    {"ecc.corrected.volatile.sram", "0"},
    {"ecc.corrected.aggregate.dram", "0"},
    {"ecc.corrected.aggregate.sram", "0"},
    {"ecc.uncorrected.volatile.dram", "0"},
    {"ecc.uncorrected.volatile.sram", "0"},
    {"ecc.uncorrected.aggregate.dram", "0"},
    {"ecc.uncorrected.aggregate.sram", "0"},
    {"sram.threshold", "0"},
    {"sram.aggregate.parity", "0"},
    {"sram.aggregate.secded", "0"},
    {"sram.aggregate.corrected", "0"},
    {"sram.volatile.parity", "0"},
    {"sram.volatile.secded", "0"},
    {"sram.volatile.corrected", "0"},
    {"sram.bucket.l2", "0"},
    {"sram.bucket.sm", "0"},
    {"sram.bucket.pcie", "0"},
    {"sram.bucket.mcu", "0"},
    {"sram.bucket.other", "0"},
    {"remapped.corrected", "0"},
    {"remapped.uncorrected", "0"},
    {"remapped.pending", "0"},
    {"remapped.failed", "0"},
    {"remapper.max", "3072"},
    {"remapper.high", "0"},
    {"remapper.partial", "0"},
    {"remapper.low", "0"},
    {"remapper.none", "0"},
    {"fabric.state", "3"},
    {"fabric.status", "0"},
    {"fabric.clique", "0"},
    {"fabric.health", "0x1aa"}, /* nothing wrong */
    {"fabric.summary", "1"},
    {"recovery", "0"},
    {"persistence", "1"},
    {"compute.mode", "0"},
    {"fans", "0"},
    {"nvlinks", "18"},
    {"mig.mode", "0"},
    {"mig.pending", "0"},
    {"mig.max", "7"},
    {"events.supported", "0xcc1f"},
};

int text_of(nvmlDevice_t device, const char *name, char out[VALUE_SIZE])
{
    char attribute[96], key[128];
    if (device->mig < 0)
        snprintf(attribute, sizeof attribute, "%s", name);
    else
        snprintf(attribute, sizeof attribute, "mig.%d.%s", device->mig, name);
    snprintf(key, sizeof key, "%d.%s", device->gpu, attribute);
    int found = state_find(key, out);
    if (!found) {
        snprintf(key, sizeof key, "all.%s", attribute);
        found = state_find(key, out);
    }
    for (size_t i = 0; !found && i < sizeof defaults / sizeof *defaults; i++)
        if (strcmp(defaults[i].name, attribute) == 0) {
            snprintf(out, VALUE_SIZE, "%s", defaults[i].value);
            found = 1;
        }
    return found && strcmp(out, "N/A") != 0 ? SUCCESS : NOT_SUPPORTED;
}

int number_of(nvmlDevice_t device, const char *name, u64 *out)
{
    char value[VALUE_SIZE];
    int code = text_of(device, name, value);
    if (code == SUCCESS)
        *out = strtoull(value, NULL, 0);
    return code;
}

int unsigned_of(nvmlDevice_t device, const char *name, unsigned *out)
{
    u64 value = 0;
    int code = number_of(device, name, &value);
    if (code == SUCCESS)
        *out = (unsigned)value;
    return code;
}

int copy_text(const char *text, char *out, unsigned size)
{
    if (strlen(text) >= size)
        return INSUFFICIENT_SIZE;
    strcpy(out, text);
    return SUCCESS;
}

int device_text(const char *function, nvmlDevice_t device, const char *name, char *out,
                unsigned size)
{
    char value[VALUE_SIZE];
    int code = enter_device(function, device);
    if (code == SUCCESS)
        code = text_of(device, name, value);
    return code == SUCCESS ? copy_text(value, out, size) : code;
}

int device_number(const char *function, nvmlDevice_t device, const char *name, u64 *out)
{
    int code = enter_device(function, device);
    return code == SUCCESS ? number_of(device, name, out) : code;
}

int device_unsigned(const char *function, nvmlDevice_t device, const char *name, unsigned *out)
{
    int code = enter_device(function, device);
    return code == SUCCESS ? unsigned_of(device, name, out) : code;
}

int device_pair(const char *function, nvmlDevice_t device, const char *first, const char *second,
                unsigned *one, unsigned *two)
{
    int code = device_unsigned(function, device, first, one);
    return code == SUCCESS ? unsigned_of(device, second, two) : code;
}
