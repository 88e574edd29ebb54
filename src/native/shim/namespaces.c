/* Namespaces: finding those to join, cloning into new ones, id maps, keeping them. */
#include "execute.h"

#include <grp.h>
#include <linux/magic.h>
#include <linux/nsfs.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#ifndef CLONE_NEWTIME
#define CLONE_NEWTIME 0x80
#endif
#define MAP_TEXT 16384
/* The file system of message queues belongs to who makes the namespace: that is to be the mapped root. */
#define AS_MAPPED_ROOT (1 << NAMESPACE_IPC)

const uint32_t namespace_flags[NAMESPACE_KINDS] = {
    [NAMESPACE_PID] = CLONE_NEWPID,   [NAMESPACE_NET] = CLONE_NEWNET,       [NAMESPACE_IPC] = CLONE_NEWIPC,
    [NAMESPACE_UTS] = CLONE_NEWUTS,   [NAMESPACE_MNT] = CLONE_NEWNS,        [NAMESPACE_USER] = CLONE_NEWUSER,
    [NAMESPACE_TIME] = CLONE_NEWTIME, [NAMESPACE_CGROUP] = CLONE_NEWCGROUP,
};

static const char *const proc_names[NAMESPACE_KINDS] = {
    [NAMESPACE_PID] = "pid", [NAMESPACE_NET] = "net",   [NAMESPACE_IPC] = "ipc",       [NAMESPACE_UTS] = "uts",
    [NAMESPACE_MNT] = "mnt", [NAMESPACE_USER] = "user", [NAMESPACE_CGROUP] = "cgroup", [NAMESPACE_TIME] = "time",
};

static int has(uint64_t kinds, enum namespace_kind kind)
{
    return kinds >> kind & 1;
}

static uint64_t clone_flags(uint64_t kinds)
{
    uint64_t flags = 0;
    for (int kind = 0; kind < NAMESPACE_KINDS; kind++)
        if (has(kinds, kind))
            flags |= namespace_flags[kind];
    return flags;
}

/* -------------------------------------------------------------------------------------------- entering */

static int open_namespace_path(const char *path, int flag)
{
    struct statfs fs;
    int fd = sys(open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY)), result;
    if (fd < 0)
        return fd;
    result = sys(fstatfs(fd, &fs));
    if (result >= 0 && (fs.f_type != NSFS_MAGIC || ioctl(fd, NS_GET_NSTYPE) != flag))
        result = -EINVAL;
    if (result < 0)
        close(fd);
    return result < 0 ? result : fd;
}

static int open_namespace_source(struct execution *e, const struct plan_step *step, int *borrowed)
{
    const char *name = text(e, step->s[0]);
    *borrowed = step->w[1] != SOURCE_PATH;
    if (step->w[1] == SOURCE_PATH)
        return failed(e, DETAIL_SOURCE, open_namespace_path(name, (int)namespace_flags[step->w[0]]));
    int fd = step->w[1] == SOURCE_POD   ? e->held->held[step->w[0]]
             : e->held->container_pidfd ? e->held->container_pidfd(e->held->context, name)
                                        : -1;
    return fd >= 0 ? fd : failed(e, DETAIL_NOT_FOUND, -ENOENT);
}

int do_enter(struct execution *e, const struct plan_step *step)
{
    int borrowed, fd = open_namespace_source(e, step, &borrowed);
    if (fd < 0)
        return fd;
    if (e->enter[step->w[0]] >= 0) {
        if (!borrowed)
            close(fd);
        return -EEXIST;
    }
    e->enter[step->w[0]] = fd;
    e->borrowed[step->w[0]] = (uint8_t)borrowed;
    return 0;
}

