/* Inner steps that build the container's tree: by descriptor, beneath the future root. */
#include "execute.h"

#include <linux/magic.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

/* w[0] set, w[1] clear, w[2] propagation, as bind-source, held-source, bind-inside and set-attributes have them. */
int set_attributes(struct execution *e, int mount, const struct plan_step *step, int deep)
{
    struct mount_attr attr = {.attr_set = step->w[0], .attr_clr = step->w[1], .propagation = step->w[2]};
    if (!attr.attr_set && !attr.attr_clr && !attr.propagation)
        return 0;
    return failed(e, DETAIL_ATTRIBUTES, sys_mount_setattr(mount, deep ? AT_RECURSIVE : 0, &attr));
}

static int set_flags(int mount, uint64_t attributes, uint64_t propagation, unsigned flags)
{
    struct mount_attr attr = {.attr_set = attributes, .propagation = propagation};
    return sys_mount_setattr(mount, flags, &attr);
}

int do_propagation(struct execution *e, const struct plan_step *step)
{
    (void)e;
    return sys_mount(NULL, "/", NULL, step->w[0], NULL);
}

/* A root whose mounts others should see is made shared after the pivot only, which refuses a shared one. */
int do_attach_root(struct execution *e, const struct plan_step *step)
{
    int mount = e->slots[step->slot];
    int on = failed(e, DETAIL_TARGET, sys_open(AT_FDCWD, text(e, step->s[0]), O_PATH | O_DIRECTORY, 0, 0));
    if (on < 0)
        return on;
    int result = failed(e, DETAIL_ATTACH, sys_move_mount(mount, on));
    close(on);
    uint64_t propagation = step->w[0] & ~(uint64_t)MS_REC;
    if (result >= 0 && propagation && propagation != MS_SHARED)
        result = failed(e, DETAIL_ATTRIBUTES, set_flags(mount, 0, propagation, step->w[0] & MS_REC ? AT_RECURSIVE : 0));
    e->root = mount;
    return result;
}

/* Attaches a detached mount on `target`, and closes neither. */
static int attach_on(struct execution *e, int mount, int target)
{
    if (target < 0)
        return failed(e, DETAIL_TARGET, target);
    return failed(e, DETAIL_ATTACH, sys_move_mount(mount, target));
}

int do_attach(struct execution *e, const struct plan_step *step)
{
    int mount = e->slots[step->slot];
    struct stat st;
    int file = step->w[0] == TARGET_FILE;
    if (step->w[0] == TARGET_AUTO) {
        if (fstat(mount, &st) < 0)
            return failed(e, DETAIL_SOURCE, -errno);
        file = !S_ISDIR(st.st_mode);
    }
    int target = path_make(e->root, text(e, step->s[0]), file, file ? 0644 : 0755), result = 0;
    if (target >= 0 && step->flags & STEP_COPY_UP)
        result = failed(e, DETAIL_SOURCE, copy_up_whole(target, mount));
    if (result >= 0)
        result = attach_on(e, mount, target);
    close_quietly(target);
    return result;
}

/* The image must not choose where /proc and /sys really are: later steps and programs trust them. */
static int open_mount_target(struct execution *e, const char *type, const char *path)
{
    int strict = !strcmp(type, "proc") || !strcmp(type, "sysfs");
    int target = strict ? path_open_real_dir(e->root, path) : path_make(e->root, path, 0, 0755);
    if (strict && target == -ENOENT) {
        close_quietly(path_make(e->root, path, 0, 0755));
        target = path_open_real_dir(e->root, path);
    }
    return failed(e, DETAIL_TARGET, target);
}

int do_mount(struct execution *e, const struct plan_step *step)
{
    const char *type = text(e, step->s[0]);
    int fs = new_filesystem(e, step, type), target = -1, mount = -1;
    if (fs < 0)
        return fs;
    int result = sys_fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0);
    if (result >= 0)
        result = mount = sys_fsmount(fs, (unsigned)step->w[0]);
    close(fs);
    if (result >= 0)
        result = target = open_mount_target(e, type, text(e, step->s[2]));
    if (result >= 0 && step->flags & STEP_COPY_UP)
        result = failed(e, DETAIL_SOURCE, copy_up(target, mount));
    if (result >= 0)
        result = attach_on(e, mount, target);
    if (result >= 0 && step->w[1])
        result = failed(e, DETAIL_ATTRIBUTES,
                        set_flags(mount, 0, step->w[1] & ~(uint64_t)MS_REC, step->w[1] & MS_REC ? AT_RECURSIVE : 0));
    close_quietly(mount);
    close_quietly(target);
    return result;
}

