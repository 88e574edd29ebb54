/* Outer steps that fill slots: detached mounts and descriptors made on the host's side, while nothing runs yet. */
#include "execute.h"

#include <signal.h>
#include <string.h>
#include <sys/stat.h>

#define PROC_FD     "/proc/self/fd/"
#define OPTION_NAME 256

static int set_option(int fs, const char *option)
{
    char key[OPTION_NAME];
    const char *equals = strchr(option, '=');
    if (!equals)
        return sys_fsconfig(fs, FSCONFIG_SET_FLAG, option, NULL, 0);
    memcpy(key, option, (size_t)(equals - option));
    key[equals - option] = 0;
    return sys_fsconfig(fs, FSCONFIG_SET_STRING, key, equals + 1, 0);
}

static int set_options(const struct execution *e, int fs, struct plan_ref options)
{
    int result = 0;
    for (const char *o = NULL; result >= 0 && (o = plan_next(e->plan, options, o));)
        result = set_option(fs, o);
    return result;
}

/* A configured file system context, not created yet. s[1] is the source, s[3] the options. */
int new_filesystem(struct execution *e, const struct plan_step *step, const char *type)
{
    const char *source = text(e, step->s[1]);
    int fs = failed(e, DETAIL_SOURCE, sys_fsopen(type));
    if (fs < 0)
        return fs;
    int result = *source ? sys_fsconfig(fs, FSCONFIG_SET_STRING, "source", source, 0) : 0;
    if (result >= 0)
        result = set_options(e, fs, step->s[3]);
    if (result < 0) {
        close(fs);
        return failed(e, DETAIL_OPTION, result);
    }
    return fs;
}

/* Creates the superblock, makes a detached mount of it and closes the context. */
static int finish_filesystem(int fs, uint64_t attributes)
{
    int result = sys_fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0);
    if (result >= 0)
        result = sys_fsmount(fs, (unsigned)attributes);
    close(fs);
    return result;
}

int do_fs_source(struct execution *e, const struct plan_step *step)
{
    int fs = new_filesystem(e, step, text(e, step->s[0]));
    int mount = fs < 0 ? fs : finish_filesystem(fs, step->w[0]);
    if (mount >= 0)
        e->slots[step->slot] = mount;
    return mount;
}

int do_open(struct execution *e, const struct plan_step *step)
{
    int fd = sys_open(AT_FDCWD, text(e, step->s[0]), step->w[0], 0, 0);
    if (fd >= 0)
        e->slots[step->slot] = fd;
    return fd;
}

/* ------------------------------------------------------------------------------------------------- id-mapped mounts */

/* A user namespace with the step's maps, which lives as long as the descriptor; costs one short-lived process. */
static int given_userns(struct execution *e, const struct plan_step *step)
{
    int pidfd = -1;
    struct clone_args args = {.flags = CLONE_NEWUSER | CLONE_PIDFD | CLONE_CLEAR_SIGHAND, .pidfd = (uintptr_t)&pidfd};
    int pid = sys_clone3(&args), fd;
    char path[64] = "";
    if (pid == 0) {
        guard_child();
        for (;;)
            pause();
    }
    if (pid < 0)
        return pid;
    fd = write_id_maps(e, pid, step->s[2], step->s[3]);
    if (fd >= 0) {
        format_number(path, pid);
        append(path, sizeof path, "/ns/user");
        fd = sys(openat(e->held->proc, path, O_RDONLY | O_CLOEXEC));
    }
    sys_pidfd_kill(pidfd, SIGKILL);
    reap(pidfd);
    close(pidfd);
    return fd;
}

/* A descriptor the caller closes. */
int idmap_userns(struct execution *e, const struct plan_step *step, uint64_t kind)
{
    if (kind == IDMAP_GIVEN)
        return given_userns(e, step);
    if (e->held->held[NAMESPACE_USER] < 0)
        return failed(e, DETAIL_NOT_FOUND, -ENOENT);
    return sys(fcntl(e->held->held[NAMESPACE_USER], F_DUPFD_CLOEXEC, 3));
}

static int idmap_mount(struct execution *e, const struct plan_step *step, int mount, uint64_t kind, int deep)
{
    int userns = failed(e, DETAIL_ID_MAP, idmap_userns(e, step, kind));
    if (userns < 0)
        return userns;
    struct mount_attr attr = {.attr_set = MOUNT_ATTR_IDMAP, .userns_fd = (uint64_t)userns};
    int result = sys_mount_setattr(mount, deep ? AT_RECURSIVE : 0, &attr);
    close(userns);
    return failed(e, DETAIL_ID_MAP, result);
}

/* ------------------------------------------------------------------------------------------------------ bind mounts */

/* mkdir -p of a host path; what exists stays as it is. */
static int make_host_dir(const char *path)
{
    char part[4096];
    for (size_t i = 1; i < sizeof part; i++) {
        if (path[i] != '/' && path[i] != 0)
            continue;
        memcpy(part, path, i);
        part[i] = 0;
        if (mkdir(part, 0755) < 0 && errno != EEXIST)
            return -errno;
        if (path[i] == 0)
            return 0;
    }
    return -ENAMETOOLONG;
}

