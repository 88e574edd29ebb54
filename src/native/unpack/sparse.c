/* Sparse files: the old GNU header, and the three pax forms 0.0, 0.1 and 1.0. */
#include "tar.h"
#include <stdlib.h>
#include <string.h>

void add_extent(struct extent **extents, size_t *count, uint64_t offset, uint64_t length)
{
    if (*count >= MAX_EXTENTS)
        bad_image("sparse file of too many pieces");
    if ((*count & (*count - 1)) == 0) {
        size_t room = *count ? *count * 2 : 1;
        *extents = must_realloc(*extents, room * sizeof **extents);
    }
    (*extents)[(*count)++] = (struct extent){offset, length};
}

static void old_extents(const char *table, int rows, struct entry *entry)
{
    for (int i = 0; i < rows && table[i * 24]; i++) {
        uint64_t offset = tar_number(table + i * 24, 12, "sparse map");
        uint64_t length = tar_number(table + i * 24 + 12, 12, "sparse map");
        add_extent(&entry->extents, &entry->extent_count, offset, length);
    }
}

/* Extension blocks follow the header and are not counted by its size field. */
void sparse_old(const char *header, struct entry *entry)
{
    entry->sparse = true;
    old_extents(header + 386, 4, entry);
    entry->size = tar_number(header + 483, 12, "sparse size");
    bool more = header[482];
    while (more) {
        const char *block = tar_header_block();
        old_extents(block, 21, entry);
        more = block[504];
    }
}

/* Format 1.0 keeps the map in front of the data, as decimal lines padded to a whole block. */
struct lines {
    const char *block;
    size_t at;
};

static uint64_t map_line(struct lines *lines)
{
    char digits[24];
    size_t used = 0;
    for (;;) {
        if (!lines->block || lines->at == 512)
            *lines = (struct lines){tar_block(), 0};
        char c = lines->block[lines->at++];
        if (c == '\n')
            return decimal(digits, used, INT64_MAX, "sparse map");
        if (used == sizeof digits)
            bad_image("sparse map is malformed");
        digits[used++] = c;
    }
}

static void sparse_lines(struct entry *entry)
{
    struct lines lines = {0};
    uint64_t count = map_line(&lines);
    if (count > MAX_EXTENTS)
        bad_image("sparse file of too many pieces");
    for (uint64_t i = 0; i < count; i++) {
        uint64_t offset = map_line(&lines);
        add_extent(&entry->extents, &entry->extent_count, offset, map_line(&lines));
    }
}

void sparse_pax(struct overrides *given, struct entry *entry)
{
    bool lines = given->sparse_major == 1 && given->sparse_minor == 0;
    if (!lines && !given->has_map) {
        if (given->sparse_major > 0)
            bad_image("%s: sparse format is not known", entry->path);
        return;
    }
    if (!given->has_sparse_size)
        bad_image("%s: sparse file without a size", entry->path);
    if (given->half_extent)
        bad_image("%s: sparse map ends in the middle", entry->path);
    entry->sparse = true;
    entry->size = given->sparse_size;
    if (lines) {
        sparse_lines(entry);
        return;
    }
    entry->extents = given->extents;
    entry->extent_count = given->extent_count;
}

void sparse_check(const struct entry *entry, uint64_t data)
{
    uint64_t at = 0, total = 0;
    if (entry->size > INT64_MAX)
        bad_image("%s: size is too large", entry->path);
    for (size_t i = 0; i < entry->extent_count; i++) {
        const struct extent *extent = &entry->extents[i];
        if (extent->offset < at || extent->offset > entry->size || extent->length > entry->size - extent->offset)
            bad_image("%s: sparse map is out of order or out of range", entry->path);
        at = extent->offset + extent->length;
        total += extent->length;
    }
    if (total != data)
        bad_image("%s: sparse map does not match the data", entry->path);
}
