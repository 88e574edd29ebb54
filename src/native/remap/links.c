/* Hard links: which inode of the layers has become which file, by one of its names. One thread at a time. */
#include "remap.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct link {
    uint64_t device, inode;
    const char *dir; /* NULL: a free slot. Files of one directory share the string */
    char *name;
};

static struct link *table; /* open addressing */
static size_t room, taken;

static struct link *slot(uint64_t device, uint64_t inode)
{
    uint64_t value = (inode ^ device << 40) * 0x9e3779b97f4a7c15u;
    size_t at = (value >> 20) & (room - 1);
    while (table[at].dir && (table[at].inode != inode || table[at].device != device))
        at = (at + 1) & (room - 1);
    return &table[at];
}

static void grow(void)
{
    struct link *old = table;
    size_t old_room = room;
    room = room ? room * 2 : 1024;
    table = must_alloc(room * sizeof *table);
    for (size_t i = 0; i < old_room; i++)
        if (old[i].dir)
            *slot(old[i].device, old[i].inode) = old[i];
    free(old);
}

static int open_dir_of(const struct place *place, const struct link *link)
{
    static const char *last_path;
    static int last = -1;
    if (!strcmp(link->dir, place->path))
        return place->to;
    if (last_path == link->dir)
        return last;
    if (last >= 0)
        close(last);
    last_path = link->dir;
    last = open_beneath(destination, link->dir, O_PATH | O_DIRECTORY);
    if (last < 0)
        host_error("open", link->dir);
    return last;
}

bool link_known(const struct place *place, const char *name, const struct stat *st)
{
    struct link *link = room ? slot(st->st_dev, st->st_ino) : NULL;
    if (!link || !link->dir)
        return false;
    if (linkat(open_dir_of(place, link), link->name, place->to, name, 0) < 0)
        host_error("create hard link", path_of(place, name));
    return true;
}

static const char *shared_path(const char *path)
{
    static const char *last = "";
    if (strcmp(last, path))
        last = must_strdup(path);
    return last;
}

void remember_link(const struct place *place, const char *name, const struct stat *st)
{
    if (taken * 2 >= room)
        grow();
    struct link *link = slot(st->st_dev, st->st_ino);
    *link = (struct link){st->st_dev, st->st_ino, shared_path(place->path), must_strdup(name)};
    taken++;
}
