/* Events: lines "xid.<n> <gpu> <xid> [<type>]", each given once to whoever waits. */
#define _DEFAULT_SOURCE
#include "fake.h"
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

typedef struct {
    u64 types[MAX_GPUS]; /* registered for each GPU */
    unsigned last;       /* the number of the line that was looked at last */
} set_t;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static unsigned given; /* up to which line events are past: given, or there before nvmlInit */

/* Called by nvmlInit: what stands in the file by then happened before. */
void events_begin(void)
{
    pthread_mutex_lock(&lock);
    unsigned last = state_last_xid();
    given = last > given ? last : given;
    pthread_mutex_unlock(&lock);
}

EXPORT int nvmlEventSetCreate(set_t **out)
{
    int code = enter("nvmlEventSetCreate", -1);
    if (code != SUCCESS)
        return code;
    *out = calloc(1, sizeof **out);
    pthread_mutex_lock(&lock);
    (*out)->last = given;
    pthread_mutex_unlock(&lock);
    return SUCCESS;
}

EXPORT int nvmlEventSetFree(set_t *set)
{
    int code = enter("nvmlEventSetFree", -1);
    if (code == SUCCESS)
        free(set);
    return code;
}

EXPORT int nvmlDeviceGetSupportedEventTypes(nvmlDevice_t device, u64 *out)
{
    return device_number("nvmlDeviceGetSupportedEventTypes", device, "events.supported", out);
}

EXPORT int nvmlDeviceRegisterEvents(nvmlDevice_t device, u64 types, set_t *set)
{
    u64 supported = 0;
    int code = device_number("nvmlDeviceRegisterEvents", device, "events.supported", &supported);
    if (code == SUCCESS && types & ~supported)
        code = NOT_SUPPORTED;
    if (code == SUCCESS)
        set->types[device->gpu] |= types;
    return code;
}

/* The next event that the set is registered for. */
static int take(set_t *set, event_t *out)
{
    char text[VALUE_SIZE];
    unsigned number;
    while (state_xid(set->last, &number, text)) {
        int gpu = -1;
        u64 xid = 0, type = 8;
        sscanf(text, "%d %llu %lli", &gpu, &xid, (long long *)&type);
        set->last = number;
        if (gpu < 0 || gpu >= MAX_GPUS || !(set->types[gpu] & type))
            continue;
        pthread_mutex_lock(&lock);
        given = number > given ? number : given;
        pthread_mutex_unlock(&lock);
        *out = (event_t){handle_of(gpu), type, xid, ~0u, ~0u};
        return 1;
    }
    return 0;
}

EXPORT int nvmlEventSetWait_v2(set_t *set, event_t *out, unsigned timeout_ms)
{
    const struct timespec step = {0, 100 * 1000 * 1000};
    unsigned seen = 0;
    for (unsigned waited = 0;; waited += 100) {
        state_look();
        if (waited == 0 || seen != state_generation()) {
            int code = enter("nvmlEventSetWait", -1);
            if (code != SUCCESS)
                return code;
            seen = state_generation();
            if (take(set, out))
                return SUCCESS;
        }
        if (!is_initialized())
            return UNINITIALIZED;
        if (waited >= timeout_ms)
            return TIMEOUT;
        nanosleep(&step, NULL);
    }
}
