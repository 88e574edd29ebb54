#include "tree.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int tree_root = -1;

/* ------------------------------------------------------------------------------------- directories by path */

static struct dir **table; /* open addressing; NULL is free, &gone was taken */
static struct dir gone;
static size_t room, taken, known;

static uint64_t hash(const char *text)
{
    uint64_t value = 14695981039346656037u;
    for (; *text; text++)
        value = (value ^ (unsigned char)*text) * 1099511628211u;
    return value;
}

static struct dir **slot(const char *path)
{
    for (size_t at = hash(path) & (room - 1);; at = (at + 1) & (room - 1))
        if (!table[at] || (table[at] != &gone && !strcmp(table[at]->path, path)))
            return &table[at];
}

static void grow(void)
{
    struct dir **old = table;
    size_t old_room = room;
    room = room ? room * 2 : 1024;
    table = must_alloc(room * sizeof *table);
    taken = known;
    for (size_t i = 0; i < old_room; i++)
        if (old[i] && old[i] != &gone)
            *slot(old[i]->path) = old[i];
    free(old);
}

struct dir *tree_dir(const char *path)
{
    if (taken * 2 >= room)
        grow();
    struct dir **at = slot(path);
    if (!*at) {
        *at = must_alloc(sizeof **at);
        (*at)->path = must_strdup(path);
        taken++, known++;
    }
    return *at;
}

void tree_forget(const char *path)
{
    struct dir **at = slot(path);
    if (!*at)
        return;
    free((*at)->path);
    free(*at);
    *at = &gone;
    known--;
}

static int by_path(const void *a, const void *b)
{
    return strcmp((*(struct dir *const *)a)->path, (*(struct dir *const *)b)->path);
}

size_t tree_count(void)
{
    return known;
}

struct dir **tree_sorted(size_t *count)
{
    struct dir **list = must_alloc(known * sizeof *list);
    *count = 0;
    for (size_t i = 0; i < room; i++)
        if (table[i] && table[i] != &gone)
            list[(*count)++] = table[i];
    qsort(list, *count, sizeof *list, by_path);
    return list;
}

/* ------------------------------------------------------------------------------------- walking */

static char *cached_path;      /* clean path of the directory opened last, */
static char *cached_canonical; /* its path without links, */
static int cached_fd = -1;     /* and its descriptor */

static void forget_cache(void)
{
    free(cached_path);
    free(cached_canonical);
    if (cached_fd >= 0)
        close(cached_fd);
    cached_path = cached_canonical = NULL;
    cached_fd = -1;
}

void tree_open(int root)
{
    tree_root = root;
    tree_dir("");
}

char *clean_path(const char *path)
{
    char *clean = must_alloc(strlen(path) + 1);
    size_t used = 0;
    int depth = 0;
    while (*path) {
        size_t length = strcspn(path, "/");
        bool dot = length == 1 && path[0] == '.', up = length == 2 && path[0] == '.' && path[1] == '.';
        if (up) {
            while (used && clean[--used] != '/') {
            }
            if (depth)
                depth--;
        } else if (length && !dot) {
            if (++depth > MAX_DEPTH)
                bad_image("path of more than %d directories", MAX_DEPTH);
            if (length > 255)
                bad_image("name of %zu bytes is too long", length);
            if (used)
                clean[used++] = '/';
            memcpy(clean + used, path, length);
            used += length;
        }
        path += length;
        while (*path == '/')
            path++;
    }
    clean[used] = 0;
    return clean;
}

struct walk {
    int fd;          /* where we are */
    char *canonical; /* the same as a path */
    char *rest;      /* names still to go */
    int links;
    bool create;
};

static void go_to(struct walk *walk, int fd, char *canonical)
{
    close(walk->fd);
    free(walk->canonical);
    walk->fd = fd;
    walk->canonical = canonical;
}

static void go_up(struct walk *walk)
{
    char *slash = strrchr(walk->canonical, '/');
    char *parent = must_strdup(walk->canonical);
    parent[slash ? slash - walk->canonical : 0] = 0;
    int fd = open_beneath(tree_root, parent, O_PATH | O_DIRECTORY);
    if (fd < 0)
        host_error("open", parent);
    go_to(walk, fd, parent);
}

static void make_implied(struct walk *walk, const char *name, bool cut)
{
    if (mkdirat(walk->fd, name, 0755) < 0)
        call_error("create directory", name);
    char *path = join_path(walk->canonical, name);
    tree_dir(path)->cut = cut;
    free(path);
    if (cut)
        set_opaque(walk->fd, name);
}

