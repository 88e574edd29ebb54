/* The child: from the clone to its last step. No allocation, no stdio; what it opens is close-on-exec. */
#include "execute.h"

#include <signal.h>
#include <string.h>
#include <sys/stat.h>

typedef int step_function(struct execution *, const struct plan_step *);

/* oom-score is done by the shim. */
static int nothing(struct execution *e, const struct plan_step *step)
{
    (void)e, (void)step;
    return 0;
}

static step_function *const functions[] = {
    [OP_PROPAGATION] = do_propagation,
    [OP_ATTACH_ROOT] = do_attach_root,
    [OP_ATTACH] = do_attach,
    [OP_MOUNT] = do_mount,
    [OP_BIND_INSIDE] = do_bind_inside,
    [OP_SET_ATTRIBUTES] = do_set_attributes,
    [OP_MKDIR] = do_mkdir,
    [OP_SYMLINK] = do_symlink,
    [OP_DEVICE] = do_device,
    [OP_MASK] = do_mask,
    [OP_READONLY_PATH] = do_readonly_path,
    [OP_PIVOT] = do_pivot,
    [OP_ROOT_READONLY] = do_root_readonly,
    [OP_HOSTNAME] = do_hostname,
    [OP_DOMAINNAME] = do_domainname,
    [OP_SYSCTL] = do_sysctl,
    [OP_LOOPBACK] = do_loopback,
    [OP_RLIMIT] = do_rlimit,
    [OP_OOM_SCORE] = nothing,
    [OP_UMASK] = do_umask,
    [OP_SESSION_KEYRING] = do_session_keyring,
    [OP_SESSION] = do_session,
    [OP_CHOWN_STDIO] = do_chown_stdio,
    [OP_USER] = do_user,
    [OP_CAPABILITIES] = do_capabilities,
    [OP_NO_NEW_PRIVILEGES] = do_no_new_privileges,
    [OP_CWD] = do_cwd,
    [OP_APPARMOR] = do_apparmor,
    [OP_SELINUX] = do_selinux,
    [OP_SECCOMP] = do_seccomp,
    [OP_UNSHARE_CGROUP] = do_unshare_cgroup,
    [OP_ENTER_MOUNT] = do_enter_mount,
    [OP_EXEC] = do_exec,
};

_Noreturn void child_fail(struct execution *e, int error)
{
    e->report->failure = (struct launch_failure){.step = e->step, .error = -error, .detail = e->detail};
    e->report->state = REPORT_FAILED;
    _exit(127);
}

int wait_gate(struct execution *e, char expected)
{
    char byte = 0;
    int got;
    do
        got = sys(read(e->gate_read, &byte, 1));
    while (got == -EINTR);
    return got == 1 && byte == expected ? 0 : failed(e, DETAIL_GATE, got < 0 ? got : -EPIPE);
}

int pass_gate(struct execution *e)
{
    if (e->gate_passed)
        return 0;
    int result = wait_gate(e, 'c');
    e->gate_passed = result >= 0;
    return result;
}

/* Handlers are gone by CLONE_CLEAR_SIGHAND, what the shim ignores or blocks is not. */
static void reset_signals(void)
{
    struct sigaction standard = {.sa_handler = SIG_DFL};
    sigset_t none;
    for (int signal = 1; signal < 32; signal++)
        sigaction(signal, &standard, NULL);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

static int take_fd(int fd)
{
    if (fd < 0)
        return sys_open(AT_FDCWD, "/dev/null", O_RDWR, 0, 0);
    return fd < 3 ? sys(fcntl(fd, F_DUPFD_CLOEXEC, 3)) : fd;
}

static int take_stdio(const struct launch_io *io)
{
    int from[3] = {take_fd(io->stdin_fd), take_fd(io->stdout_fd), take_fd(io->stderr_fd)}, result = 0;
    for (int i = 0; i < 3 && result >= 0; i++)
        result = from[i] < 0 ? from[i] : sys(dup2(from[i], i));
    return result;
}

/* The host's null device, found while its root is still ours, and checked: an image cannot stand in its way. */
static void find_null(struct execution *e)
{
    e->null = sys_open(AT_FDCWD, "/dev/null", O_PATH | O_NOFOLLOW, 0, 0);
    if (e->null >= 0 && !path_is_null_device(e->null)) {
        close(e->null);
        e->null = -1;
    }
}

static void run_step(struct execution *e, const struct plan_step *step)
{
    uint64_t start = e->sealed ? 0 : now_nanos();
    e->detail = DETAIL_MAIN;
    int result = functions[step->op](e, step);
    if (result < 0)
        child_fail(e, result);
    if (!e->sealed)
        e->report->nanos[e->step] = now_nanos() - start;
}

#define MAX_NEEDED (PLAN_SLOTS + NAMESPACE_KINDS + 8)

/* Sorted, without those that are not there. */
static int needed_fds(const struct execution *e, int needed[MAX_NEEDED])
{
    int count = 0;
    const int others[] = {e->gate_read, e->status_write, e->enter_mount, e->held->proc, e->io->console_master};
    for (int i = 0; i < PLAN_SLOTS + NAMESPACE_KINDS + 5; i++) {
        int at, fd = i < PLAN_SLOTS                     ? e->slots[i]
                     : i < PLAN_SLOTS + NAMESPACE_KINDS ? e->enter[i - PLAN_SLOTS]
                                                        : others[i - PLAN_SLOTS - NAMESPACE_KINDS];
        if (fd < 0)
            continue;
        for (at = count++; at > 0 && needed[at - 1] > fd; at--)
            needed[at] = needed[at - 1];
        needed[at] = fd;
    }
    return count;
}

/*
 * What else the shim has open, sockets and logs of other containers, is none of the child's business: a process of the
 * container that may trace could take it as soon as the child shows up in its PID namespace (CVE-2016-9962).
 */
static int close_unneeded(const struct execution *e)
{
    int needed[MAX_NEEDED], count = needed_fds(e, needed), result = 0;
    unsigned first = 3;
    for (int i = 0; result >= 0 && i < count; i++) {
        unsigned fd = (unsigned)needed[i];
        if (fd > first)
            result = sys_close_range(first, fd - 1, 0);
        first = fd >= first ? fd + 1 : first;
    }
    return result < 0 ? result : sys_close_range(first, ~0u, 0);
}

/* Closing our copy of the gate's other end is part of this: or the end of the shim would not be the end of the gate. */
static void start(struct execution *e)
{
    int result = guard_child();
    if (result >= 0)
        result = take_stdio(e->io);
    if (result >= 0)
        result = close_unneeded(e);
    if (result >= 0)
        result = enter_namespaces(e, &e->plan->steps[e->step]);
    if (result < 0)
        child_fail(e, result);
}

_Noreturn void child_main(struct execution *e)
{
    reset_signals();
    umask(0);
    start(e);
    if (e->plan->kind != PLAN_JOIN)
        find_null(e);
    for (uint32_t i = 0; i < e->plan->inner_count; i++) {
        const struct plan_step *step = plan_inner(e->plan) + i;
        e->step = e->plan->outer_count + i;
        if (step->op == OP_PAUSE)
            do_pause(e);
        if (step->op == OP_HOLD)
            do_hold(e);
        run_step(e, step);
    }
    child_fail(e, -EINVAL);
}
