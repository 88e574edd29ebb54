#include "tar.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char buffer[1 << 20];
static size_t begin, end; /* unread part of the buffer */
static uint64_t left;     /* data of the current entry not yet read */
static uint32_t padding;  /* after that data */

static bool refill(void)
{
    if (begin == end)
        begin = end = 0;
    if (end == sizeof buffer) {
        memmove(buffer, buffer + begin, end - begin);
        end -= begin;
        begin = 0;
    }
    for (;;) {
        ssize_t got = read(0, buffer + end, sizeof buffer - end);
        if (got > 0)
            end += (size_t)got;
        if (got >= 0)
            return got > 0;
        if (errno != EINTR)
            host_error("read", "archive");
    }
}

/* The next 512 bytes, or NULL when the archive ends before the first of them. */
static const char *read_block(void)
{
    while (end - begin < 512) {
        size_t had = end - begin;
        if (refill())
            continue;
        if (had)
            bad_image("archive ends inside a header");
        return NULL;
    }
    begin += 512;
    return buffer + begin - 512;
}

uint64_t tar_left(void)
{
    return left;
}

/* A block of the current entry's data. */
const char *tar_block(void)
{
    if (left < 512)
        bad_image("sparse map is longer than its entry");
    const char *block = read_block();
    if (!block)
        bad_image("archive ends inside an entry");
    left -= 512;
    return block;
}

/* A block that belongs to the header. */
const char *tar_header_block(void)
{
    const char *block = read_block();
    if (!block)
        bad_image("archive ends inside a header");
    return block;
}

size_t tar_data(const char **bytes, uint64_t limit)
{
    if (limit > left)
        limit = left;
    if (limit == 0)
        return 0;
    if (begin == end && !refill())
        bad_image("archive ends inside an entry");
    size_t run = end - begin;
    if (run > limit)
        run = (size_t)limit;
    *bytes = buffer + begin;
    begin += run;
    left -= run;
    return run;
}

static void skip_rest(void)
{
    const char *ignored;
    left += padding;
    padding = 0;
    while (tar_data(&ignored, left)) {
    }
}

static char *read_extended(const char *what)
{
    if (left > MAX_EXTENDED)
        bad_image("%s of %llu bytes is too long", what, (unsigned long long)left);
    char *text = must_alloc((size_t)left + 1);
    size_t used = 0, run;
    const char *bytes;
    while ((run = tar_data(&bytes, left))) {
        memcpy(text + used, bytes, run);
        used += run;
    }
    return text;
}

uint64_t tar_number(const char *field, size_t length, const char *what)
{
    const unsigned char *bytes = (const unsigned char *)field;
    uint64_t value = 0;
    if (bytes[0] & 0x80) { /* base 256, GNU */
        value = bytes[0] & 0x3f;
        if (bytes[0] & 0x40)
            bad_image("negative %s", what);
        for (size_t i = 1; i < length; i++) {
            if (value >> 55)
                bad_image("%s is too large", what);
            value = value << 8 | bytes[i];
        }
        return value;
    }
    size_t i = 0;
    while (i < length && (bytes[i] == ' ' || bytes[i] == 0))
        i++;
    for (; i < length && bytes[i] >= '0' && bytes[i] <= '7'; i++)
        value = value << 3 | (bytes[i] - '0');
    for (; i < length; i++)
        if (bytes[i] != ' ' && bytes[i] != 0)
            bad_image("%s is not a number", what);
    return value;
}

static int64_t header_time(const char *field)
{
    const unsigned char *bytes = (const unsigned char *)field;
    if (bytes[0] != 0xff)
        return (int64_t)tar_number(field, 12, "modification time");
    uint64_t value = UINT64_MAX;
    for (int i = 1; i < 12; i++)
        value = value << 8 | bytes[i];
    return (int64_t)value;
}

static uint32_t header_id(const char *field, const char *what)
{
    uint64_t id = tar_number(field, 8, what);
    if (id >= UINT32_MAX)
        bad_image("%s %llu is out of range", what, (unsigned long long)id);
    return (uint32_t)id;
}

static void check_sum(const char *header)
{
    uint64_t given = tar_number(header + 148, 8, "checksum");
    int64_t plain = 0, with_sign = 0;
    for (int i = 0; i < 512; i++) {
        char c = i >= 148 && i < 156 ? ' ' : header[i];
        plain += (unsigned char)c;
        with_sign += (signed char)c;
    }
    if ((int64_t)given != plain && (int64_t)given != with_sign)
        bad_image("header checksum is wrong: not a tar archive?");
}

