#include "ids.h"
#include "acl.h"
#include <endian.h>
#include <linux/capability.h>
#include <stdio.h>
#include <string.h>

enum { MAX_RANGES = 256, RANGE_TEXT = 24 };

struct range {
    uint32_t first, last;
};

/* Rising, with at least one id between two of them, and never empty: directories nobody listed are root's. */
struct set {
    struct range ranges[MAX_RANGES + 1];
    size_t count;
    size_t recent; /* most entries have the owner of the one before */
};

static struct set sets[] = {[USER_ID] = {.count = 1}, [GROUP_ID] = {.count = 1}};

static bool holds(const struct range *range, uint32_t id)
{
    return id >= range->first && id <= range->last;
}

/* The first range that ends at `id` or above. */
static size_t place_of(const struct set *set, uint32_t id)
{
    size_t low = 0, high = set->count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (set->ranges[middle].last < id)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static void join(struct set *set, size_t at)
{
    set->ranges[at - 1].last = set->ranges[at].last;
    set->count--;
    memmove(&set->ranges[at], &set->ranges[at + 1], (set->count - at) * sizeof(struct range));
}

static void close_smallest_gap(struct set *set)
{
    size_t smallest = 1;
    for (size_t i = 2; i < set->count; i++)
        if (set->ranges[i].first - set->ranges[i - 1].last <
            set->ranges[smallest].first - set->ranges[smallest - 1].last)
            smallest = i;
    join(set, smallest);
}

static void insert(struct set *set, size_t at, uint32_t id)
{
    memmove(&set->ranges[at + 1], &set->ranges[at], (set->count - at) * sizeof(struct range));
    set->ranges[at] = (struct range){id, id};
    set->count++;
    if (set->count > MAX_RANGES)
        close_smallest_gap(set);
}

static void note(enum id_kind kind, uint32_t id)
{
    struct set *set = &sets[kind];
    if (holds(&set->ranges[set->recent], id))
        return;
    size_t at = place_of(set, id);
    bool follows = at > 0 && set->ranges[at - 1].last + 1 == id;
    bool precedes = at < set->count && set->ranges[at].first == id + 1;
    set->recent = 0;
    if (at < set->count && holds(&set->ranges[at], id))
        set->recent = at;
    else if (follows && precedes)
        join(set, at);
    else if (follows)
        set->ranges[at - 1].last = id;
    else if (precedes)
        set->ranges[at].first = id;
    else
        insert(set, at, id);
}

/* Version 3 says whose root it is for; before, it is for every root (capabilities(7)). */
static void note_capability(const struct xattr *xattr)
{
    struct vfs_ns_cap_data data;
    if (xattr->length != XATTR_CAPS_SZ_3)
        return;
    memcpy(&data, xattr->value, sizeof data);
    note(USER_ID, le32toh(data.rootid));
}

void ids_note(const struct entry *entry)
{
    note(USER_ID, entry->uid);
    note(GROUP_ID, entry->gid);
    for (size_t i = 0; i < entry->xattr_count; i++) {
        const struct xattr *xattr = &entry->xattrs[i];
        if (!strcmp(xattr->name, "security.capability"))
            note_capability(xattr);
        if (!is_acl(xattr->name))
            continue;
        for (struct acl_id named = {0}; acl_next(xattr->value, xattr->length, &named);)
            note(named.kind, named.id);
    }
}

char *ids_text(bool groups)
{
    const struct set *set = &sets[groups ? GROUP_ID : USER_ID];
    size_t size = set->count * RANGE_TEXT, used = 0;
    char *text = must_alloc(size);
    for (size_t i = 0; i < set->count; i++) {
        const struct range *range = &set->ranges[i];
        used += (size_t)snprintf(text + used, size - used, "%s%u", i ? "," : "", range->first);
        if (range->last != range->first)
            used += (size_t)snprintf(text + used, size - used, "-%u", range->last);
    }
    return text;
}
