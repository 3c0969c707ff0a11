/* The state file: "key value" lines, in a hash table that is made anew when the file is another. */
#define _DEFAULT_SOURCE
#include "fake.h"
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

typedef struct { const char *key, *value; } line_t;

static char *text;      /* the file, its lines cut up in place */
static line_t *table;   /* open addressing, slots is a power of two */
static size_t slots;
static unsigned last_xid;
static int there;
static unsigned generation;
static struct stat seen;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static const char *state_path(void)
{
    const char *path = getenv("FAKE_NVML_STATE");
    return path && *path ? path : "/etc/fake-nvml.state";
}

static int changed(const struct stat *now)
{
    return !there || now->st_ino != seen.st_ino || now->st_size != seen.st_size ||
           now->st_mtim.tv_sec != seen.st_mtim.tv_sec ||
           now->st_mtim.tv_nsec != seen.st_mtim.tv_nsec;
}

static line_t *slot_of(const char *key)
{
    size_t hash = 14695981039346656037ull;
    for (const char *at = key; *at; at++)
        hash = (hash ^ (unsigned char)*at) * 1099511628211ull;
    for (size_t at = hash & (slots - 1);; at = (at + 1) & (slots - 1))
        if (!table[at].key || strcmp(table[at].key, key) == 0)
            return &table[at];
}

static char *read_file(void)
{
    FILE *file = fopen(state_path(), "r");
    if (!file)
        return NULL;
    size_t size = 0, room = 4096;
    char *buffer = malloc(room);
    for (size_t got; (got = fread(buffer + size, 1, room - size - 1, file)) > 0;) {
        size += got;
        if (size + 1 == room)
            buffer = realloc(buffer, room *= 2);
    }
    buffer[size] = '\0';
    fclose(file);
    return buffer;
}

static void parse(char *fresh)
{
    size_t count = 1;
    for (const char *at = fresh; *at; at++)
        count += *at == '\n';
    for (slots = 64; slots < 2 * count;)
        slots *= 2;
    free(text);
    free(table);
    text = fresh;
    table = calloc(slots, sizeof *table);
    last_xid = 0;
    unsigned number;
    for (char *rest = fresh, *line; (line = strsep(&rest, "\n"));) {
        char *value = line + strcspn(line, " \t");
        if (line[0] == '#' || !*value)
            continue;
        *value++ = '\0';
        value += strspn(value, " \t");
        *slot_of(line) = (line_t){line, value};
        if (sscanf(line, "xid.%u", &number) == 1 && number > last_xid)
            last_xid = number;
    }
}

void state_look(void)
{
    struct stat now;
    pthread_mutex_lock(&lock);
    if (stat(state_path(), &now) != 0) {
        generation += (unsigned)there;
        there = 0;
    } else if (changed(&now)) {
        char *fresh = read_file();
        there = fresh != NULL;
        seen = now;
        generation++;
        if (fresh)
            parse(fresh);
    }
    pthread_mutex_unlock(&lock);
}

int state_there(void)
{
    pthread_mutex_lock(&lock);
    int answer = there;
    pthread_mutex_unlock(&lock);
    return answer;
}

unsigned state_generation(void)
{
    pthread_mutex_lock(&lock);
    unsigned answer = generation;
    pthread_mutex_unlock(&lock);
    return answer;
}

int state_find(const char *key, char out[VALUE_SIZE])
{
    pthread_mutex_lock(&lock);
    const char *value = there ? slot_of(key)->value : NULL;
    if (value)
        snprintf(out, VALUE_SIZE, "%s", value);
    pthread_mutex_unlock(&lock);
    return value != NULL;
}

unsigned state_last_xid(void)
{
    pthread_mutex_lock(&lock);
    unsigned answer = there ? last_xid : 0;
    pthread_mutex_unlock(&lock);
    return answer;
}

/* The first "xid.<number>" line whose number is above *after*. */
int state_xid(unsigned after, unsigned *number, char out[VALUE_SIZE])
{
    char key[32];
    for (unsigned last = state_last_xid(); after < last;) {
        snprintf(key, sizeof key, "xid.%u", *number = ++after);
        if (state_find(key, out))
            return 1;
    }
    return 0;
}
