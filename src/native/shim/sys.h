/*
 * Kernel calls without a libc wrapper (musl has few of these), and constants that the oldest supported headers (6.1)
 * do not know. Every call returns a value >= 0 or a negative errno.
 */
#ifndef BERTH_SYS_H
#define BERTH_SYS_H

#include <errno.h>
#include <fcntl.h>
#include <linux/mount.h>
#include <linux/openat2.h>
#include <linux/sched.h>
#include <stdint.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

#ifndef AT_RECURSIVE
#define AT_RECURSIVE 0x8000
#endif
#ifndef AT_EMPTY_PATH
#define AT_EMPTY_PATH 0x1000
#endif
#ifndef O_PATH
#define O_PATH 010000000
#endif
#ifndef CLOSE_RANGE_CLOEXEC
#define CLOSE_RANGE_CLOEXEC (1U << 2)
#endif
#ifndef MNT_DETACH
#define MNT_DETACH 2
#endif

/* An error number of the last call as this code passes errors on. */
static inline int sys(long result)
{
    return result < 0 ? -errno : (int)result;
}

static inline int sys_open(int dir, const char *path, uint64_t flags, uint64_t mode, uint64_t resolve)
{
    struct open_how how = {.flags = flags | O_CLOEXEC, .mode = mode, .resolve = resolve};
    return sys(syscall(SYS_openat2, dir, path, &how, sizeof how));
}

static inline int sys_open_tree(int dir, const char *path, unsigned flags)
{
    return sys(syscall(SYS_open_tree, dir, path, flags | OPEN_TREE_CLOEXEC));
}

/* Attaches the mount `from` on what `to` refers to. */
static inline int sys_move_mount(int from, int to)
{
    return sys(syscall(SYS_move_mount, from, "", to, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH));
}

static inline int sys_mount_setattr(int mount, unsigned flags, struct mount_attr *attr)
{
    return sys(syscall(SYS_mount_setattr, mount, "", flags | AT_EMPTY_PATH, attr, sizeof *attr));
}

static inline int sys_fsopen(const char *type)
{
    return sys(syscall(SYS_fsopen, type, FSOPEN_CLOEXEC));
}

static inline int sys_fsconfig(int fs, unsigned command, const char *key, const void *value, int aux)
{
    return sys(syscall(SYS_fsconfig, fs, command, key, value, aux));
}

static inline int sys_fsmount(int fs, unsigned attributes)
{
    return sys(syscall(SYS_fsmount, fs, FSMOUNT_CLOEXEC, attributes));
}

static inline int sys_mount(const char *source, const char *target, const char *type, unsigned long flags,
                            const void *data)
{
    return sys(syscall(SYS_mount, source, target, type, flags, data));
}

static inline int sys_umount(const char *target, int flags)
{
    return sys(syscall(SYS_umount2, target, flags));
}

static inline int sys_pivot_root(const char *root, const char *old)
{
    return sys(syscall(SYS_pivot_root, root, old));
}

static inline int sys_setns(int fd, int kinds)
{
    return sys(syscall(SYS_setns, fd, kinds));
}

static inline int sys_unshare(int kinds)
{
    return sys(syscall(SYS_unshare, kinds));
}

/* Like fork() with namespaces: 0 in the child. No stack is given, so the child goes on with a copy of this one. */
static inline int sys_clone3(struct clone_args *args)
{
    return sys(syscall(SYS_clone3, args, sizeof *args));
}

static inline int sys_pidfd_open(pid_t pid)
{
    return sys(syscall(SYS_pidfd_open, pid, 0));
}

static inline int sys_pidfd_kill(int pidfd, int signal)
{
    return sys(syscall(SYS_pidfd_send_signal, pidfd, signal, 0, 0));
}

static inline int sys_close_range(unsigned first, unsigned last, unsigned flags)
{
    return sys(syscall(SYS_close_range, first, last, flags));
}

static inline void close_quietly(int fd)
{
    if (fd >= 0)
        close(fd);
}

#endif