/* The mapped root has every capability of its namespace; an unmapped uid could not even open its own files. */
static int become_mapped_root(struct execution *e)
{
    int result = sys(syscall(SYS_setgroups, 0, NULL));
    if (result == -EPERM) /* setgroups is denied in this namespace */
        result = 0;
    if (result >= 0)
        result = sys(syscall(SYS_setresgid, 0, 0, 0));
    if (result >= 0)
        result = sys(syscall(SYS_setresuid, 0, 0, 0));
    if (result >= 0)
        result = guard_child();
    return failed(e, DETAIL_ID_MAP, result);
}

/* Namespaces that must belong to the user namespace just joined; a PID namespace needs a second child. */
static int create_inside(struct execution *e, uint64_t kinds)
{
    uint64_t flags = clone_flags(kinds);
    struct clone_args args = {.flags = flags | CLONE_PARENT | CLONE_CLEAR_SIGHAND};
    if (!has(kinds, NAMESPACE_PID))
        return flags ? sys_unshare((int)flags) : 0;
    int pid = sys_clone3(&args);
    if (pid > 0) {
        e->report->second_pid = pid;
        _exit(0);
    }
    return pid < 0 ? pid : guard_child();
}

int enter_namespaces(struct execution *e, const struct plan_step *clone)
{
    int result = 0, user = e->enter[NAMESPACE_USER];
    for (int kind = 0; result >= 0 && kind < NAMESPACE_KINDS; kind++)
        if (kind != NAMESPACE_PID && kind != NAMESPACE_USER && e->enter[kind] >= 0)
            result = sys_setns(e->enter[kind], (int)namespace_flags[kind]);
    if (result >= 0 && user >= 0)
        result = give_stdio_away(e);
    if (result >= 0 && user >= 0)
        result = sys_setns(user, CLONE_NEWUSER);
    if (result < 0)
        return failed(e, DETAIL_NAMESPACE, result);
    if (has(clone->w[0], NAMESPACE_USER)) {
        result = wait_gate(e, 'm');
        if (result >= 0)
            result = become_mapped_root(e);
        return result < 0 ? result : sys_unshare((int)clone_flags(clone->w[0] & AS_MAPPED_ROOT));
    }
    if (user < 0)
        return 0;
    result = become_mapped_root(e);
    return result < 0 ? result : create_inside(e, clone->w[0]);
}

int do_enter_mount(struct execution *e, const struct plan_step *step)
{
    (void)step;
    int result = failed(e, DETAIL_NAMESPACE, sys_setns(e->enter_mount, CLONE_NEWNS));
    if (result >= 0)
        result = e->root = sys_open(AT_FDCWD, "/", O_PATH | O_DIRECTORY, 0, 0);
    return result;
}

int do_unshare_cgroup(struct execution *e, const struct plan_step *step)
{
    (void)step;
    int result = pass_gate(e);
    return result < 0 ? result : sys_unshare(CLONE_NEWCGROUP);
}

/* --------------------------------------------------------------------------------------------- id maps */

static int write_map(struct execution *e, pid_t pid, const char *file, struct plan_ref lines)
{
    const struct plan_id_map *map = (const void *)(e->plan->data + lines.offset);
    char path[48] = "", value[MAP_TEXT];
    size_t used = 0;
    format_number(path, pid);
    append(path, sizeof path, file);
    for (size_t i = 0; i < lines.length / sizeof *map; i++) {
        used += format_number(value + used, map[i].inside);
        value[used++] = ' ';
        used += format_number(value + used, map[i].outside);
        value[used++] = ' ';
        used += format_number(value + used, map[i].count);
        value[used++] = '\n';
    }
    return failed(e, DETAIL_ID_MAP, write_proc(e, path, value, used));
}

int write_id_maps(struct execution *e, pid_t pid, struct plan_ref uids, struct plan_ref gids)
{
    int result = write_map(e, pid, "/uid_map", uids);
    return result < 0 ? result : write_map(e, pid, "/gid_map", gids);
}

/* --------------------------------------------------------------------------------------------- cloning */

