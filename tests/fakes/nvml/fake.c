/*
 * A fake NVML: the real nvidia-ml-py loads it as libnvidia-ml.so.1 where no GPU and no driver is.
 *
 * What it answers stands in a state file of "key value" lines ($FAKE_NVML_STATE, else
 * /etc/fake-nvml.state), looked at before every call, so that a test changes a GPU under a running
 * program by replacing the file. Without the file there is no driver (DRIVER_NOT_LOADED).
 *
 *   count 2                         number of GPUs (default 1)
 *   driver 580.95.05                driver version; nvml, cuda likewise
 *   0.temperature 41                a value of GPU 0, in NVML's own units (see the DEFAULTS below)
 *   all.temperature 41              the same for every GPU that has no line of its own
 *   0.temperature N/A               NVML_ERROR_NOT_SUPPORTED
 *   0.processes 4711:1000,4712      processes on GPU 0 and their bytes, N/A without a number;
 *                                   processes.graphics and processes.mps likewise
 *   0.lost 1                        every call on GPU 0 is NVML_ERROR_GPU_IS_LOST
 *   err.<function>[.<gpu>] 18       that function returns 18
 *   hang.<function>[.<gpu>] 60000   that function sleeps so many ms, or until the line is gone
 *
 * <function> is the C symbol without a version suffix: nvmlInit, nvmlDeviceGetMemoryInfo.
 * Struct layouts are checked against the installed binding by tests/agent/test_fake_nvml.py.
 */
#define _DEFAULT_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#define EXPORT __attribute__((visibility("default")))
#define MAX_GPUS 64
#define MAX_LINES 1024
#define VALUE_SIZE 96

enum {
    SUCCESS = 0, UNINITIALIZED = 1, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6,
    INSUFFICIENT_SIZE = 7, DRIVER_NOT_LOADED = 9, GPU_IS_LOST = 15, VERSION_MISMATCH = 25,
};

typedef unsigned long long u64;
typedef struct { int index; } device_t;
typedef device_t *nvmlDevice_t;

/* nvml.h's layouts, LP64 */
typedef struct { u64 total, free, used; } memory_t;
typedef struct { unsigned version; u64 total, reserved, free, used; } memory_v2_t;
typedef struct { unsigned gpu, memory; } utilization_t;
typedef struct { unsigned version, sensor; int temperature; } temperature_t;
typedef struct { unsigned pid; u64 used; unsigned gpu_instance, compute_instance; } process_t;
typedef struct {
    char bus_id_legacy[16];
    unsigned domain, bus, device, pci_device_id, pci_subsystem_id;
    char bus_id[32];
} pci_t;

typedef struct { char key[64], value[VALUE_SIZE]; } line_t;

static device_t devices[MAX_GPUS];
static line_t lines[MAX_LINES];
static int line_count = -1; /* -1: there is no file */
static struct stat seen;
static int initialized;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/* DEFAULTS: an idle H200 */
static const line_t defaults[] = {
    {"name", "NVIDIA H200"},
    {"serial", "1650000000000"},
    {"memory.total", "150754820096"},
    {"memory.reserved", "673054720"},
    {"memory.used", "4194304"},
    {"utilization.gpu", "0"},
    {"utilization.memory", "0"},
    {"temperature", "31"},
    {"power.usage", "76500"},   /* mW */
    {"power.limit", "700000"},  /* mW */
    {"energy", "123456789"},    /* mJ */
    {"clock.graphics", "345"},  /* MHz, this and below */
    {"clock.sm", "345"},
    {"clock.memory", "3201"},
    {"clock.video", "765"},
    {"clock.max.graphics", "1980"},
    {"clock.max.sm", "1980"},
    {"clock.max.memory", "3201"},
    {"clock.max.video", "1545"},
    {"persistence", "1"},
    {"pstate", "0"},
};

static const char *state_path(void)
{
    const char *path = getenv("FAKE_NVML_STATE");
    return path && *path ? path : "/etc/fake-nvml.state";
}

static int changed(const struct stat *now)
{
    return line_count < 0 || now->st_ino != seen.st_ino || now->st_size != seen.st_size ||
           now->st_mtim.tv_sec != seen.st_mtim.tv_sec ||
           now->st_mtim.tv_nsec != seen.st_mtim.tv_nsec;
}

