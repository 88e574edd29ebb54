#include "view.h"
#include "tree.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* What one layer has at `path`: ENOENT and non-directories on the way both mean nothing. */
static int open_in(const struct view *view, int layer, const char *path)
{
    int fd = open_beneath(view->roots[layer], path, O_PATH);
    if (fd < 0 && errno != ENOENT && errno != ENOTDIR && errno != ELOOP)
        call_error("open", path);
    return fd;
}

static bool opaque_at(const struct view *view, int layer, const char *path)
{
    int fd = open_beneath(view->roots[layer], path, O_RDONLY | O_DIRECTORY);
    if (fd < 0)
        host_error("open", path);
    bool opaque = is_opaque(fd);
    close(fd);
    return opaque;
}

/* Narrows `last` (the lowest layer still visible) at a directory on the way; false when the path ends here. */
static bool pass(const struct view *view, const char *path, bool *visible)
{
    bool any = false, hidden = false;
    for (int layer = 0; layer < view->count; layer++) {
        if (!visible[layer])
            continue;
        if (hidden) {
            visible[layer] = false;
            continue;
        }
        int fd = open_in(view, layer, path);
        struct stat st;
        if (fd >= 0 && fstat(fd, &st) < 0)
            host_error("look at", path);
        if (fd >= 0)
            close(fd);
        visible[layer] = fd >= 0 && S_ISDIR(st.st_mode);
        if (visible[layer])
            any = true;
        hidden = fd >= 0 && (!visible[layer] || opaque_at(view, layer, path));
    }
    return any;
}

static enum kind look_last(const struct view *view, const char *path, const bool *visible, int *found)
{
    for (int layer = 0; layer < view->count; layer++) {
        if (!visible[layer])
            continue;
        int fd = open_in(view, layer, path);
        if (fd < 0)
            continue;
        struct stat st;
        if (fstat(fd, &st) < 0)
            host_error("look at", path);
        close(fd);
        *found = layer;
        if (is_whiteout(&st))
            return NOTHING;
        return S_ISDIR(st.st_mode) ? DIRECTORY : S_ISLNK(st.st_mode) ? LINK : OTHER;
    }
    return NOTHING;
}

enum kind view_look(const struct view *view, const char *path, int *layer)
{
    bool visible[MAX_LAYERS];
    for (int i = 0; i < view->count; i++)
        visible[i] = true;
    char *part = must_strdup(path);
    for (char *slash = strchr(part, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = 0;
        bool on = pass(view, part, visible);
        *slash = '/';
        if (!on) {
            free(part);
            return NOTHING;
        }
    }
    enum kind kind = look_last(view, part, visible, layer);
    free(part);
    return kind;
}

static char *read_target(const struct view *view, int layer, const char *path)
{
    char target[4097];
    int fd = open_in(view, layer, path);
    ssize_t length = fd < 0 ? -1 : readlinkat(fd, "", target, sizeof target - 1);
    if (length < 0)
        host_error("read link", path);
    close(fd);
    target[length] = 0;
    return must_strdup(target);
}

static void replace(char **old, char *fresh)
{
    free(*old);
    *old = fresh;
}

/* One name further: `done` grows by it, or `rest` by what a link says. */
static bool view_step(const struct view *view, char **done, char **rest, const char *name, bool follow, int *links)
{
    if (!strcmp(name, "..")) {
        char *slash = strrchr(*done, '/');
        (*done)[slash ? slash - *done : 0] = 0;
        return true;
    }
    char *path = join_path(*done, name);
    int layer;
    enum kind kind = view_look(view, path, &layer);
    bool last = !**rest;
    if (kind == LINK && (follow || !last)) {
        if (++*links > MAX_LINKS)
            return free(path), false;
        char *target = read_target(view, layer, path);
        if (*target == '/')
            replace(done, must_strdup(""));
        replace(rest, join_path(target, *rest));
        free(target);
        free(path);
        return true;
    }
    if (kind == NOTHING || (kind != DIRECTORY && !last))
        return free(path), false;
    replace(done, path);
    return true;
}

char *view_resolve(const struct view *view, const char *path, bool follow_last)
{
    char *done = must_strdup(""), *rest = must_strdup(path);
    int links = 0;
    bool on = true;
    while (on && *rest) {
        size_t length = strcspn(rest, "/");
        char *name = must_strdup(rest);
        name[length] = 0;
        const char *next = rest + length;
        while (*next == '/')
            next++;
        replace(&rest, must_strdup(next));
        if (length && strcmp(name, "."))
            on = view_step(view, &done, &rest, name, follow_last, &links);
        free(name);
    }
    free(rest);
    if (on)
        return done;
    free(done);
    return NULL;
}
