/* The shim's side of a launch: outer steps, the clone, and what the child reports. */
#include "execute.h"

#include <linux/magic.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/vfs.h>

unsigned launch_without;

/* ------------------------------------------------------------------------------------------ the shim's */

static int open_private_proc(void)
{
    struct statfs fs;
    int context = sys_fsopen("proc"), result = context;
    if (result >= 0)
        result = sys_fsconfig(context, FSCONFIG_CMD_CREATE, NULL, NULL, 0);
    if (result >= 0)
        result = sys_fsmount(context, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC);
    close_quietly(context);
    if (result >= 0)
        return result;
    result = sys_open(AT_FDCWD, "/proc", O_PATH | O_DIRECTORY, 0, 0);
    if (result >= 0 && (fstatfs(result, &fs) < 0 || fs.f_type != PROC_SUPER_MAGIC)) {
        close(result);
        return -ENODEV;
    }
    return result;
}

int launch_init(struct shim_namespaces *held)
{
    memset(held, 0, sizeof *held);
    for (int kind = 0; kind < NAMESPACE_KINDS; kind++)
        held->held[kind] = -1;
    for (int i = 0; i < SHIM_MAX_HELD_MOUNTS; i++)
        held->mounts[i] = (struct held_mount){.mount = -1, .namespace = -1};
    for (int fd = 0; fd < 3; fd++) /* the lowest free number is the one that is closed */
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", O_RDWR) < 0)
            return -errno;
    held->own_pid = -1;
    held->proc = open_private_proc();
    if (held->proc < 0)
        return held->proc;
    held->own_pid = sys(openat(held->proc, "self/ns/pid", O_RDONLY | O_CLOEXEC));
    if (held->own_pid < 0)
        return held->own_pid;
    held->one_way = sys_setns(held->own_pid, CLONE_NEWPID) < 0;
    return sys(prctl(PR_SET_DUMPABLE, 0, 0, 0, 0));
}

void launch_drop_namespaces(struct shim_namespaces *held)
{
    for (int kind = 0; kind < NAMESPACE_KINDS; kind++) {
        close_quietly(held->held[kind]);
        held->held[kind] = -1;
    }
    for (int i = 0; i < SHIM_MAX_HELD_MOUNTS; i++) {
        close_quietly(held->mounts[i].mount);
        close_quietly(held->mounts[i].namespace);
        held->mounts[i] = (struct held_mount){.mount = -1, .namespace = -1};
    }
}

/* ----------------------------------------------------------------------------------------------- begin */

static size_t count_pointers(const struct plan *plan)
{
    size_t count = 2;
    const struct plan_step *last = plan_inner(plan) + plan->inner_count - 1;
    for (int list = 0; last->op == OP_EXEC && list < 2; list++)
        for (const char *at = NULL; (at = plan_next(plan, last->s[list], at));)
            count++;
    return count;
}

static int map_report(struct execution *e, struct launch *launch)
{
    size_t pointers = count_pointers(e->plan);
    size_t nanos = (size_t)launch->step_count * sizeof(uint64_t);
    launch->report_size = sizeof *launch->report + nanos + pointers * sizeof(char *);
    void *memory = mmap(NULL, launch->report_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        return -errno;
    launch->report = e->report = memory;
    launch->step_nanos = e->report->nanos;
    launch->warnings = e->report->warnings;
    e->pointers = (const char **)(e->report->nanos + launch->step_count);
    e->pointer_count = pointers;
    return 0;
}

static int open_channels(struct execution *e)
{
    int status[2], gate[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, status) < 0)
        return -errno;
    e->status_read = status[0];
    e->status_write = status[1];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, gate) < 0)
        return -errno;
    e->gate_write = gate[0];
    e->gate_read = gate[1];
    return 0;
}

/* A child that is gone already has said why, or will be found dead. */
int open_gate(struct execution *e, char byte)
{
    int result = sys(send(e->gate_write, &byte, 1, MSG_NOSIGNAL));
    return result == -EPIPE || result == -ECONNRESET ? 0 : result;
}