/* Reads the state file again if it is another one than before. Called with the lock held. */
static void refresh(void)
{
    struct stat now;
    if (stat(state_path(), &now) != 0) {
        line_count = -1;
        return;
    }
    if (!changed(&now))
        return;
    FILE *file = fopen(state_path(), "r");
    if (!file) {
        line_count = -1;
        return;
    }
    char text[256];
    line_count = 0;
    while (line_count < MAX_LINES && fgets(text, sizeof text, file)) {
        line_t *line = &lines[line_count];
        if (text[0] != '#' && sscanf(text, "%63s %95[^\n]", line->key, line->value) == 2)
            line_count++;
    }
    fclose(file);
    seen = now;
}

/* The value under key, copied into out. The last line of a key wins. */
static int find(const char *key, char out[VALUE_SIZE])
{
    int found = 0;
    pthread_mutex_lock(&lock);
    refresh();
    for (int i = line_count - 1; i >= 0 && !found; i--)
        if (strcmp(lines[i].key, key) == 0) {
            memcpy(out, lines[i].value, VALUE_SIZE);
            found = 1;
        }
    pthread_mutex_unlock(&lock);
    return found;
}

static int file_is_there(void)
{
    pthread_mutex_lock(&lock);
    refresh();
    int there = line_count >= 0;
    pthread_mutex_unlock(&lock);
    return there;
}

static int gpu_count(void)
{
    char value[VALUE_SIZE];
    int count = find("count", value) ? atoi(value) : 1;
    return count < 0 ? 0 : count > MAX_GPUS ? MAX_GPUS : count;
}

/* A switch of a function: "<kind>.<function>.<gpu>" before "<kind>.<function>". */
static int find_switch(const char *kind, const char *function, int gpu, int *number)
{
    char key[128], value[VALUE_SIZE];
    snprintf(key, sizeof key, "%s.%s.%d", kind, function, gpu);
    int found = gpu >= 0 && find(key, value);
    if (!found) {
        snprintf(key, sizeof key, "%s.%s", kind, function);
        found = find(key, value);
    }
    if (found)
        *number = atoi(value);
    return found;
}

/* Sleeps while the hang switch of the function stands, at most as long as it says. */
static void hang(const char *function, int gpu)
{
    const struct timespec step = {0, 20 * 1000 * 1000};
    int limit = 0;
    for (int slept = 0; find_switch("hang", function, gpu, &limit) && slept < limit; slept += 20)
        nanosleep(&step, NULL);
}

/* What every call passes first; gpu is -1 for calls that concern none. */
static int enter(const char *function, int gpu)
{
    int code = 0;
    char key[32], value[VALUE_SIZE];
    hang(function, gpu);
    if (find_switch("err", function, gpu, &code))
        return code;
    if (!initialized)
        return UNINITIALIZED;
    snprintf(key, sizeof key, "%d.lost", gpu);
    if (gpu >= 0 && find(key, value) && atoi(value))
        return GPU_IS_LOST;
    return SUCCESS;
}

static int enter_device(const char *function, nvmlDevice_t device)
{
    if (device < devices || device >= devices + MAX_GPUS)
        return INVALID_ARGUMENT;
    return enter(function, device->index);
}

/* The text of an attribute of a GPU: its own line, the line of all, the default. */
static int text_of(nvmlDevice_t device, const char *name, char out[VALUE_SIZE])
{
    char key[128];
    snprintf(key, sizeof key, "%d.%s", device->index, name);
    int found = find(key, out);
    if (!found) {
        snprintf(key, sizeof key, "all.%s", name);
        found = find(key, out);
    }
    for (size_t i = 0; !found && i < sizeof defaults / sizeof *defaults; i++)
        if (strcmp(defaults[i].key, name) == 0) {
            memcpy(out, defaults[i].value, VALUE_SIZE);
            found = 1;
        }
    return found && strcmp(out, "N/A") != 0 ? SUCCESS : NOT_SUPPORTED;
}

static int number_of(nvmlDevice_t device, const char *name, u64 *out)
{
    char value[VALUE_SIZE];
    int code = text_of(device, name, value);
    if (code == SUCCESS)
        *out = strtoull(value, NULL, 10);
    return code;
}

static int copy_text(const char *text, char *out, unsigned size)
{
    if (strlen(text) >= size)
        return INSUFFICIENT_SIZE;
    strcpy(out, text);
    return SUCCESS;
}

