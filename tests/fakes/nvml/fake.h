/* What the parts of the fake NVML have in common. What it does is told in fake.c. */
#ifndef FAKE_NVML_H
#define FAKE_NVML_H

#include <stddef.h>

#define EXPORT __attribute__((visibility("default")))
#define MAX_GPUS 64
#define MAX_MIG 8
#define VALUE_SIZE 1024

enum {
    SUCCESS = 0, UNINITIALIZED = 1, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6,
    INSUFFICIENT_SIZE = 7, DRIVER_NOT_LOADED = 9, TIMEOUT = 10, GPU_IS_LOST = 15,
    VERSION_MISMATCH = 25,
};

typedef unsigned long long u64;

/* A GPU by its number in the state file, or (mig >= 0) one MIG device of it. */
typedef struct { int gpu, mig; } device_t;
typedef device_t *nvmlDevice_t;

/* nvml.h's layouts, LP64 */
typedef struct { u64 total, free, used; } memory_t;
typedef struct { unsigned version; u64 total, reserved, free, used; } memory_v2_t;
typedef struct { unsigned gpu, memory; } utilization_t;
typedef struct { unsigned version, sensor; int temperature; } temperature_t;
typedef struct { unsigned version; int margin; } margin_t;
typedef struct { unsigned pid; u64 used; unsigned gpu_instance, compute_instance; } process_t;
typedef struct {
    char bus_id_legacy[16];
    unsigned domain, bus, device, pci_device_id, pci_subsystem_id;
    char bus_id[32];
} pci_t;
typedef union {
    double d;
    unsigned ui;
    u64 ull;
    long long sll;
    int si;
    unsigned short us;
} value_t;
typedef struct {
    unsigned field, scope;
    long long timestamp, latency;
    unsigned type;
    int code;
    value_t value;
} field_t;
typedef struct {
    nvmlDevice_t device;
    u64 type, data;
    unsigned gpu_instance, compute_instance;
} event_t;
typedef struct {
    unsigned version;
    u64 counts[11];
    unsigned threshold_exceeded;
} sram_t;
typedef struct { unsigned max, high, partial, low, none; } histogram_t;
typedef struct { unsigned char cluster[16]; int status; unsigned clique, state; } fabric_t;
typedef struct {
    unsigned version;
    unsigned char cluster[16];
    int status;
    unsigned clique;
    unsigned char state;
    unsigned health;
} fabric_v2_t;
typedef struct {
    unsigned version;
    unsigned char cluster[16];
    int status;
    unsigned clique;
    unsigned char state;
    unsigned health;
    unsigned char summary;
} fabric_v3_t;
typedef struct {
    unsigned multiprocessors, copy_engines, decoders, encoders, jpegs, ofas, gpu_slices,
        compute_slices;
    u64 memory_mib;
} attributes_t;

/* state.c: the state file */
void state_look(void);                             /* parse it again if it is another one */
int state_there(void);
unsigned state_generation(void);                   /* grows whenever it was parsed */
int state_find(const char *key, char out[VALUE_SIZE]); /* the last line of a key wins */
int state_xid(unsigned after, unsigned *number, char out[VALUE_SIZE]);
unsigned state_last_xid(void);

/* calls.c: what every call passes first; gpu is -1 for calls that concern none */
int enter(const char *function, int gpu);
int enter_device(const char *function, nvmlDevice_t device);
int enter_init(const char *function);              /* does not need NVML to be initialized */
int is_initialized(void);
int gpu_gone(int gpu);
int gpu_total(void);                               /* in the file, the gone ones counted too */
int gpu_at(unsigned index);                        /* the index-th that is not gone, or -1 */
int index_of(int gpu);
nvmlDevice_t handle_of(int gpu);
nvmlDevice_t mig_handle_of(int gpu, int mig);

/* events.c */
void events_begin(void);                           /* called by nvmlInit */

/* values.c: attributes of a GPU. Each returns an nvmlReturn_t. */
int text_of(nvmlDevice_t device, const char *name, char out[VALUE_SIZE]);
int number_of(nvmlDevice_t device, const char *name, u64 *out);
int unsigned_of(nvmlDevice_t device, const char *name, unsigned *out);
int copy_text(const char *text, char *out, unsigned size);
int device_text(const char *function, nvmlDevice_t device, const char *name, char *out,
                unsigned size);
int device_number(const char *function, nvmlDevice_t device, const char *name, u64 *out);
int device_unsigned(const char *function, nvmlDevice_t device, const char *name, unsigned *out);
int device_pair(const char *function, nvmlDevice_t device, const char *first, const char *second,
                unsigned *one, unsigned *two);

#endif