static int join_cgroups(struct execution *e, const struct plan_step *step, pid_t pid)
{
    char value[24];
    size_t length = format_number(value, pid);
    const char *path = NULL;
    while ((path = plan_next(e->plan, step->s[3], path))) {
        int fd = sys(open(path, O_WRONLY | O_CLOEXEC)), result = fd;
        if (fd >= 0)
            result = sys(write(fd, value, length));
        close_quietly(fd);
        if (result < 0)
            return failed(e, DETAIL_CGROUP, result);
    }
    return 0;
}

/* The first child made a second one inside the user namespace and ends; that one is the launch's. */
static int adopt_second(struct execution *e, struct launch *launch)
{
    reap(launch->pidfd);
    pid_t second = e->report->second_pid;
    close(launch->pidfd);
    launch->pidfd = -1;
    launch->pid = -1;
    if (second <= 0)
        return e->report->state == REPORT_FAILED ? -e->report->failure.error : -ECHILD;
    launch->pidfd = sys_pidfd_open(second);
    if (launch->pidfd < 0)
        return launch->pidfd;
    launch->pid = second;
    return 0;
}

/* With the child made: everything that must be done to it from outside before it may go on. */
static int prepare_child(struct execution *e, const struct plan_step *step, struct launch *launch)
{
    int result = 0, second = e->enter[NAMESPACE_USER] >= 0 && has(step->w[0], NAMESPACE_PID);
    if (second)
        result = adopt_second(e, launch);
    if (result >= 0 && (has(step->w[0], NAMESPACE_USER) || e->enter[NAMESPACE_USER] >= 0))
        result = raise_hard_limits(e, launch->pid);
    if (result >= 0 && has(step->w[0], NAMESPACE_USER)) {
        result = write_id_maps(e, launch->pid, step->s[0], step->s[1]);
        if (result >= 0)
            result = open_gate(e, 'm');
    }
    return result < 0 ? result : join_cgroups(e, step, launch->pid);
}

/* In the shim, which knows the containers; the step itself is the child's. */
static int find_enter_mount(struct execution *e)
{
    for (uint32_t i = 0; i < e->plan->inner_count; i++) {
        const struct plan_step *step = plan_inner(e->plan) + i;
        int borrowed;
        if (step->op != OP_ENTER_MOUNT)
            continue;
        e->enter_mount = open_namespace_source(e, step, &borrowed);
        e->enter_mount_borrowed = (uint8_t)borrowed;
        if (e->enter_mount < 0)
            e->step = e->plan->outer_count + i;
        return e->enter_mount;
    }
    return 0;
}

/* A child enters the PID namespace and clones in the shim's place; what it makes is the shim's child too. */
static int clone_by_scout(struct execution *e, struct clone_args *args, int into, int *pidfd)
{
    int scout = -1;
    struct clone_args ahead = {
        .flags = CLONE_VFORK | CLONE_PIDFD | CLONE_CLEAR_SIGHAND, .pidfd = (uintptr_t)&scout, .exit_signal = SIGCHLD};
    e->report->helper_result = -ECHILD;
    int result = sys_clone3(&ahead);
    if (result == 0) {
        result = sys_setns(into, CLONE_NEWPID);
        args->flags = (args->flags & ~(uint64_t)CLONE_PIDFD) | CLONE_PARENT;
        args->pidfd = args->exit_signal = 0; /* the scout's own */
        if (result >= 0)
            result = sys_clone3(args);
        if (result == 0)
            child_main(e);
        e->report->helper_result = result;
        _exit(0);
    }
    if (result < 0)
        return result;
    reap(scout);
    close(scout);
    result = e->report->helper_result;
    if (result > 0)
        *pidfd = sys_pidfd_open(result);
    return result;
}

