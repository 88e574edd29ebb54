/*
 * Reads tar from standard input: v7, ustar, GNU and pax, as image layers hold them. Everything the archive says is
 * checked and bounded here; what comes out is a struct with whole values.
 */
#ifndef TAR_H
#define TAR_H
#include "common.h"
#include <time.h>

enum {
    MAX_EXTENDED = 1 << 20, /* bytes of one pax header or long name: what Go's archive/tar allows */
    MAX_PATH = 1 << 16,     /* bytes of a path or link target */
    MAX_EXTENTS = 1 << 20,  /* data runs of one sparse file */
};

struct xattr {
    char *name;
    char *value;
    size_t length;
};

struct extent {
    uint64_t offset, length;
};

/* type: '0' regular, '1' hard link, '2' symlink, '3' char, '4' block, '5' directory, '6' fifo. */
struct entry {
    char *path, *link;
    char type;
    uint32_t mode, uid, gid, major, minor;
    struct timespec mtime;
    uint64_t size; /* of the file; more than its data when sparse */
    struct xattr *xattrs;
    size_t xattr_count;
    bool sparse;
    struct extent *extents;
    size_t extent_count;
};

/* Reads the next entry; false at the end of the archive. What the last one left unread is skipped. */
bool tar_next(struct entry *entry);
/* The next run of the entry's data, at most `limit` bytes, valid until the next call; 0 at its end. */
size_t tar_data(const char **bytes, uint64_t limit);
void entry_free(struct entry *entry);

/* For pax.c and sparse.c. */
struct overrides {
    char *path, *link, *sparse_name;
    bool has_size, has_uid, has_gid, has_mtime;
    uint64_t size;
    uint32_t uid, gid;
    struct timespec mtime;
    int sparse_major, sparse_minor; /* -1: not given */
    bool has_sparse_size;
    uint64_t sparse_size;
    struct extent *extents;
    size_t extent_count;
    bool has_map, half_extent;
    struct xattr *xattrs;
    size_t xattr_count;
};

void pax_parse(char *records, size_t length, struct overrides *into);
uint64_t decimal(const char *text, size_t length, uint64_t limit, const char *what);
uint64_t tar_number(const char *field, size_t length, const char *what);
const char *tar_block(void);
const char *tar_header_block(void);
void add_extent(struct extent **extents, size_t *count, uint64_t offset, uint64_t length);
void sparse_old(const char *header, struct entry *entry);
void sparse_pax(struct overrides *given, struct entry *entry);
/* Checks the map against the file; `data` is what the archive holds for it. */
void sparse_check(const struct entry *entry, uint64_t data);
uint64_t tar_left(void);

#endif