/* Puts a link's target in front of what is still to go. */
static void follow(struct walk *walk, const char *name)
{
    char target[4097];
    ssize_t length = readlinkat(walk->fd, name, target, sizeof target - 1);
    if (length < 0)
        host_error("read link", name);
    target[length] = 0;
    if (++walk->links > MAX_LINKS)
        bad_image("%s/%s: too many links", walk->canonical, name);
    if (*target == '/')
        go_to(walk, open_beneath(tree_root, "", O_PATH | O_DIRECTORY), must_strdup(""));
    char *rest = join_path(target, walk->rest);
    free(walk->rest);
    walk->rest = rest;
}

/* `name` is there, but no directory. False when the walk ends here with ENOENT. */
static bool pass_obstacle(struct walk *walk, const char *name)
{
    struct stat st;
    if (fstatat(walk->fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0) {
        if (errno != ENOENT)
            call_error("look at", name);
        if (!walk->create)
            return false;
        make_implied(walk, name, false);
        return true;
    }
    if (is_whiteout(&st)) {
        if (!walk->create)
            return false;
        if (unlinkat(walk->fd, name, 0) < 0)
            host_error("remove whiteout", name);
        make_implied(walk, name, true);
        return true;
    }
    bad_image("%s/%s is not a directory", walk->canonical, name);
}

static bool step(struct walk *walk, const char *name)
{
    if (!*name || !strcmp(name, "."))
        return true;
    if (!strcmp(name, "..")) {
        go_up(walk);
        return true;
    }
    for (;;) {
        int fd = open_name(walk->fd, name, O_PATH | O_DIRECTORY, 0);
        if (fd >= 0) {
            go_to(walk, fd, join_path(walk->canonical, name));
            return true;
        }
        struct stat st;
        if (errno != ENOENT && errno != ENOTDIR && errno != ELOOP)
            call_error("open", name);
        if (fstatat(walk->fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISLNK(st.st_mode)) {
            follow(walk, name);
            return true;
        }
        if (!pass_obstacle(walk, name))
            return false;
    }
}

/* Walks to the directory `path`; false with nothing open when it is missing and not to be made. */
static bool walk_to(struct walk *walk, const char *path)
{
    walk->fd = open_beneath(tree_root, "", O_PATH | O_DIRECTORY);
    if (walk->fd < 0)
        host_error("open", "layer");
    walk->canonical = must_strdup("");
    walk->rest = must_strdup(path);
    while (*walk->rest) {
        size_t length = strcspn(walk->rest, "/");
        if (length > 255)
            bad_image("name of %zu bytes is too long", length);
        char name[256];
        memcpy(name, walk->rest, length);
        name[length] = 0;
        char *next = walk->rest + length;
        while (*next == '/')
            next++;
        memmove(walk->rest, next, strlen(next) + 1);
        if (!step(walk, name)) {
            close(walk->fd);
            free(walk->canonical);
            free(walk->rest);
            return false;
        }
    }
    free(walk->rest);
    return true;
}

int tree_parent(const char *path, bool create, const char **canonical, const char **name)
{
    const char *slash = strrchr(path, '/');
    *name = slash ? slash + 1 : path;
    char *dir = must_strdup(path);
    dir[slash ? slash - path : 0] = 0;
    if (!cached_path || strcmp(cached_path, dir)) {
        struct walk walk = {.create = create};
        walk.fd = open_beneath(tree_root, dir, O_PATH | O_DIRECTORY); /* the usual case: there, and without links */
        if (walk.fd >= 0)
            walk.canonical = must_strdup(dir);
        else if (!walk_to(&walk, dir)) {
            free(dir);
            errno = ENOENT;
            return -1;
        }
        forget_cache();
        cached_path = must_strdup(dir);
        cached_canonical = walk.canonical;
        cached_fd = walk.fd;
    }
    free(dir);
    *canonical = cached_canonical;
    return cached_fd;
}

/* ------------------------------------------------------------------------------------- removing */

static void empty_dir(int dir, const char *name, const char *canonical)
{
    int fd = open_name(dir, name, O_RDONLY | O_DIRECTORY, 0);
    DIR *list = fd < 0 ? NULL : fdopendir(fd);
    if (!list)
        call_error("open", name);
    struct dirent *entry;
    while ((entry = readdir(list))) {
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
            continue;
        tree_remove(dirfd(list), canonical, entry->d_name);
    }
    closedir(list);
}

void tree_remove(int dir, const char *canonical, const char *name)
{
    if (unlinkat(dir, name, 0) == 0)
        return;
    if (errno != EISDIR && errno != EPERM)
        call_error("remove", name);
    char *path = join_path(canonical, name);
    empty_dir(dir, name, path);
    if (unlinkat(dir, name, AT_REMOVEDIR) < 0)
        host_error("remove", path);
    tree_forget(path);
    free(path);
    /* Descriptors of what is gone must not be used again; those of what stays are merely opened anew. */
    free(cached_path);
    cached_path = NULL;
}
