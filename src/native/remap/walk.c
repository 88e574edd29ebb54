/*
 * The image's tree as overlayfs would show it, a directory at a time. Each directory is opened and read once in every
 * layer that has a part in it, from the topmost down: a name met before hides it below, a whiteout hides and shows
 * nothing, two directories are one, and nothing below an opaque directory counts.
 */
#include "remap.h"
#include "names.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* A directory that is made, but not yet filled; in a check, one that was met. */
struct pending {
    struct pending *next;
    char *path;
    int *layers; /* that have a part in it, topmost first */
    int count, room;
};

/* As getdents64 gives it. */
struct record {
    uint64_t inode;
    int64_t offset;
    unsigned short length;
    unsigned char type;
    char name[];
};

int destination;
static const int *roots;

/* Directories to fill. The last ones met come first: memory stays small, and the tree's parts together. */
static struct pending *waiting;
static int filling; /* threads that may still add some */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;

static _Thread_local struct pending *children; /* of the directory at hand, which layers below may still add to */

const char *path_of(const struct place *place, const char *name)
{
    if (*name && strcmp(name, "."))
        return join_path(place->path, name);
    return *place->path ? place->path : "/";
}

static void add_layer(struct pending *dir, int layer)
{
    if (dir->count == dir->room) {
        dir->room = dir->room ? dir->room * 2 : 1;
        dir->layers = must_realloc(dir->layers, (size_t)dir->room * sizeof *dir->layers);
    }
    dir->layers[dir->count++] = layer;
}

static struct pending *make_dir(const struct place *place, const char *name)
{
    if (mode != CHECK && mkdirat(place->to, name, 0700) < 0)
        call_error("create directory", path_of(place, name));
    struct pending *dir = must_alloc(sizeof *dir);
    dir->path = join_path(place->path, name);
    dir->next = children;
    children = dir;
    return dir;
}

static unsigned char type_of(const struct place *place, const char *name)
{
    struct stat st;
    if (fstatat(place->from, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        call_error("look at", path_of(place, name));
    return IFTODT(st.st_mode);
}

/* What the image shows at `name` is this layer's. */
static void take_over(const struct place *place, const char *name)
{
    struct stat st;
    if (fstatat(place->from, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        call_error("look at", path_of(place, name));
    if (!is_whiteout(&st))
        make_entry(place, name, &st);
}

/* `alone`: no layer above has read this directory, and none below will. */
static void meet(const struct place *place, const struct record *entry, int layer, bool alone)
{
    const char *name = entry->name;
    unsigned char type = entry->type == DT_UNKNOWN ? type_of(place, name) : entry->type;
    bool is_new = true;
    struct seen lone, *seen = alone ? &lone : names_meet(name, &is_new);
    if (is_new)
        seen->child = type == DT_DIR ? make_dir(place, name) : NULL;
    if (type != DT_DIR)
        seen->child = NULL;
    if (seen->child)
        add_layer(seen->child, layer);
    else if (is_new)
        take_over(place, name);
    count_entry();
}

static void read_layer(const struct place *place, int layer, bool alone)
{
    static _Thread_local _Alignas(struct record) char buffer[1 << 17];
    long got;
    while ((got = syscall(SYS_getdents64, place->from, buffer, sizeof buffer)) > 0) {
        for (char *at = buffer; at < buffer + got; at += ((struct record *)at)->length) {
            const struct record *entry = (struct record *)at;
            if (strcmp(entry->name, ".") && strcmp(entry->name, ".."))
                meet(place, entry, layer, alone);
        }
    }
    if (got < 0)
        host_error("list", place->path);
}

static int open_dir(int root, const char *path)
{
    int fd = open_beneath(root, path, O_RDONLY | O_DIRECTORY);
    if (fd < 0)
        host_error("open", path);
    return fd;
}

static void enter(struct place *place, int from)
{
    place->from = from;
    if (fchdir(from) < 0)
        host_error("enter", place->path);
}

/* Overlayfs merges the roots of its layers whatever they are marked as. */
static bool hides_below(const struct place *place)
{
    return *place->path && is_opaque(place->from);
}

static void fill(const struct pending *dir)
{
    struct place place = {.to = mode == CHECK ? -1 : open_dir(destination, dir->path), .path = dir->path};
    int topmost = -1;
    for (int i = 0; i < dir->count; i++) {
        enter(&place, open_dir(roots[dir->layers[i]], dir->path));
        bool last = i + 1 == dir->count || hides_below(&place);
        read_layer(&place, dir->layers[i], last && i == 0);
        if (i == 0)
            topmost = place.from;
        else
            close(place.from);
        if (last)
            break;
    }
    names_forget();
    enter(&place, topmost);
    struct stat st;
    if (fstat(topmost, &st) < 0)
        host_error("look at", dir->path);
    finish_dir(&place, &st);
    close(topmost);
    if (place.to >= 0)
        close(place.to);
}

/* ------------------------------------------------------------------------------------- threads */

static struct pending *next_dir(void)
{
    pthread_mutex_lock(&lock);
    while (!waiting && filling)
        pthread_cond_wait(&changed, &lock);
    struct pending *dir = waiting;
    if (dir) {
        waiting = dir->next;
        filling++;
    }
    pthread_mutex_unlock(&lock);
    return dir;
}

static void filled(struct pending *dir)
{
    pthread_mutex_lock(&lock);
    while (children) {
        struct pending *child = children;
        children = child->next;
        child->next = waiting;
        waiting = child;
    }
    filling--;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
    free(dir->layers);
    free(dir->path);
    free(dir);
}

void walk(void)
{
    for (struct pending *dir = next_dir(); dir; dir = next_dir()) {
        fill(dir);
        filled(dir);
    }
}

void walk_from(const int *layers, int count)
{
    struct pending *root = must_alloc(sizeof *root);
    root->path = must_strdup("");
    for (int i = 0; i < count; i++)
        add_layer(root, i);
    pthread_mutex_lock(&lock);
    roots = layers;
    waiting = root;
    pthread_mutex_unlock(&lock);
}
