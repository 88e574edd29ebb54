/* The two maps of ids, each sorted by container id. */
#include "remap.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX_LINES = 340, MAX_LINE = 64 }; /* of one map: the kernel's limit (UID_GID_MAP_MAX_EXTENTS) */

struct range {
    uint32_t container, host, size;
};

static struct map {
    struct range ranges[MAX_LINES];
    size_t count;
} maps[2];

static _Noreturn void bad_maps(const char *why)
{
    errno = EINVAL;
    host_error(why, "the id maps");
}

static int by_container(const void *a, const void *b)
{
    uint32_t left = ((const struct range *)a)->container, right = ((const struct range *)b)->container;
    return left < right ? -1 : left > right;
}

/* 2^32 - 1 is no id: chown takes it for "leave as it is". */
static bool fits(unsigned long long first, unsigned long long size)
{
    return size > 0 && first < UINT32_MAX && size <= UINT32_MAX - first;
}

static void add_line(const char *line)
{
    char kind;
    unsigned long long container, host, size;
    int used = 0;
    if (sscanf(line, "%c %10llu %10llu %10llu%n", &kind, &container, &host, &size, &used) != 4 || line[used] ||
        (kind != 'u' && kind != 'g'))
        bad_maps("read a line of");
    if (!fits(container, size) || !fits(host, size))
        bad_maps("take a range of");
    struct map *map = &maps[kind == 'u' ? USER_ID : GROUP_ID];
    if (map->count == MAX_LINES)
        bad_maps("take more than 340 lines of");
    map->ranges[map->count++] = (struct range){(uint32_t)container, (uint32_t)host, (uint32_t)size};
}

static void sort_map(struct map *map)
{
    qsort(map->ranges, map->count, sizeof *map->ranges, by_container);
    for (size_t i = 1; i < map->count; i++)
        if (map->ranges[i].container - map->ranges[i - 1].container < map->ranges[i - 1].size)
            bad_maps("tell apart ranges of");
}

void read_maps(void)
{
    static char text[2 * MAX_LINES * MAX_LINE];
    size_t length = 0;
    ssize_t got;
    while ((got = read(0, text + length, sizeof text - 1 - length)) != 0) {
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            host_error("read", "the id maps");
        length += (size_t)got;
    }
    if (length == sizeof text - 1)
        bad_maps("hold");
    char *state = NULL;
    for (char *line = strtok_r(text, "\n", &state); line; line = strtok_r(NULL, "\n", &state))
        add_line(line);
    sort_map(&maps[USER_ID]);
    sort_map(&maps[GROUP_ID]);
}

bool map_id(enum id_kind kind, uint32_t container, uint32_t *host)
{
    const struct map *map = &maps[kind];
    for (size_t low = 0, high = map->count; low < high;) {
        size_t middle = (low + high) / 2;
        const struct range *range = &map->ranges[middle];
        if (container < range->container)
            high = middle;
        else if (container - range->container >= range->size)
            low = middle + 1;
        else {
            *host = range->host + (container - range->container);
            return true;
        }
    }
    return false;
}
