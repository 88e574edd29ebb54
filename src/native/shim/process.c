/* Inner steps that shape the process itself. Raw calls: a libc would try to do them in every thread. */
#include "execute.h"

#include <limits.h>
#include <linux/if.h>
#include <linux/keyctl.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

int do_hostname(struct execution *e, const struct plan_step *step)
{
    return sys(sethostname(text(e, step->s[0]), step->s[0].length));
}

int do_domainname(struct execution *e, const struct plan_step *step)
{
    return sys(syscall(SYS_setdomainname, text(e, step->s[0]), step->s[0].length));
}

int do_sysctl(struct execution *e, const struct plan_step *step)
{
    char path[300] = "sys/";
    int result = append(path, sizeof path, text(e, step->s[0]));
    return result < 0 ? result : write_proc(e, path, text(e, step->s[1]), step->s[1].length);
}

int do_loopback(struct execution *e, const struct plan_step *step)
{
    (void)e, (void)step;
    struct ifreq request = {.ifr_name = "lo", .ifr_flags = IFF_UP};
    int fd = sys(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    int result = fd < 0 ? fd : sys(ioctl(fd, SIOCSIFFLAGS, &request));
    close_quietly(fd);
    return result;
}

int do_umask(struct execution *e, const struct plan_step *step)
{
    umask((mode_t)step->w[0]);
    e->umask_set = 1;
    return 0;
}

/* ---------------------------------------------------------------------------------------------- limits */

struct limit {
    uint64_t soft, hard;
};

static int limits(pid_t pid, unsigned resource, const struct limit *set, struct limit *was)
{
    return sys(syscall(SYS_prlimit64, pid, resource, set, was));
}

int do_rlimit(struct execution *e, const struct plan_step *step)
{
    struct limit wanted = {step->w[1], step->w[2]}, was;
    int result = limits(0, (unsigned)step->w[0], &wanted, NULL);
    if (result != -EPERM || !(step->flags & STEP_CLAMP))
        return result;
    result = limits(0, (unsigned)step->w[0], NULL, &was);
    if (result < 0)
        return result;
    warn(e, LAUNCH_CLAMPED, (int64_t)wanted.hard, (int64_t)was.hard);
    wanted.hard = was.hard;
    wanted.soft = wanted.soft < was.hard ? wanted.soft : was.hard;
    return limits(0, (unsigned)step->w[0], &wanted, NULL);
}

/*
 * Inside a user namespace a child may lower its hard limits but never raise one; so they are raised beforehand, the
 * soft ones left alone, and the child's own steps only lower.
 */
int raise_hard_limits(struct execution *e, pid_t pid)
{
    for (uint32_t i = 0; i < e->plan->inner_count; i++) {
        const struct plan_step *step = plan_inner(e->plan) + i;
        struct limit was;
        if (step->op != OP_RLIMIT || limits(pid, (unsigned)step->w[0], NULL, &was) < 0 || was.hard >= step->w[2])
            continue;
        was.hard = step->w[2];
        int result = limits(pid, (unsigned)step->w[0], &was, NULL);
        if (result < 0 && !(step->flags & STEP_CLAMP)) {
            e->step = e->plan->outer_count + i;
            return result;
        }
    }
    return 0;
}

static int64_t read_number(struct execution *e, const char *path)
{
    char value[24] = "";
    int64_t number = 0;
    int fd = sys(openat(e->held->proc, path, O_RDONLY | O_CLOEXEC));
    ssize_t length = fd < 0 ? 0 : read(fd, value, sizeof value - 1);
    close_quietly(fd);
    for (ssize_t i = value[0] == '-'; i < length && value[i] >= '0' && value[i] <= '9'; i++)
        number = number * 10 + (value[i] - '0');
    return value[0] == '-' ? -number : number;
}

int do_oom_score(struct execution *e, const struct plan_step *step, pid_t pid)
{
    char path[48] = "", value[24];
    int64_t wanted = (int64_t)step->w[0];
    format_number(path, pid);
    append(path, sizeof path, "/oom_score_adj");
    int result = write_proc(e, path, value, format_number(value, wanted));
    if ((result == -EACCES || result == -EPERM) && step->flags & STEP_CLAMP) {
        warn(e, LAUNCH_CLAMPED, wanted, read_number(e, path));
        result = 0;
    }
    return result;
}

/* --------------------------------------------------------------------------------- session and keyring */

int do_session_keyring(struct execution *e, const struct plan_step *step)
{
    const char *name = text(e, step->s[0]);
    int result = sys(syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, *name ? name : NULL));
    return result == -ENOSYS ? 0 : result; /* a kernel without keys leaks none */
}