static int outer_step(struct execution *e, const struct plan_step *step, struct launch *launch)
{
    switch (step->op) {
    case OP_OVERLAY:
        return do_overlay(e, step);
    case OP_BIND_SOURCE:
        return do_bind_source(e, step);
    case OP_IMAGE_SOURCE:
        return do_image_source(e, step);
    case OP_LOCK_SOURCE:
        return do_lock_source(e, step);
    case OP_FS_SOURCE:
        return do_fs_source(e, step);
    case OP_HOLD_MOUNT:
        return do_hold_mount(e, step);
    case OP_HELD_SOURCE:
        return do_held_source(e, step);
    case OP_OPEN:
        return do_open(e, step);
    case OP_ENTER:
        return do_enter(e, step);
    case OP_CLONE:
        return do_clone(e, step, launch);
    default: /* kept when the child is ready */
        return 0;
    }
}

/* The shim does this for the child: only it may lower a score, and it can while the child is not dumpable. */
static int do_oom_steps(struct execution *e, pid_t pid)
{
    for (uint32_t i = 0; i < e->plan->inner_count; i++) {
        const struct plan_step *step = plan_inner(e->plan) + i;
        if (step->op != OP_OOM_SCORE)
            continue;
        e->step = e->plan->outer_count + i;
        e->detail = DETAIL_MAIN;
        int result = do_oom_score(e, step, pid);
        if (result < 0)
            return result;
    }
    return 0;
}

static int run_outer(struct execution *e, struct launch *launch)
{
    int result = 0;
    for (uint32_t i = 0; result >= 0 && i < e->plan->outer_count; i++) {
        uint64_t start = now_nanos();
        e->step = i;
        e->detail = DETAIL_MAIN;
        result = outer_step(e, &e->plan->steps[i], launch);
        e->report->nanos[i] = now_nanos() - start;
    }
    if (result >= 0)
        result = do_oom_steps(e, launch->pid);
    return result < 0 ? result : open_gate(e, 'c');
}

static void close_execution(struct execution *e)
{
    for (int i = 0; i < PLAN_SLOTS; i++)
        close_quietly(e->slots[i]);
    for (int kind = 0; kind < NAMESPACE_KINDS; kind++)
        if (!e->borrowed[kind])
            close_quietly(e->enter[kind]);
    if (!e->enter_mount_borrowed)
        close_quietly(e->enter_mount);
    close_quietly(e->gate_read);
    close_quietly(e->status_write);
}

/* Whoever of the two failed first knows why. */
static void fail_begin(struct execution *e, struct launch *launch, int error)
{
    launch->failure = (struct launch_failure){.step = e->step, .error = -error, .detail = e->detail};
    if (launch->pidfd >= 0) {
        sys_pidfd_kill(launch->pidfd, SIGKILL);
        reap(launch->pidfd);
        if (e->report->state == REPORT_FAILED)
            launch->failure = e->report->failure;
        close(launch->pidfd);
        launch->pidfd = -1;
    }
    close_quietly(e->gate_write);
    close_quietly(e->status_read);
    if (e->plan->kind == PLAN_SANDBOX)
        launch_drop_namespaces(e->held);
    launch_release(launch);
}

int launch_begin(struct shim_namespaces *held, const struct plan *plan, const struct launch_io *io,
                 struct launch *launch)
{
    struct execution e = {.plan = plan, .held = held, .io = io, .step = UINT32_MAX};
    e.gate_read = e.gate_write = e.status_read = e.status_write = -1;
    e.root = e.null = e.empty = e.enter_mount = -1;
    e.cwd_pending = CWD_FIRST;
    memset(e.slots, -1, sizeof e.slots);
    memset(e.enter, -1, sizeof e.enter);
    *launch = (struct launch){.pid = -1, .pidfd = -1, .status_fd = -1, .console_master = -1, .gate_fd = -1};
    launch->step_count = plan->outer_count + plan->inner_count;
    int result = map_report(&e, launch);
    if (result >= 0)
        result = open_channels(&e);
    if (result >= 0)
        result = run_outer(&e, launch);
    close_execution(&e);
    if (result < 0) {
        fail_begin(&e, launch, result);
        return result;
    }
    launch->status_fd = e.status_read;
    launch->gate_fd = e.gate_write;
    return 0;
}