/* A recursive clone of what `from` refers to, attached on `target` with the step's attributes. */
static int bind_on(struct execution *e, const struct plan_step *step, int from, int target, int deep)
{
    int mount = failed(e, DETAIL_SOURCE, sys_open_tree(from, "", OPEN_TREE_CLONE | AT_RECURSIVE | AT_EMPTY_PATH));
    if (mount < 0)
        return mount;
    int result = set_attributes(e, mount, step, deep);
    if (result >= 0)
        result = attach_on(e, mount, target);
    close(mount);
    return result;
}

int do_bind_inside(struct execution *e, const struct plan_step *step)
{
    struct stat st;
    int from = failed(e, DETAIL_SOURCE, path_open(e->root, text(e, step->s[0]), O_PATH));
    if (from < 0)
        return from;
    int file = fstat(from, &st) == 0 && !S_ISDIR(st.st_mode);
    int target = path_make(e->root, text(e, step->s[1]), file, file ? 0644 : 0755);
    int result =
        target < 0 ? failed(e, DETAIL_TARGET, target) : bind_on(e, step, from, target, step->flags & STEP_DEEP_ATTRS);
    close(from);
    close_quietly(target);
    return result;
}

int do_set_attributes(struct execution *e, const struct plan_step *step)
{
    int target = failed(e, DETAIL_TARGET, path_open(e->root, text(e, step->s[0]), O_PATH));
    int result = target < 0 ? target : set_attributes(e, target, step, step->flags & STEP_RECURSIVE);
    close_quietly(target);
    return result;
}

int do_mkdir(struct execution *e, const struct plan_step *step)
{
    int fd = path_make(e->root, text(e, step->s[0]), 0, (unsigned)step->w[0]);
    close_quietly(fd);
    return fd;
}

/* A link that is there already stays, whatever it says: it is the image's, or a mount's. */
int do_symlink(struct execution *e, const struct plan_step *step)
{
    const char *name;
    int dir = failed(e, DETAIL_TARGET, path_parent(e->root, text(e, step->s[0]), &name));
    int result = dir < 0 ? dir : sys(symlinkat(text(e, step->s[1]), dir, name));
    close_quietly(dir);
    return result == -EEXIST ? 0 : result;
}

/* --------------------------------------------------------------------------------------------- devices */

static mode_t device_type(const struct plan_step *step)
{
    uint64_t type = step->w[0] >> 12 & 3; /* 0 pipe, 1 character, 2 block: see PLAN.md */
    return type == 1 ? S_IFCHR : type == 2 ? S_IFBLK : S_IFIFO;
}

static int is_device(const struct stat *st, const struct plan_step *step)
{
    mode_t type = device_type(step);
    return (st->st_mode & S_IFMT) == type &&
           (type == S_IFIFO || st->st_rdev == makedev((unsigned)step->w[1], (unsigned)step->w[2]));
}

/* A node of another kind in its place is refused; the right one is taken over. */
static int make_node(struct execution *e, const struct plan_step *step, int dir, const char *name)
{
    struct stat st;
    mode_t mode = step->w[0] & 07777;
    int result = sys(mknodat(dir, name, device_type(step) | mode, makedev((unsigned)step->w[1], (unsigned)step->w[2])));
    if (result == -EEXIST) {
        result = sys(fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW));
        if (result >= 0 && !is_device(&st, step))
            return failed(e, DETAIL_VERIFY, -EEXIST);
    }
    if (result >= 0)
        result = sys(fchownat(dir, name, (uid_t)step->w[3], (gid_t)step->w[4], AT_SYMLINK_NOFOLLOW));
    return result;
}