static char *fixed_string(const char *field, size_t length)
{
    char *text = must_alloc(length + 1);
    memcpy(text, field, strnlen(field, length));
    return text;
}

static char *header_path(const char *header)
{
    char *name = fixed_string(header, 100);
    if (memcmp(header + 257, "ustar\0", 6) || !header[345])
        return name;
    char *prefix = fixed_string(header + 345, 155), *whole = join_path(prefix, name);
    free(prefix);
    free(name);
    return whole;
}

static char *pick(char *over, char *plain)
{
    if (!over)
        return plain;
    free(plain);
    return over;
}

static void check_length(const char *text, const char *what)
{
    if (strlen(text) > MAX_PATH)
        bad_image("%s of %zu bytes is too long", what, strlen(text));
}

static char normal_type(char flag, const char *path)
{
    size_t length = strlen(path);
    if (flag == 0 || flag == '7' || flag == 'S')
        flag = '0';
    if (flag == '0' && length && path[length - 1] == '/')
        return '5'; /* v7 had no type for directories */
    return flag;
}

static void set_data(uint64_t size)
{
    if (size > INT64_MAX)
        bad_image("size is too large");
    left = size;
    padding = (uint32_t)(-size & 511);
}

static void finish(const char *raw, struct overrides *over, struct entry *entry)
{
    char header[512];
    memcpy(header, raw, sizeof header);
    char flag = header[156];
    bool name_from_sparse = over->sparse_name != NULL;
    entry->path = pick(name_from_sparse ? over->sparse_name : over->path, header_path(header));
    if (name_from_sparse)
        free(over->path);
    entry->link = pick(over->link, fixed_string(header + 157, 100));
    check_length(entry->path, "path");
    check_length(entry->link, "link target");
    entry->type = normal_type(flag, entry->path);
    if (!strchr("0123456V", entry->type))
        bad_image("%s: entry of unknown type \"%c\"", entry->path, entry->type);
    entry->mode = (uint32_t)tar_number(header + 100, 8, "mode") & 07777;
    entry->uid = over->has_uid ? over->uid : header_id(header + 108, "uid");
    entry->gid = over->has_gid ? over->gid : header_id(header + 116, "gid");
    entry->mtime = over->has_mtime ? over->mtime : (struct timespec){.tv_sec = header_time(header + 136)};
    if (entry->type == '3' || entry->type == '4') {
        entry->major = (uint32_t)tar_number(header + 329, 8, "device number");
        entry->minor = (uint32_t)tar_number(header + 337, 8, "device number");
    }
    uint64_t size = over->has_size ? over->size : tar_number(header + 124, 12, "size");
    /* Links and their kin may carry the size of what they stand for, without the data. */
    if (flag && strchr("123456V", flag))
        size = 0;
    set_data(size);
    entry->size = size;
    entry->xattrs = over->xattrs;
    entry->xattr_count = over->xattr_count;
    if (flag == 'S')
        sparse_old(header, entry);
    else if (entry->type == '0')
        sparse_pax(over, entry);
    if (entry->sparse)
        sparse_check(entry, left);
}

static bool all_zero(const char *block)
{
    for (int i = 0; i < 512; i++)
        if (block[i])
            return false;
    return true;
}

bool tar_next(struct entry *entry)
{
    struct overrides over = {.sparse_major = -1, .sparse_minor = -1};
    memset(entry, 0, sizeof *entry);
    for (bool extended = false;;) {
        skip_rest();
        const char *header = read_block();
        if (!header || all_zero(header)) {
            if (extended)
                bad_image("archive ends after an extended header");
            return false;
        }
        check_sum(header);
        char flag = header[156];
        if (!strchr("xgLKX", flag) || !flag) {
            finish(header, &over, entry);
            return true;
        }
        set_data(tar_number(header + 124, 12, "size"));
        char *text = read_extended(flag == 'L' || flag == 'K' ? "long name" : "extended header");
        size_t length = (size_t)tar_number(header + 124, 12, "size");
        if (flag == 'L')
            over.path = pick(must_strdup(text), over.path);
        else if (flag == 'K')
            over.link = pick(must_strdup(text), over.link);
        /* Global headers are read and ignored, as Go's tar reader does with which most layers are made. */
        else if (flag != 'g')
            pax_parse(text, length, &over);
        free(text);
        if (flag != 'g')
            extended = true; /* a global header may end an archive */
    }
}

void entry_free(struct entry *entry)
{
    free(entry->path);
    free(entry->link);
    free(entry->extents);
    for (size_t i = 0; i < entry->xattr_count; i++) {
        free(entry->xattrs[i].name);
        free(entry->xattrs[i].value);
    }
    free(entry->xattrs);
}