static int device_text(const char *function, nvmlDevice_t device, const char *name, char *out,
                       unsigned size)
{
    char value[VALUE_SIZE];
    int code = enter_device(function, device);
    if (code == SUCCESS)
        code = text_of(device, name, value);
    return code == SUCCESS ? copy_text(value, out, size) : code;
}

static int device_unsigned(const char *function, nvmlDevice_t device, const char *name,
                           unsigned *out)
{
    u64 value = 0;
    int code = enter_device(function, device);
    if (code == SUCCESS)
        code = number_of(device, name, &value);
    if (code == SUCCESS)
        *out = (unsigned)value;
    return code;
}

static int system_text(const char *function, const char *key, const char *otherwise, char *out,
                       unsigned size)
{
    char value[VALUE_SIZE];
    int code = enter(function, -1);
    if (code != SUCCESS)
        return code;
    return copy_text(find(key, value) ? value : otherwise, out, size);
}

/* ---- the exported symbols ------------------------------------------------------------------- */

EXPORT int nvmlInitWithFlags(unsigned flags)
{
    (void)flags;
    int code = 0;
    hang("nvmlInit", -1);
    if (find_switch("err", "nvmlInit", -1, &code))
        return code;
    if (!file_is_there())
        return DRIVER_NOT_LOADED;
    for (int i = 0; i < MAX_GPUS; i++)
        devices[i].index = i;
    initialized = 1;
    return SUCCESS;
}

EXPORT int nvmlInit_v2(void) { return nvmlInitWithFlags(0); }

EXPORT int nvmlShutdown(void)
{
    int code = enter("nvmlShutdown", -1);
    if (code == SUCCESS)
        initialized = 0;
    return code;
}

EXPORT const char *nvmlErrorString(int code)
{
    switch (code) {
    case SUCCESS: return "Success";
    case UNINITIALIZED: return "Uninitialized";
    case INVALID_ARGUMENT: return "Invalid Argument";
    case NOT_SUPPORTED: return "Not Supported";
    case NOT_FOUND: return "Not Found";
    case INSUFFICIENT_SIZE: return "Insufficient Size";
    case DRIVER_NOT_LOADED: return "Driver Not Loaded";
    case GPU_IS_LOST: return "GPU is lost";
    case VERSION_MISMATCH: return "Argument version mismatch";
    case 18: return "Driver/library version mismatch";
    default: return "Unknown Error";
    }
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
        *out = find("cuda", value) ? atoi(value) : 13000;
    return code;
}

EXPORT int nvmlDeviceGetCount_v2(unsigned *out)
{
    int code = enter("nvmlDeviceGetCount", -1);
    if (code == SUCCESS)
        *out = (unsigned)gpu_count();
    return code;
}

/* NVML hands out the handle of a lost GPU only as an error: hence enter() and not a plain check. */
EXPORT int nvmlDeviceGetHandleByIndex_v2(unsigned index, nvmlDevice_t *out)
{
    if (index >= (unsigned)gpu_count())
        return INVALID_ARGUMENT;
    int code = enter("nvmlDeviceGetHandleByIndex", (int)index);
    if (code == SUCCESS)
        *out = &devices[index];
    return code;
}

EXPORT int nvmlDeviceGetIndex(nvmlDevice_t device, unsigned *out)
{
    int code = enter_device("nvmlDeviceGetIndex", device);
    if (code == SUCCESS)
        *out = (unsigned)device->index;
    return code;
}

EXPORT int nvmlDeviceGetMinorNumber(nvmlDevice_t device, unsigned *out)
{
    int code = enter_device("nvmlDeviceGetMinorNumber", device);
    if (code == SUCCESS)
        *out = (unsigned)device->index;
    return code;
}

EXPORT int nvmlDeviceGetUUID(nvmlDevice_t device, char *out, unsigned size)
{
    char value[VALUE_SIZE];
    int code = enter_device("nvmlDeviceGetUUID", device);
    if (code != SUCCESS)
        return code;
    if (text_of(device, "uuid", value) != SUCCESS)
        snprintf(value, sizeof value, "GPU-fa4e0000-0000-4000-8000-%012x",
                 (unsigned)device->index);
    return copy_text(value, out, size);
}