static int bind_node(struct execution *e, const struct plan_step *step, int dir, const char *name)
{
    struct stat st;
    int mount = e->slots[step->slot], made, target;
    if (fstat(mount, &st) < 0 || !is_device(&st, step))
        return failed(e, DETAIL_VERIFY, -ENODEV);
    made = sys_open(dir, name, O_CREAT | O_EXCL | O_NOFOLLOW | O_WRONLY, 0644, 0);
    close_quietly(made);
    if (made < 0 && made != -EEXIST)
        return failed(e, DETAIL_TARGET, made);
    target = sys_open(dir, name, O_PATH | O_NOFOLLOW, 0, 0);
    int result = attach_on(e, mount, target);
    close_quietly(target);
    return result;
}

int do_device(struct execution *e, const struct plan_step *step)
{
    const char *name;
    int dir = failed(e, DETAIL_TARGET, path_parent(e->root, text(e, step->s[0]), &name));
    if (dir < 0)
        return dir;
    int result = step->slot == PLAN_NO_SLOT ? make_node(e, step, dir, name) : bind_node(e, step, dir, name);
    close(dir);
    return result;
}

/* -------------------------------------------------------------------------- masked and read-only paths */

static int clone_null(struct execution *e)
{
    if (e->null < 0)
        return -ENODEV;
    return sys_open_tree(e->null, "", OPEN_TREE_CLONE | AT_EMPTY_PATH);
}

/* One empty file system hides all directories: the first is made, the others are binds of it. */
static int empty_mount(struct execution *e)
{
    if (e->empty >= 0)
        return sys_open_tree(e->empty, "", OPEN_TREE_CLONE | AT_EMPTY_PATH);
    int fs = sys_fsopen("tmpfs"), result = fs;
    if (result >= 0)
        result = sys_fsconfig(fs, FSCONFIG_SET_STRING, "size", "4k", 0);
    if (result >= 0)
        result = sys_fsconfig(fs, FSCONFIG_SET_STRING, "nr_inodes", "2", 0);
    if (result >= 0)
        result = sys_fsconfig(fs, FSCONFIG_SET_STRING, "mode", "555", 0);
    if (result >= 0)
        result = sys_fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0);
    if (result >= 0)
        result = sys_fsmount(fs, MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC);
    close_quietly(fs);
    return result;
}

static int gone(int result)
{
    return result == -ENOENT || result == -ENOTDIR;
}

int do_mask(struct execution *e, const struct plan_step *step)
{
    struct stat st;
    int target = path_open(e->root, text(e, step->s[0]), O_PATH);
    if (target < 0)
        return gone(target) ? 0 : failed(e, DETAIL_TARGET, target);
    int result = sys(fstat(target, &st)), mount = -1;
    if (result >= 0)
        result = mount = failed(e, DETAIL_SOURCE, S_ISDIR(st.st_mode) ? empty_mount(e) : clone_null(e));
    if (result >= 0)
        result = attach_on(e, mount, target);
    if (result >= 0 && S_ISDIR(st.st_mode) && e->empty < 0)
        e->empty = mount;
    else
        close_quietly(mount);
    close(target);
    return result;
}

int do_readonly_path(struct execution *e, const struct plan_step *step)
{
    const struct plan_step attributes = {.w = {MOUNT_ATTR_RDONLY}};
    int target = path_open(e->root, text(e, step->s[0]), O_PATH);
    if (target < 0)
        return gone(target) ? 0 : failed(e, DETAIL_TARGET, target);
    int result = bind_on(e, &attributes, target, target, 1);
    close(target);
    return result;
}

/* ------------------------------------------------------------------------------------------------ root */

/* The old root lies beneath the new one for a moment; made a slave first, so that nothing unmounts on the host. */
int do_pivot(struct execution *e, const struct plan_step *step)
{
    (void)step;
    int result = sys(fchdir(e->root));
    if (result >= 0)
        result = sys_pivot_root(".", ".");
    /* The old root is a slave since the first inner step: letting go of it is no news to the host. */
    if (result >= 0)
        result = sys_umount(".", MNT_DETACH);
    return result < 0 ? result : sys(chdir("/"));
}

int do_root_readonly(struct execution *e, const struct plan_step *step)
{
    (void)step;
    return set_flags(e->root, MOUNT_ATTR_RDONLY, 0, 0);
}