int do_clone(struct execution *e, const struct plan_step *step, struct launch *launch)
{
    int cgroup = -1, into = e->enter[NAMESPACE_PID], pidfd = -1, result = find_enter_mount(e);
    if (result < 0)
        return result;
    uint64_t kinds = e->enter[NAMESPACE_USER] >= 0     ? 0
                     : has(step->w[0], NAMESPACE_USER) ? step->w[0] & ~(uint64_t)AS_MAPPED_ROOT
                                                       : step->w[0];
    struct clone_args args = {.flags = CLONE_PIDFD | CLONE_CLEAR_SIGHAND | clone_flags(kinds),
                              .pidfd = (uintptr_t)&pidfd,
                              .exit_signal = SIGCHLD};
    if (step->s[2].length) {
        cgroup = failed(e, DETAIL_CGROUP, sys(open(text(e, step->s[2]), O_PATH | O_DIRECTORY | O_CLOEXEC)));
        if (cgroup < 0)
            return cgroup;
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = (uint64_t)cgroup;
    }
    e->create = step->w[0];
    int scouted = into >= 0 && e->held->one_way;
    if (into >= 0 && !scouted)
        result = failed(e, DETAIL_NAMESPACE, sys_setns(into, CLONE_NEWPID));
    int pid = result < 0 ? result : scouted ? clone_by_scout(e, &args, into, &pidfd) : sys_clone3(&args);
    if (pid == 0)
        child_main(e);
    if (into >= 0 && !scouted)
        sys_setns(e->held->own_pid, CLONE_NEWPID);
    close_quietly(cgroup);
    if (pid < 0)
        return pid;
    launch->pid = pid;
    launch->pidfd = pidfd;
    return prepare_child(e, step, launch);
}

/* --------------------------------------------------------------------------------------------- keeping */

int do_hold_namespaces(struct execution *e, const struct plan_step *step, pid_t pid)
{
    for (int kind = 0; kind < NAMESPACE_KINDS; kind++) {
        char path[48] = "";
        if (!has(step->w[0], kind))
            continue;
        format_number(path, pid);
        append(path, sizeof path, "/ns/");
        /* The PID namespace of a process and the one its children get differ only after unshare. */
        append(path, sizeof path, proc_names[kind]);
        int fd = sys(openat(e->held->proc, path, O_RDONLY | O_CLOEXEC));
        if (fd < 0)
            return failed(e, DETAIL_NAMESPACE, fd);
        close_quietly(e->held->held[kind]);
        e->held->held[kind] = fd;
    }
    return 0;
}

static int make_pin(const char *path)
{
    int fd = sys_open(AT_FDCWD, path, O_CREAT | O_EXCL | O_NOFOLLOW | O_RDONLY, 0444, 0);
    if (fd == -EEXIST)
        fd = sys_open(AT_FDCWD, path, O_PATH | O_NOFOLLOW, 0, 0);
    else if (fd >= 0) {
        close(fd);
        fd = sys_open(AT_FDCWD, path, O_PATH | O_NOFOLLOW, 0, 0);
    }
    return fd;
}

/* A mount of the namespace's own file: the only way a namespace gets a name. */
int do_pin_namespace(struct execution *e, const struct plan_step *step)
{
    int held = e->held->held[step->w[0]];
    char from[48] = "/proc/self/fd/";
    if (held < 0)
        return failed(e, DETAIL_NOT_FOUND, -ENOENT);
    int target = failed(e, DETAIL_TARGET, make_pin(text(e, step->s[0])));
    if (target < 0)
        return target;
    int tree = sys_open_tree(held, "", OPEN_TREE_CLONE | AT_EMPTY_PATH), result;
    if (tree >= 0) {
        result = failed(e, DETAIL_ATTACH, sys_move_mount(tree, target));
    } else { /* before Linux 6.18 a namespace's file hangs in no mount namespace */
        format_number(from + strlen(from), held);
        result = failed(e, DETAIL_ATTACH, sys_mount(from, text(e, step->s[0]), NULL, MS_BIND, NULL));
    }
    close_quietly(tree);
    close(target);
    return result;
}