/* ---------------------------------------------------------------------------------------------- finish */

/* Takes a terminal that the child sent; 0 at the end of the channel, LAUNCH_PENDING before it. */
static int drain_status(struct launch *launch)
{
    for (;;) {
        int fd = receive_fd(launch->status_fd, MSG_DONTWAIT);
        if (fd == -EAGAIN)
            return LAUNCH_PENDING;
        if (fd < 0)
            return 0;
        close_quietly(launch->console_master);
        launch->console_master = fd;
    }
}

static int keep(struct execution *e, pid_t pid)
{
    int result = 0;
    for (uint32_t i = 0; result >= 0 && i < e->plan->outer_count; i++) {
        const struct plan_step *step = &e->plan->steps[i];
        uint64_t start = now_nanos();
        e->step = i;
        e->detail = DETAIL_MAIN;
        if (step->op == OP_HOLD_NAMESPACES)
            result = do_hold_namespaces(e, step, pid);
        else if (step->op == OP_PIN_NAMESPACE)
            result = do_pin_namespace(e, step);
        else
            continue;
        e->report->nanos[i] = now_nanos() - start;
    }
    return result;
}

static void undo_pins(const struct plan *plan)
{
    for (uint32_t i = 0; i < plan->outer_count; i++)
        if (plan->steps[i].op == OP_PIN_NAMESPACE)
            sys_umount(plan_string(plan, plan->steps[i].s[0]), MNT_DETACH);
}

static int finish_sandbox(struct shim_namespaces *held, const struct plan *plan, struct launch *launch)
{
    struct execution e = {.plan = plan, .held = held, .report = launch->report, .gate_write = launch->gate_fd};
    int result = keep(&e, launch->pid);
    if (result >= 0)
        result = open_gate(&e, 'h');
    if (result < 0) {
        launch->failure = (struct launch_failure){.step = e.step, .error = -result, .detail = e.detail};
        undo_pins(plan);
    }
    return result;
}

static int finish_failed(const struct plan *plan, struct shim_namespaces *held, struct launch *launch, int result)
{
    sys_pidfd_kill(launch->pidfd, SIGKILL);
    close_quietly(launch->console_master);
    launch->console_master = -1;
    if (plan->kind == PLAN_SANDBOX)
        launch_drop_namespaces(held);
    return result;
}

int launch_finish(struct shim_namespaces *held, const struct plan *plan, struct launch *launch)
{
    int result = drain_status(launch);
    if (result == LAUNCH_PENDING)
        return result;
    close_quietly(launch->status_fd);
    launch->status_fd = -1;
    launch->warning_count = launch->report->warning_count;
    if (launch->report->state == REPORT_FAILED) {
        launch->failure = launch->report->failure;
        return finish_failed(plan, held, launch, -launch->failure.error);
    }
    if (launch->report->state != REPORT_READY) {
        launch->failure = (struct launch_failure){.step = UINT32_MAX};
        return finish_failed(plan, held, launch, -ECHILD);
    }
    result = plan->kind == PLAN_SANDBOX ? finish_sandbox(held, plan, launch) : 0;
    close_quietly(launch->gate_fd);
    launch->gate_fd = -1;
    return result < 0 ? finish_failed(plan, held, launch, result) : 0;
}

void launch_abort(struct launch *launch)
{
    if (launch->pidfd >= 0)
        sys_pidfd_kill(launch->pidfd, SIGKILL);
    close_quietly(launch->console_master);
    launch->console_master = -1;
    launch_release(launch);
}

void launch_release(struct launch *launch)
{
    close_quietly(launch->status_fd);
    close_quietly(launch->gate_fd);
    if (launch->report)
        munmap(launch->report, launch->report_size);
    launch->status_fd = launch->gate_fd = -1;
    launch->report = NULL;
    launch->step_nanos = NULL;
    launch->warnings = NULL;
}
