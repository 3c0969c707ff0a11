/* nvmlDeviceGetFieldValues: lines "fv.<id>[.<scope>]", else the attribute that a field stands for. */
#include "fake.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { DOUBLE, UINT, ULONG, ULONGLONG, LONGLONG, INT, USHORT };

#define LINKS (-1)  /* one value per NVLink, in its scope */
#define TOTAL (-2)  /* the same, and the scope UINT_MAX for their sum */

/* name: an attribute, or a number as text */
static const struct { unsigned id, type; int scope; const char *name; } known[] = {
    {29, ULONGLONG, 0, "fields.retired_sbe"},
    {30, ULONGLONG, 0, "fields.retired_dbe"},
    {31, ULONGLONG, 0, "retired.pending"},
    {74, ULONGLONG, 0, "0"}, /* seconds in clock events, as ns: this and below */
    {76, ULONGLONG, 0, "0"},
    {77, ULONGLONG, 0, "0"},
    {78, ULONGLONG, 0, "0"},
    {79, ULONGLONG, 0, "0"},
    {269, ULONGLONG, 0, "0"},
    {270, ULONGLONG, 0, "0"},
    {271, ULONGLONG, 0, "0"},
    {82, UINT, 0, "temperature.memory"},
    {83, ULONGLONG, 0, "energy"},
    {91, UINT, 0, "nvlinks"},
    {94, UINT, 0, "pcie.replays"},
    {138, ULONGLONG, TOTAL, "0"}, /* KiB over NVLink */
    {139, ULONGLONG, TOTAL, "0"},
    {142, UINT, 0, "remapped.corrected"},
    {143, UINT, 0, "remapped.uncorrected"},
    {144, UINT, 0, "remapped.pending"},
    {145, UINT, 0, "remapped.failed"},
    {161, ULONGLONG, LINKS, "0"}, /* NVLink: replay, recovery, CRC */
    {162, ULONGLONG, LINKS, "0"},
    {163, ULONGLONG, LINKS, "0"},
    {164, UINT, LINKS, "26562"}, /* Mbit/s */
    {165, UINT, LINKS, "1"},     /* up */
    {173, UINT, 0, "0"},         /* PCIe errors: this and below */
    {174, UINT, 0, "0"},
    {175, UINT, 0, "0"},
    {176, UINT, 0, "0"},
    {177, UINT, 0, "0"},
    {178, UINT, 0, "0"},
    {179, UINT, 0, "0"},
    {180, UINT, 0, "0"},
    {181, UINT, 0, "0"},
    {182, UINT, 0, "0"},
    {183, UINT, 0, "0"},
    {185, UINT, 0, "power.average"},
    {186, UINT, 0, "power.usage"},
    {187, UINT, 0, "power.min"},
    {188, UINT, 0, "power.max"},
    {189, UINT, 0, "power.default"},
    {190, UINT, 0, "power.limit"},
    {191, ULONGLONG, 0, "energy"},
    {193, INT, 0, "tlimit.shutdown"},
    {194, INT, 0, "tlimit.slowdown"},
    {195, INT, 0, "tlimit.memory"},
    {196, INT, 0, "tlimit.gpu"},
    {197, ULONGLONG, 0, "0"}, /* PCIe bytes sent, received */
    {198, ULONGLONG, 0, "0"},
    {230, UINT, 0, "recovery"},
};

static const char *const type_names[] = {"d", "ui", "ul", "ull", "sll", "si", "us"};

/* The text of a field and, where no line gives one, its type. */
static int find_field(nvmlDevice_t device, field_t *field, char out[VALUE_SIZE])
{
    char name[48];
    size_t at = 0;
    u64 links = 0;
    while (at < sizeof known / sizeof *known && known[at].id != field->field)
        at++;
    int is_known = at < sizeof known / sizeof *known;
    field->type = is_known ? known[at].type : ULONGLONG;
    *out = '\0';
    snprintf(name, sizeof name, "fv.%u.%u", field->field, field->scope);
    if (text_of(device, name, out) == SUCCESS || *out)
        return strcmp(out, "N/A") ? SUCCESS : NOT_SUPPORTED;
    if (!(is_known && known[at].scope < 0)) { /* of a link only what has its scope */
        snprintf(name, sizeof name, "fv.%u", field->field);
        if (text_of(device, name, out) == SUCCESS || *out)
            return strcmp(out, "N/A") ? SUCCESS : NOT_SUPPORTED;
    }
    if (!is_known)
        return NOT_SUPPORTED;
    if (known[at].scope < 0) {
        number_of(device, "nvlinks", &links);
        if (field->scope >= links && !(known[at].scope == TOTAL && field->scope == ~0u && links))
            return field->scope == ~0u ? NOT_SUPPORTED : INVALID_ARGUMENT;
    }
    if (strspn(known[at].name, "0123456789") != strlen(known[at].name))
        return text_of(device, known[at].name, out);
    snprintf(out, VALUE_SIZE, "%s", known[at].name);
    return SUCCESS;
}

static void set_value(field_t *field, const char *text)
{
    switch (field->type) {
    case DOUBLE: field->value.d = strtod(text, NULL); break;
    case UINT: field->value.ui = (unsigned)strtoull(text, NULL, 0); break;
    case INT: field->value.si = (int)strtoll(text, NULL, 0); break;
    case USHORT: field->value.us = (unsigned short)strtoul(text, NULL, 0); break;
    case LONGLONG: field->value.sll = strtoll(text, NULL, 0); break;
    default: field->value.ull = strtoull(text, NULL, 0);
    }
}

static void answer(nvmlDevice_t device, field_t *field)
{
    char text[VALUE_SIZE];
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    field->timestamp = now.tv_sec * 1000000ll + now.tv_nsec / 1000;
    field->latency = 10;
    field->value.ull = 0;
    field->code = find_field(device, field, text);
    if (field->code != SUCCESS)
        return;
    char *colon = strchr(text, ':'), *value = text;
    if (colon) {
        *colon = '\0';
        value = colon + 1;
        if (strcmp(text, "err") == 0) {
            field->code = atoi(value);
            return;
        }
        field->type = (unsigned)atoi(text);
        for (unsigned i = 0; i < sizeof type_names / sizeof *type_names; i++)
            if (strcmp(type_names[i], text) == 0)
                field->type = i;
    }
    set_value(field, value);
}

EXPORT int nvmlDeviceGetFieldValues(nvmlDevice_t device, int count, field_t *fields)
{
    int code = enter_device("nvmlDeviceGetFieldValues", device);
    for (int i = 0; code == SUCCESS && i < count; i++)
        answer(device, &fields[i]);
    return code;
}
