#include "names.h"
#include <stdlib.h>
#include <string.h>

static _Thread_local struct seen *table; /* open addressing */
static _Thread_local size_t room, taken;

static uint64_t hash(const char *text)
{
    uint64_t value = 14695981039346656037u;
    for (; *text; text++)
        value = (value ^ (unsigned char)*text) * 1099511628211u;
    return value ^ value >> 32;
}

static struct seen *slot(const char *name)
{
    size_t at = hash(name) & (room - 1);
    while (table[at].name && strcmp(table[at].name, name))
        at = (at + 1) & (room - 1);
    return &table[at];
}

static void resize(size_t wanted)
{
    struct seen *old = table;
    size_t old_room = room;
    room = wanted;
    table = must_alloc(room * sizeof *table);
    for (size_t i = 0; i < old_room; i++)
        if (old[i].name)
            *slot(old[i].name) = old[i];
    free(old);
}

/* A table that one huge directory made large is not swept again for every small one after it. */
void names_forget(void)
{
    for (size_t i = 0; i < room && taken; i++)
        if (table[i].name) {
            free(table[i].name);
            table[i] = (struct seen){0};
            taken--;
        }
    if (room > 4096) {
        free(table);
        table = NULL;
        room = 0;
    }
}

struct seen *names_meet(const char *name, bool *is_new)
{
    if (taken * 2 >= room)
        resize(room ? room * 2 : 256);
    struct seen *seen = slot(name);
    *is_new = !seen->name;
    if (*is_new) {
        seen->name = must_strdup(name);
        taken++;
    }
    return seen;
}