/* Pipes and terminals the program was given are to be its own; the null device and files are not. */
static int chown_stdio(uid_t uid)
{
    for (int fd = 0; fd < 3; fd++) {
        struct stat st;
        if (fstat(fd, &st) < 0)
            return -errno;
        int ours = S_ISFIFO(st.st_mode) || S_ISSOCK(st.st_mode) || (S_ISCHR(st.st_mode) && !path_is_null_device(fd));
        if (!ours || st.st_uid == uid)
            continue;
        int result = sys(fchown(fd, uid, (gid_t)-1));
        if (result < 0 && result != -EPERM && result != -EINVAL && result != -EROFS)
            return result;
    }
    return 0;
}

int do_chown_stdio(struct execution *e, const struct plan_step *step)
{
    (void)e;
    return chown_stdio((uid_t)step->w[0]);
}

/* What the shim made belongs to an id that the namespace about to be joined does not know: nobody there may change it.
 */
int give_stdio_away(struct execution *e)
{
    const struct plan_step *step = find_later(e, OP_CHOWN_STDIO);
    return step && step->w[2] ? chown_stdio((uid_t)step->w[2]) : 0;
}

/* ---------------------------------------------------------------------------------------------- labels */

int do_apparmor(struct execution *e, const struct plan_step *step)
{
    char value[512] = "exec ";
    if (append(value, sizeof value, text(e, step->s[0])) < 0)
        return -ENAMETOOLONG;
    int result = write_proc(e, "self/attr/apparmor/exec", value, strlen(value));
    return result == -ENOENT ? write_proc(e, "self/attr/exec", value, strlen(value)) : result;
}

int do_selinux(struct execution *e, const struct plan_step *step)
{
    return write_proc(e, "self/attr/exec", text(e, step->s[0]), step->s[0].length);
}

/* ----------------------------------------------------------------------------------- working directory */

/* The kernel marks what cannot be reached from the root: a directory of the host, by whatever way (CVE-2024-21626). */
static int verify_cwd(struct execution *e)
{
    char path[PATH_MAX];
    int result = sys(syscall(SYS_getcwd, path, sizeof path));
    return result >= 0 && path[0] != '/' ? failed(e, DETAIL_OUTSIDE, -EXDEV) : result;
}

int do_cwd(struct execution *e, const struct plan_step *step)
{
    const char *path = text(e, step->s[0]);
    int root = e->root >= 0 ? e->root : AT_FDCWD;
    int fd = path_open(root, path, O_PATH | O_DIRECTORY);
    if (fd == -ENOENT && step->flags & STEP_CREATE)
        fd = path_make(root, path, 0, 0755);
    int result = failed(e, DETAIL_TARGET, fd);
    if (result >= 0)
        result = sys(fchdir(fd));
    close_quietly(fd);
    /* A network file system may refuse root what it grants the user: try once more as the user. */
    if (result == -EACCES && e->cwd_pending == CWD_FIRST && find_later(e, OP_USER)) {
        e->cwd_pending = (int32_t)e->step;
        return 0;
    }
    return result < 0 ? result : verify_cwd(e);
}
