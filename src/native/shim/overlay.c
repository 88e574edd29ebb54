/* The overlay of a container's root, in the way this kernel takes its layers. */
#include "execute.h"

#include <string.h>

#define PROC_FD "/proc/self/fd/"

/* How this kernel takes the layers: by descriptor (6.13), by string (6.5), all in one page (mount(2)). */
enum overlay_way { BY_FD, BY_STRING, BY_PAGE };

/* Idmapping may have said more already. */
static int failed_layer(struct execution *e, int result)
{
    return failed(e, e->detail == DETAIL_MAIN ? DETAIL_SOURCE : e->detail, result);
}

static int open_layer(struct execution *e, const struct plan_step *step, const char *path)
{
    if (step->w[0] == IDMAP_NONE)
        return sys_open(AT_FDCWD, path, O_PATH | O_DIRECTORY, 0, 0);
    int mount = sys_open_tree(AT_FDCWD, path, OPEN_TREE_CLONE);
    int result = mount < 0 ? mount : idmap_mount(e, step, mount, step->w[0], 0);
    if (result < 0)
        close_quietly(mount);
    return result < 0 ? result : mount;
}

static int add_layer(int fs, const char *key, int layer, enum overlay_way way)
{
    char name[sizeof PROC_FD + 24] = PROC_FD;
    if (way == BY_FD)
        return sys_fsconfig(fs, FSCONFIG_SET_FD, key, NULL, layer);
    format_number(name + sizeof PROC_FD - 1, layer);
    return sys_fsconfig(fs, FSCONFIG_SET_STRING, key, name, 0);
}

static int add_named(struct execution *e, int fs, const char *key, const char *path, enum overlay_way way)
{
    int dir = failed(e, DETAIL_SOURCE, sys_open(AT_FDCWD, path, O_PATH | O_DIRECTORY, 0, 0));
    int result = dir < 0 ? dir : add_layer(fs, key, dir, way);
    /* By string the overlay looks the name up at once, and keeps a reference. */
    close_quietly(dir);
    return result;
}

#define OVERLAY_MAX_LAYERS 500 /* OVL_MAX_STACK */

/* A detached layer can be cloned only while its descriptor is open, and the overlay clones it when it is created. */
struct open_layers {
    int fd[OVERLAY_MAX_LAYERS];
    int count;
};

static int add_layers(struct execution *e, const struct plan_step *step, int fs, enum overlay_way way,
                      struct open_layers *layers)
{
    int result = 0;
    for (const char *path = NULL; result >= 0 && (path = plan_next(e->plan, step->s[0], path));) {
        int dir = layers->count < OVERLAY_MAX_LAYERS ? open_layer(e, step, path) : -E2BIG;
        if (dir < 0)
            return failed_layer(e, dir);
        layers->fd[layers->count++] = dir;
        result = add_layer(fs, "lowerdir+", dir, way);
    }
    return result;
}

static int overlay_by_parts(struct execution *e, const struct plan_step *step, enum overlay_way way)
{
    struct open_layers layers = {.count = 0};
    int fs = sys_fsopen("overlay");
    int result = fs < 0 ? fs : add_layers(e, step, fs, way, &layers);
    if (result >= 0 && step->s[1].length)
        result = add_named(e, fs, "upperdir", text(e, step->s[1]), way);
    if (result >= 0 && step->s[2].length)
        result = add_named(e, fs, "workdir", text(e, step->s[2]), way);
    if (result >= 0)
        result = failed(e, DETAIL_OPTION, set_options(e, fs, step->s[3]));
    if (result >= 0)
        result = finish_filesystem(fs, 0);
    else
        close_quietly(fs);
    while (layers.count)
        close(layers.fd[--layers.count]);
    return result;
}

/* In the private namespace the idmapped clone hangs over the layer itself, where the overlay finds it by name. */
static int open_attached_layer(struct execution *e, const struct plan_step *step, const char *path)
{
    int dir = sys_open(AT_FDCWD, path, O_PATH | O_DIRECTORY, 0, 0);
    if (dir < 0 || step->w[0] == IDMAP_NONE)
        return dir;
    int mount = open_layer(e, step, path), result = mount < 0 ? mount : sys_move_mount(mount, dir);
    close(dir);
    if (result < 0)
        close_quietly(mount);
    return result < 0 ? result : mount;
}

static int append_fd(char *data, size_t size, const char *before, int fd)
{
    char number[24];
    format_number(number, fd);
    return append(data, size, before) < 0 ? -E2BIG : append(data, size, number) < 0 ? -E2BIG : 0;
}

/* Names are descriptors, relative to /proc/self/fd, so that 500 layers fit into the one page mount(2) takes. */
static int page_of_options(struct execution *e, const struct plan_step *step, char *data, size_t size)
{
    const char *separator = "lowerdir=", *at = NULL;
    int result = 0;
    data[0] = 0;
    while (result >= 0 && (at = plan_next(e->plan, step->s[0], at))) {
        int fd = failed_layer(e, open_attached_layer(e, step, at));
        result = fd < 0 ? fd : append_fd(data, size, separator, fd);
        separator = ":";
    }
    for (int i = 1; result >= 0 && i <= 2 && step->s[i].length; i++) {
        int fd = failed(e, DETAIL_SOURCE, sys_open(AT_FDCWD, text(e, step->s[i]), O_PATH | O_DIRECTORY, 0, 0));
        result = fd < 0 ? fd : append_fd(data, size, i == 1 ? ",upperdir=" : ",workdir=", fd);
    }
    for (at = NULL; result >= 0 && (at = plan_next(e->plan, step->s[3], at));)
        result = append(data, size, ",") < 0 || append(data, size, at) < 0 ? -E2BIG : 0;
    return result;
}

static int overlay_in_namespace(struct execution *e, const struct plan_step *step, void *argument)
{
    const char *on = plan_next(e->plan, step->s[0], NULL);
    char *data = argument;
    int result = sys_unshare(CLONE_NEWNS);
    if (result >= 0)
        result = sys_mount(NULL, "/", NULL, MS_PRIVATE | MS_REC, NULL);
    if (result >= 0)
        result = page_of_options(e, step, data, 4096);
    if (result >= 0)
        result = sys(chdir("/proc/self/fd"));
    if (result >= 0)
        result = sys_mount("overlay", on, "overlay", 0, data);
    return result < 0 ? result : sys_open_tree(AT_FDCWD, on, OPEN_TREE_CLONE);
}

int do_overlay(struct execution *e, const struct plan_step *step)
{
    static enum overlay_way best; /* what the kernel took last time; it will not change */
    char data[4096];
    int mount = -EINVAL;
    if (launch_without & WITHOUT_OVERLAY_FD && best == BY_FD)
        best = BY_STRING;
    if (launch_without & WITHOUT_OVERLAY_STRING)
        best = BY_PAGE;
    /* Before 6.5 the overlay refuses descriptors with EOPNOTSUPP, as every file system of the old mount interface. */
    for (enum overlay_way way = best; (mount == -EINVAL || mount == -EOPNOTSUPP) && way <= BY_PAGE; way++) {
        e->detail = DETAIL_MAIN;
        mount = way == BY_PAGE ? run_helper(e, overlay_in_namespace, step, data) : overlay_by_parts(e, step, way);
        if (mount >= 0)
            best = way;
    }
    if (mount >= 0)
        e->slots[step->slot] = mount;
    return mount;
}
