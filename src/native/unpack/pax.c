/* Pax extended headers: "LENGTH KEY=VALUE\n" records that override fields of the next header. */
#include "tar.h"
#include <stdlib.h>
#include <string.h>

uint64_t decimal(const char *text, size_t length, uint64_t limit, const char *what)
{
    uint64_t value = 0;
    if (length == 0 || length > 20)
        bad_image("%s is not a number", what);
    for (size_t i = 0; i < length; i++) {
        if (text[i] < '0' || text[i] > '9')
            bad_image("%s is not a number", what);
        uint64_t digit = (uint64_t)(text[i] - '0');
        if (value > (limit - digit) / 10)
            bad_image("%s is too large", what);
        value = value * 10 + digit;
    }
    return value;
}

/* "1700000000.25", also negative, also with more digits than nanoseconds. */
static struct timespec pax_time(const char *text, size_t length)
{
    bool negative = length && *text == '-';
    if (negative)
        text++, length--;
    const char *dot = memchr(text, '.', length);
    size_t whole = dot ? (size_t)(dot - text) : length;
    struct timespec time = {.tv_sec = (time_t)decimal(text, whole, INT64_MAX / 2, "modification time")};
    long unit = 100000000;
    for (size_t i = whole + 1; dot && i < length; i++, unit /= 10) {
        if (text[i] < '0' || text[i] > '9')
            bad_image("modification time is not a number");
        time.tv_nsec += (text[i] - '0') * unit;
    }
    if (negative) {
        time.tv_sec = -time.tv_sec;
        if (time.tv_nsec)
            time.tv_sec--, time.tv_nsec = 1000000000 - time.tv_nsec;
    }
    return time;
}

static void set_string(char **field, const char *value, size_t length, const char *what)
{
    if (memchr(value, 0, length))
        bad_image("%s holds a zero byte", what);
    free(*field);
    *field = must_strdup(value);
}

static void add_xattr(struct overrides *into, const char *name, const char *value, size_t length)
{
    if (!*name || strlen(name) > 255)
        bad_image("extended attribute with a name of %zu bytes", strlen(name));
    if (length > 65536)
        bad_image("extended attribute %s of %zu bytes is too long", name, length);
    if (is_overlay_xattr(name))
        bad_image("extended attribute %s would command the overlay file system", name);
    if (into->xattr_count >= 1024)
        bad_image("too many extended attributes");
    into->xattrs = must_realloc(into->xattrs, (into->xattr_count + 1) * sizeof *into->xattrs);
    struct xattr *xattr = &into->xattrs[into->xattr_count++];
    xattr->name = must_strdup(name);
    xattr->value = must_alloc(length);
    xattr->length = length;
    memcpy(xattr->value, value, length);
}

/* GNU.sparse.map (format 0.1): "offset,length,offset,length". */
static void sparse_map(struct overrides *into, const char *text, size_t length)
{
    const char *end = text + length;
    free(into->extents);
    into->extents = NULL;
    into->extent_count = 0;
    into->has_map = true;
    while (text < end) {
        uint64_t pair[2];
        for (int i = 0; i < 2; i++) {
            if (text > end)
                bad_image("sparse map ends in the middle");
            const char *comma = memchr(text, ',', (size_t)(end - text));
            const char *stop = comma ? comma : end;
            pair[i] = decimal(text, (size_t)(stop - text), INT64_MAX, "sparse map");
            text = stop + 1;
        }
        add_extent(&into->extents, &into->extent_count, pair[0], pair[1]);
    }
}

/* Format 0.0: one record per number, offset and length in turn. */
static void sparse_piece(struct overrides *into, bool is_length, uint64_t value)
{
    into->has_map = true;
    if (is_length != into->half_extent)
        bad_image("sparse map is out of order");
    if (!is_length)
        add_extent(&into->extents, &into->extent_count, value, 0);
    else
        into->extents[into->extent_count - 1].length = value;
    into->half_extent = !is_length;
}

static void sparse_record(struct overrides *into, const char *key, const char *value, size_t length)
{
    if (!strcmp(key, "major"))
        into->sparse_major = (int)decimal(value, length, 1000, "sparse version");
    else if (!strcmp(key, "minor"))
        into->sparse_minor = (int)decimal(value, length, 1000, "sparse version");
    else if (!strcmp(key, "name"))
        set_string(&into->sparse_name, value, length, "path");
    else if (!strcmp(key, "map"))
        sparse_map(into, value, length);
    else if (!strcmp(key, "offset"))
        sparse_piece(into, false, decimal(value, length, INT64_MAX, "sparse map"));
    else if (!strcmp(key, "numbytes"))
        sparse_piece(into, true, decimal(value, length, INT64_MAX, "sparse map"));
    else if (!strcmp(key, "size") || !strcmp(key, "realsize")) {
        into->sparse_size = decimal(value, length, INT64_MAX, "sparse size");
        into->has_sparse_size = true;
    }
}

static uint32_t pax_id(const char *value, size_t length, const char *what)
{
    return (uint32_t)decimal(value, length, UINT32_MAX - 1, what);
}

static void record(struct overrides *into, const char *key, const char *value, size_t length)
{
    if (!strcmp(key, "path"))
        set_string(&into->path, value, length, "path");
    else if (!strcmp(key, "linkpath"))
        set_string(&into->link, value, length, "link target");
    else if (!strcmp(key, "size"))
        into->size = decimal(value, length, INT64_MAX, "size"), into->has_size = true;
    else if (!strcmp(key, "uid"))
        into->uid = pax_id(value, length, "uid"), into->has_uid = true;
    else if (!strcmp(key, "gid"))
        into->gid = pax_id(value, length, "gid"), into->has_gid = true;
    else if (!strcmp(key, "mtime"))
        into->mtime = pax_time(value, length), into->has_mtime = true;
    else if (!strncmp(key, "SCHILY.xattr.", 13))
        add_xattr(into, key + 13, value, length);
    else if (!strncmp(key, "GNU.sparse.", 11))
        sparse_record(into, key + 11, value, length);
}

void pax_parse(char *text, size_t length, struct overrides *into)
{
    char *end = text + length;
    while (text < end) {
        char *space = memchr(text, ' ', (size_t)(end - text));
        if (!space)
            bad_image("extended header is malformed");
        size_t size = (size_t)decimal(text, (size_t)(space - text), MAX_EXTENDED, "length of an extended record");
        if (size < (size_t)(space - text) + 3 || size > (size_t)(end - text) || text[size - 1] != '\n')
            bad_image("extended header is malformed");
        char *key = space + 1, *next = text + size;
        char *equals = memchr(key, '=', (size_t)(next - key));
        if (!equals)
            bad_image("extended header is malformed");
        *equals = 0;
        next[-1] = 0;
        if (strlen(key) != (size_t)(equals - key))
            bad_image("extended header holds a zero byte in a name");
        record(into, key, equals + 1, (size_t)(next - 1 - (equals + 1)));
        text = next;
    }
}
