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

int set_options(const struct execution *e, int fs, struct plan_ref options)
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
int finish_filesystem(int fs, uint64_t attributes)
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

/* ------------------------------------------------------------------------------------ id-mapped mounts */

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

int idmap_mount(struct execution *e, const struct plan_step *step, int mount, uint64_t kind, int deep)
{
    int userns = failed(e, DETAIL_ID_MAP, idmap_userns(e, step, kind));
    if (userns < 0)
        return userns;
    struct mount_attr attr = {.attr_set = MOUNT_ATTR_IDMAP, .userns_fd = (uint64_t)userns};
    int result = sys_mount_setattr(mount, deep ? AT_RECURSIVE : 0, &attr);
    close(userns);
    return failed(e, DETAIL_ID_MAP, result);
}

/* ----------------------------------------------------------------------------------------- bind mounts */

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
        result = idmap_mount(e, step, mount, step->w[3], step->flags & STEP_DEEP_IDMAP);
    if (result < 0) {
        close(mount);
        return result;
    }
    e->slots[step->slot] = mount;
    return 0;
}

/* ----------------------------------------------------------------------------------------- held mounts */

/* A directory or a file that every host has, as the mount's own root is one. */
static const char *lonely_place(int mount)
{
    struct stat st;
    return fstat(mount, &st) == 0 && !S_ISDIR(st.st_mode) ? "/proc/version" : "/proc";
}

int attach_alone(int mount)
{
    int result = sys_unshare(CLONE_NEWNS);
    if (result >= 0)
        result = sys_mount(NULL, "/", NULL, MS_PRIVATE | MS_REC, NULL);
    int place = result < 0 ? result : sys_open(AT_FDCWD, lonely_place(mount), O_PATH, 0, 0);
    if (place < 0)
        return place;
    result = sys_move_mount(mount, place);
    close(place);
    return result;
}

/* ------------------------------------------------------------------------------------------- locked mounts */

/*
 * Mounts that come into a mount namespace of another user namespace are locked there: its root can neither clear their
 * flags (read-only, nosuid, nodev, noexec) nor take off what lies below their top. A clone keeps that.
 */
static int clone_locked(struct execution *e, const struct plan_step *step, void *argument)
{
    (void)step;
    int mount = *(int *)argument;
    const char *place = lonely_place(mount);
    int result = attach_alone(mount);
    if (result >= 0)
        result = sys_setns(e->held->held[NAMESPACE_USER], 0);
    if (result >= 0)
        result = sys_unshare(CLONE_NEWNS);
    return result < 0 ? result : sys_open_tree(AT_FDCWD, place, OPEN_TREE_CLONE | AT_RECURSIVE);
}

int do_lock_source(struct execution *e, const struct plan_step *step)
{
    if (e->held->held[NAMESPACE_USER] < 0)
        return failed(e, DETAIL_NOT_FOUND, -ENOENT);
    int mount = e->slots[step->slot];
    int result = set_attributes(e, mount, step, 0);
    if (result >= 0)
        result = failed(e, DETAIL_NAMESPACE, run_helper(e, clone_locked, step, &mount));
    if (result < 0)
        return result;
    close(mount);
    e->slots[step->slot] = result;
    return 0;
}

/* -------------------------------------------------------------------------------------------- lonely mounts */

/* Leaves `mount` as the only mount of a mount namespace of its own and answers a descriptor of that namespace. */
static int hang_in_namespace(struct execution *e, const struct plan_step *step, void *argument)
{
    (void)step;
    int mount = *(int *)argument, result = attach_alone(mount);
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
