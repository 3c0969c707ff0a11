/* What every call passes first: the state file, the log, hangs, errors, lost GPUs. And handles. */
#define _DEFAULT_SOURCE
#include "fake.h"
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static device_t gpus[MAX_GPUS];
static device_t migs[MAX_GPUS][MAX_MIG];
static int initialized;

static void log_call(const char *function, int gpu)
{
    char path[VALUE_SIZE];
    if (!state_find("log", path))
        return;
    FILE *file = fopen(path, "a");
    if (!file)
        return;
    fprintf(file, gpu < 0 ? "%d %s\n" : "%d %s %d\n", (int)getpid(), function, gpu);
    fclose(file);
}

/* A switch of a call: "<kind>.<function>.<gpu>", "<kind>.<function>", "<kind>.*.<gpu>", "<kind>.*" */
static int find_switch(const char *kind, const char *function, int gpu, int *number)
{
    char key[160], value[VALUE_SIZE];
    const char *const names[] = {function, "*"};
    for (int i = 0; i < 2; i++) {
        snprintf(key, sizeof key, "%s.%s.%d", kind, names[i], gpu);
        int found = gpu >= 0 && state_find(key, value);
        if (!found) {
            snprintf(key, sizeof key, "%s.%s", kind, names[i]);
            found = state_find(key, value);
        }
        if (found) {
            *number = atoi(value);
            return 1;
        }
    }
    return 0;
}

/* Sleeps while the hang switch of the function stands, at most as long as it says. */
static void hang(const char *function, int gpu)
{
    const struct timespec step = {0, 20 * 1000 * 1000};
    int limit = 0;
    for (int slept = 0; find_switch("hang", function, gpu, &limit) && slept < limit; slept += 20) {
        nanosleep(&step, NULL);
        state_look();
    }
}

static int pass(const char *function, int gpu, int *code)
{
    state_look();
    log_call(function, gpu);
    hang(function, gpu);
    return !find_switch("err", function, gpu, code);
}

static int gpu_flag(int gpu, const char *name)
{
    char key[64], value[VALUE_SIZE];
    snprintf(key, sizeof key, "%d.%s", gpu, name);
    return gpu >= 0 && state_find(key, value) && atoi(value);
}

int gpu_gone(int gpu) { return gpu_flag(gpu, "gone"); }

int enter_init(const char *function)
{
    int code = 0;
    if (!pass(function, -1, &code))
        return code;
    if (!state_there())
        return DRIVER_NOT_LOADED;
    for (int i = 0; i < MAX_GPUS; i++) {
        gpus[i] = (device_t){i, -1};
        for (int k = 0; k < MAX_MIG; k++)
            migs[i][k] = (device_t){i, k};
    }
    events_begin();
    initialized = 1;
    return SUCCESS;
}

int is_initialized(void) { return initialized; }

int enter(const char *function, int gpu)
{
    int code = 0;
    if (!pass(function, gpu, &code))
        return code;
    if (!initialized)
        return UNINITIALIZED;
    return gpu_flag(gpu, "lost") || gpu_gone(gpu) ? GPU_IS_LOST : SUCCESS;
}

int enter_device(const char *function, nvmlDevice_t device)
{
    int known = (device >= gpus && device < gpus + MAX_GPUS) ||
                (device >= migs[0] && device < migs[0] + MAX_GPUS * MAX_MIG);
    return known ? enter(function, device->gpu) : INVALID_ARGUMENT;
}

int gpu_total(void)
{
    char value[VALUE_SIZE];
    int count = state_find("count", value) ? atoi(value) : 1;
    return count < 0 ? 0 : count > MAX_GPUS ? MAX_GPUS : count;
}

int gpu_at(unsigned index)
{
    for (int gpu = 0; gpu < gpu_total(); gpu++)
        if (!gpu_gone(gpu) && index-- == 0)
            return gpu;
    return -1;
}

int index_of(int gpu)
{
    int index = 0;
    for (int before = 0; before < gpu; before++)
        index += !gpu_gone(before);
    return index;
}

nvmlDevice_t handle_of(int gpu) { return &gpus[gpu]; }
nvmlDevice_t mig_handle_of(int gpu, int mig) { return &migs[gpu][mig]; }

EXPORT int nvmlInitWithFlags(unsigned flags)
{
    (void)flags;
    return enter_init("nvmlInit");
}

EXPORT int nvmlInit_v2(void) { return enter_init("nvmlInit"); }

EXPORT int nvmlShutdown(void)
{
    int code = enter("nvmlShutdown", -1);
    if (code == SUCCESS)
        initialized = 0;
    return code;
}