int do_bind_source(struct execution *e, const struct plan_step *step)
{
    const char *path = text(e, step->s[0]);
    unsigned flags = OPEN_TREE_CLONE | (step->flags & STEP_RECURSIVE ? AT_RECURSIVE : 0);
    int mount = sys_open_tree(AT_FDCWD, path, flags), result;
    if (mount == -ENOENT && step->flags & STEP_CREATE) {
        result = make_host_dir(path);
        mount = result < 0 ? result : sys_open_tree(AT_FDCWD, path, flags);
    }
    if (mount < 0)
        return failed(e, DETAIL_SOURCE, mount);
    result = set_attributes(e, mount, step, step->flags & STEP_DEEP_ATTRS);
    if (result >= 0 && step->w[3] != IDMAP_NONE)
        result = idmap_mount(e, step, mount, step->w[3], step->flags & STEP_RECURSIVE);
    if (result < 0) {
        close(mount);
        return result;
    }
    e->slots[step->slot] = mount;
    return 0;
}

/* ------------------------------------------------------------------------------------------------------ held mounts */

/* Leaves `mount` as the only mount of a mount namespace of its own and answers a descriptor of that namespace. */
static int hang_in_namespace(struct execution *e, const struct plan_step *step, void *argument)
{
    (void)e, (void)step;
    int mount = *(int *)argument, dir, result = sys_unshare(CLONE_NEWNS);
    if (result >= 0)
        result = sys_mount(NULL, "/", NULL, MS_PRIVATE | MS_REC, NULL);
    dir = result < 0 ? result : sys_open(AT_FDCWD, "/proc", O_PATH | O_DIRECTORY, 0, 0);
    if (dir < 0)
        return dir;
    result = sys_move_mount(mount, dir);
    close(dir);
    if (result >= 0)
        result = sys(fchdir(mount));
    if (result >= 0)
        result = sys_pivot_root(".", ".");
    if (result >= 0) /* of the old root, which still has our procfs; its mounts go with this process */
        result = sys(openat(e->held->proc, "self/ns/mnt", O_RDONLY | O_CLOEXEC));
    if (result >= 0)
        sys_umount(".", MNT_DETACH);
    return result;
}

static int can_clone_detached(int mount)
{
    int clone =
        launch_without & WITHOUT_DETACHED_CLONE ? -EINVAL : sys_open_tree(mount, "", OPEN_TREE_CLONE | AT_EMPTY_PATH);
    close_quietly(clone);
    return clone >= 0;
}

int do_hold_mount(struct execution *e, const struct plan_step *step)
{
    const char *name = text(e, step->s[0]);
    struct held_mount *free_one = NULL;
    for (int i = 0; i < SHIM_MAX_HELD_MOUNTS; i++) {
        struct held_mount *m = &e->held->mounts[i];
        if (m->mount >= 0 && !strcmp(m->name, name))
            return -EEXIST;
        if (m->mount < 0 && !free_one)
            free_one = m;
    }
    if (!free_one)
        return -ENOSPC;
    int mount = e->slots[step->slot], namespace = -1;
    if (!can_clone_detached(mount)) {
        namespace = run_helper(e, hang_in_namespace, step, &mount);
        if (namespace < 0)
            return failed(e, DETAIL_NAMESPACE, namespace);
    }
    memcpy(free_one->name, name, strlen(name) + 1);
    free_one->mount = mount;
    free_one->namespace = namespace;
    e->slots[step->slot] = -1;
    return 0;
}

static int clone_in_namespace(struct execution *e, const struct plan_step *step, void *argument)
{
    (void)e;
    const struct held_mount *m = argument;
    int result = sys_setns(m->namespace, CLONE_NEWNS);
    unsigned deep = step->flags & STEP_RECURSIVE ? AT_RECURSIVE : 0;
    return result < 0 ? result : sys_open_tree(m->mount, "", OPEN_TREE_CLONE | AT_EMPTY_PATH | deep);
}

int do_held_source(struct execution *e, const struct plan_step *step)
{
    struct held_mount *m = NULL;
    for (int i = 0; i < SHIM_MAX_HELD_MOUNTS && !m; i++)
        if (e->held->mounts[i].mount >= 0 && !strcmp(e->held->mounts[i].name, text(e, step->s[0])))
            m = &e->held->mounts[i];
    if (!m)
        return failed(e, DETAIL_NOT_FOUND, -ENOENT);
    unsigned deep = step->flags & STEP_RECURSIVE ? AT_RECURSIVE : 0;
    int mount = m->namespace >= 0 ? run_helper(e, clone_in_namespace, step, m)
                                  : sys_open_tree(m->mount, "", OPEN_TREE_CLONE | AT_EMPTY_PATH | deep);
    int result = mount < 0 ? mount : set_attributes(e, mount, step, step->flags & STEP_RECURSIVE);
    if (result < 0)
        close_quietly(mount);
    else
        e->slots[step->slot] = mount;
    return result;
}

/* ---------------------------------------------------------------------------------------------------------- overlay */

/* How this kernel takes the layers: by descriptor (6.13), by string (6.5), all in one page (mount(2)). */
enum overlay_way { BY_FD, BY_STRING, BY_PAGE };

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
            return failed(e, e->detail ? e->detail : DETAIL_SOURCE, dir);
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
        int fd = failed(e, DETAIL_SOURCE, open_attached_layer(e, step, at));
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