EXPORT int nvmlDeviceGetName(nvmlDevice_t device, char *out, unsigned size)
{
    return device_text("nvmlDeviceGetName", device, "name", out, size);
}

EXPORT int nvmlDeviceGetSerial(nvmlDevice_t device, char *out, unsigned size)
{
    return device_text("nvmlDeviceGetSerial", device, "serial", out, size);
}

EXPORT int nvmlDeviceGetPciInfo_v3(nvmlDevice_t device, pci_t *out)
{
    int code = enter_device("nvmlDeviceGetPciInfo", device);
    if (code != SUCCESS)
        return code;
    memset(out, 0, sizeof *out);
    out->bus = 0x18u + (unsigned)device->index * 8u;
    out->pci_device_id = 0x233510deu;
    snprintf(out->bus_id_legacy, sizeof out->bus_id_legacy, "0000:%02X:00.0", out->bus & 0xffu);
    snprintf(out->bus_id, sizeof out->bus_id, "00000000:%02X:00.0", out->bus & 0xffu);
    return SUCCESS;
}

static int read_memory(nvmlDevice_t device, memory_v2_t *out)
{
    int code = enter_device("nvmlDeviceGetMemoryInfo", device);
    if (code == SUCCESS)
        code = number_of(device, "memory.total", &out->total);
    if (code == SUCCESS)
        code = number_of(device, "memory.reserved", &out->reserved);
    if (code == SUCCESS)
        code = number_of(device, "memory.used", &out->used);
    if (code == SUCCESS)
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
    return read_memory(device, out);
}

EXPORT int nvmlDeviceGetUtilizationRates(nvmlDevice_t device, utilization_t *out)
{
    u64 gpu = 0, memory = 0;
    int code = enter_device("nvmlDeviceGetUtilizationRates", device);
    if (code == SUCCESS)
        code = number_of(device, "utilization.gpu", &gpu);
    if (code == SUCCESS)
        code = number_of(device, "utilization.memory", &memory);
    if (code == SUCCESS)
        *out = (utilization_t){(unsigned)gpu, (unsigned)memory};
    return code;
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

EXPORT int nvmlDeviceGetPowerUsage(nvmlDevice_t device, unsigned *out)
{
    return device_unsigned("nvmlDeviceGetPowerUsage", device, "power.usage", out);
}

EXPORT int nvmlDeviceGetEnforcedPowerLimit(nvmlDevice_t device, unsigned *out)
{
    return device_unsigned("nvmlDeviceGetEnforcedPowerLimit", device, "power.limit", out);
}

EXPORT int nvmlDeviceGetTotalEnergyConsumption(nvmlDevice_t device, u64 *out)
{
    int code = enter_device("nvmlDeviceGetTotalEnergyConsumption", device);
    return code == SUCCESS ? number_of(device, "energy", out) : code;
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
    char *rest = text;
    for (char *one; (one = strsep(&rest, ",")) && *one; found++) {
        char *bytes = strchr(one, ':');
        if (out && found < room)
            out[found] = (process_t){(unsigned)strtoul(one, NULL, 10),
                                     bytes ? strtoull(bytes + 1, NULL, 10) : ~0ull, ~0u, ~0u};
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

EXPORT int nvmlDeviceGetPersistenceMode(nvmlDevice_t device, unsigned *out)
{
    return device_unsigned("nvmlDeviceGetPersistenceMode", device, "persistence", out);
}

EXPORT int nvmlDeviceGetPerformanceState(nvmlDevice_t device, unsigned *out)
{
    return device_unsigned("nvmlDeviceGetPerformanceState", device, "pstate", out);
}

/* The sizes of the layouts above, for the test that compares them with the binding's. */
EXPORT int fakeStructSize(const char *name)
{
    static const struct { const char *name; int size; } sizes[] = {
        {"c_nvmlMemory_t", sizeof(memory_t)},
        {"c_nvmlMemory_v2_t", sizeof(memory_v2_t)},
        {"c_nvmlUtilization_t", sizeof(utilization_t)},
        {"c_nvmlTemperature_v1_t", sizeof(temperature_t)},
        {"nvmlPciInfo_t", sizeof(pci_t)},
        {"c_nvmlProcessInfo_v2_t", sizeof(process_t)},
    };
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        if (strcmp(sizes[i].name, name) == 0)
            return sizes[i].size;
    return -1;
}
