/* The end of a container's launch: its terminal, the last preparations and the program itself. */
#include "execute.h"

#include <limits.h>
#include <linux/magic.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>

#ifndef TIOCGPTPEER
#define TIOCGPTPEER _IO('T', 0x41)
#endif
#define DEFAULT_PATH "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

/* -------------------------------------------------------------------------------------------- terminal */

/* A new terminal of the container's own devpts, which is checked to be one (CVE-2025-52565). */
static int open_master(struct execution *e)
{
    struct stat st;
    struct statfs fs;
    int root = e->root >= 0 ? e->root : AT_FDCWD, unlock = 0;
    int dir = path_open_real_dir(root, "/dev/pts");
    if (dir < 0)
        return dir;
    int fd = sys_open(dir, "ptmx", O_RDWR | O_NOCTTY | O_NOFOLLOW, 0, 0);
    close(dir);
    if (fd < 0)
        return fd;
    int good = fstat(fd, &st) == 0 && S_ISCHR(st.st_mode) && st.st_rdev == makedev(5, 2) && fstatfs(fd, &fs) == 0 &&
               fs.f_type == DEVPTS_SUPER_MAGIC;
    int result = !good ? -ENODEV : sys(ioctl(fd, TIOCSPTLCK, &unlock));
    if (result < 0)
        close(fd);
    return result < 0 ? result : fd;
}

static int open_slave(struct execution *e)
{
    int inside = e->io->console_master == LAUNCH_CONSOLE_INSIDE;
    int master = inside ? open_master(e) : e->io->console_master;
    if (master < 0)
        return failed(e, DETAIL_TERMINAL, master == LAUNCH_CONSOLE_NONE && !inside ? -EBADF : master);
    int slave = sys(ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC));
    int result = slave;
    if (inside) {
        if (result >= 0)
            result = send_fd(e->status_write, master);
        close(master);
    }
    return failed(e, DETAIL_TERMINAL, result < 0 ? result : slave);
}

/* The terminal's own mount, bound by descriptor over an empty file that no link leads away from. */
static int bind_console(struct execution *e, int slave)
{
    int dir = path_make(e->root, "/dev", 0, 0755), target, mount, result;
    if (dir < 0)
        return failed(e, DETAIL_TARGET, dir);
    target = sys_open(dir, "console", O_CREAT | O_EXCL | O_NOFOLLOW | O_WRONLY, 0644, 0);
    close_quietly(target);
    target = failed(e, DETAIL_TARGET, sys_open(dir, "console", O_PATH | O_NOFOLLOW, 0, 0));
    mount = failed(e, DETAIL_SOURCE, sys_open_tree(slave, "", OPEN_TREE_CLONE | AT_EMPTY_PATH));
    result = target < 0 ? target : mount < 0 ? mount : failed(e, DETAIL_ATTACH, sys_move_mount(mount, target));
    close_quietly(mount);
    close_quietly(target);
    close(dir);
    return result;
}

static int take_terminal(struct execution *e, int slave)
{
    struct winsize size = {.ws_row = e->io->rows, .ws_col = e->io->columns};
    int result = sys(ioctl(slave, TIOCSCTTY, 0));
    if (result >= 0 && size.ws_row && size.ws_col)
        result = sys(ioctl(slave, TIOCSWINSZ, &size));
    for (int fd = 0; result >= 0 && fd < 3; fd++)
        result = sys(dup2(slave, fd));
    return failed(e, DETAIL_TERMINAL, result);
}

int do_session(struct execution *e, const struct plan_step *step)
{
    int result = sys(setsid());
    if (result < 0 || !(step->flags & STEP_TERMINAL))
        return result;
    int slave = open_slave(e);
    if (slave < 0)
        return slave;
    result = step->flags & STEP_CONSOLE ? bind_console(e, slave) : 0;
    if (result >= 0)
        result = take_terminal(e, slave);
    close(slave);
    return result;
}

/* --------------------------------------------------------------------------------------------- program */

/* What must be done before exec and cannot be after a filter: cgroups joined, nothing inherited, free of the shim. */
int arm(struct execution *e)
{
    if (e->armed)
        return 0;
    int result = pass_gate(e);
    if (result >= 0)
        result = sys_close_range(3, ~0u, CLOSE_RANGE_CLOEXEC);
    if (result >= 0)
        result = sys(prctl(PR_SET_PDEATHSIG, 0, 0, 0, 0));
    if (!e->umask_set)
        umask(022);
    e->armed = result >= 0;
    return result;
}

/* Pointers to the strings of a list, in memory of the kernel's; the count includes the ending NULL. */
static size_t point_to(struct execution *e, struct plan_ref list, const char **to)
{
    size_t count = 0;
    for (const char *at = NULL; (at = plan_next(e->plan, list, at)); count++)
        if (to)
            to[count] = at;
    if (to)
        to[count] = NULL;
    return count + 1;
}

static const char *search_path(const char **env)
{
    for (; *env; env++)
        if (!strncmp(*env, "PATH=", 5))
            return *env + 5;
    return DEFAULT_PATH;
}

/* As a shell does: the first that can be executed; one that is there but may not be outranks none at all. */
static int exec_in_path(const char *name, const char **args, const char **env)
{
    char path[PATH_MAX];
    int result = -ENOENT;
    for (const char *dir = search_path(env), *end;; dir = end + 1) {
        size_t length = strcspn(dir, ":");
        end = dir + length;
        if (length < sizeof path) {
            memcpy(path, length ? dir : ".", length ? length : 1);
            path[length ? length : 1] = 0;
            if (append(path, sizeof path, "/") == 0 && append(path, sizeof path, name) == 0) {
                int error = sys(syscall(SYS_execve, path, args, env));
                if (error == -EACCES)
                    result = error;
                else if (error != -ENOENT && error != -ENOTDIR)
                    return error;
            }
        }
        if (*end == 0)
            return result;
    }
}

int do_exec(struct execution *e, const struct plan_step *step)
{
    const char *name = text(e, step->s[0]);
    int result = arm(e);
    if (result < 0)
        return result;
    size_t args = point_to(e, step->s[0], NULL), all = args + point_to(e, step->s[1], NULL);
    const char **pointers = e->pointers;
    if (all > e->pointer_count)
        return -E2BIG;
    point_to(e, step->s[0], pointers);
    point_to(e, step->s[1], pointers + args);
    e->report->state = REPORT_READY;
    if (*name == 0)
        result = -ENOENT;
    else if (strchr(name, '/'))
        result = sys(syscall(SYS_execve, name, pointers, pointers + args));
    else
        result = exec_in_path(name, pointers, pointers + args);
    return result;
}
