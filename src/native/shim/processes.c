/* Launches on their way, and the reaping of what was launched. */
#include "monitor.h"
#include "protocol.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

void process_init(struct process *process, const struct process_events *events, uint64_t requester, uint32_t request)
{
    *process = (struct process){.events = events, .requester = requester, .request = request};
    process->pidfd = process->status.fd = -1;
    process->child_fds[0] = process->child_fds[1] = process->child_fds[2] = -1;
    process->launch = (struct launch){.pid = -1, .pidfd = -1, .status_fd = -1, .console_master = -1, .gate_fd = -1};
}

bool process_plan(struct process *process, uint8_t *frame, size_t frame_size, const uint8_t *plan, size_t length)
{
    struct plan_error bad = {UINT32_MAX, "out of memory"};
    process->frame = frame;
    process->frame_size = frame_size;
    if (frame != NULL && plan_decode(plan, length, &process->plan, &bad) == 0)
        return true;
    answer_error(process->requester, process->request, ERROR_BAD_REQUEST, EINVAL, bad.what);
    return false;
}

static void close_child_fds(struct process *process)
{
    for (int i = 0; i < 3; i++) {
        if (process->child_fds[i] >= 0)
            close(process->child_fds[i]);
        process->child_fds[i] = -1;
    }
}

/* The plan and the launch's own memory are needed no longer than until the program runs. */
static void launch_over(struct process *process)
{
    source_events(&process->status, 0);
    process->status.fd = -1; /* the launch's, closed by launch_finish() or launch_release() */
}

static void free_plan(struct process *process)
{
    launch_release(&process->launch);
    pages_free(process->frame, process->frame_size);
    process->frame = NULL;
}

static void launch_step(struct process *process)
{
    int fd = process->status.fd;
    source_events(&process->status, 0); /* launch_finish() closes it */
    int result = launch_finish(&monitor.held, &process->plan, &process->launch);
    if (result == LAUNCH_PENDING) {
        process->status.fd = fd;
        source_events(&process->status, EPOLLIN);
        return;
    }
    launch_over(process);
    if (result < 0) {
        process->events->failed(process);
        return;
    }
    process->phase = RUNNING;
    process->started_at = now_realtime();
    process->start_time = process_start_time(process->pid);
    process->events->launched(process);
    free_plan(process);
}

static void status_ready(struct source *source, uint32_t events)
{
    (void)events;
    launch_step(container_of(source, struct process, status));
}

int process_begin(struct process *process, const struct launch_io *io)
{
    process->phase = LAUNCHING;
    process->pidfd = process->status.fd = -1;
    int error = launch_begin(&monitor.held, &process->plan, io, &process->launch);
    close_child_fds(process);
    if (error < 0)
        return error;
    process->pid = process->launch.pid;
    process->pidfd = process->launch.pidfd;
    error = source_add(&process->status, process->launch.status_fd, EPOLLIN, status_ready);
    if (error < 0) {
        launch_abort(&process->launch);
        process->launch.failure = (struct launch_failure){UINT32_MAX, -error, 0};
    }
    return error;
}

/* Frees what the process holds; a launch under way is aborted. The process itself is not waited for. */
void process_close(struct process *process)
{
    close_child_fds(process);
    if (process->phase == LAUNCHING && process->status.fd >= 0) {
        launch_over(process);
        launch_abort(&process->launch);
    }
    if (process->frame != NULL)
        free_plan(process);
    if (process->pidfd >= 0)
        close(process->pidfd);
    process->pidfd = -1;
}

void process_kill(struct process *process, int signal)
{
    if (process->phase != EXITED && process->pidfd >= 0)
        syscall(SYS_pidfd_send_signal, process->pidfd, signal, NULL, 0);
}

static struct process *process_of(pid_t pid)
{
    if (monitor.pause_used && monitor.pause.pid == pid)
        return &monitor.pause;
    for (struct container *at = monitor.containers; at != NULL; at = at->next)
        if (at->process.pid == pid && at->process.phase != EXITED)
            return &at->process;
    for (struct exec *at = monitor.execs; at != NULL; at = at->next)
        if (at->process.pid == pid && at->process.phase != EXITED)
            return &at->process;
    return NULL;
}

static void process_ended(pid_t pid, int status)
{
    struct process *process = process_of(pid);
    if (process == NULL)
        return; /* a stranger left to us as subreaper, or the remains of a failed launch */
    if (process->phase == LAUNCHING) {
        launch_step(process); /* quick programs end before the loop has seen that they began */
        process = process_of(pid);
        if (process != NULL && process->phase == LAUNCHING) {
            launch_over(process);
            launch_abort(&process->launch);
            process->launch.failure = (struct launch_failure){UINT32_MAX, 0, 0};
            process->events->failed(process);
            return;
        }
        if (process == NULL || process->phase != RUNNING)
            return;
    }
    process->phase = EXITED;
    process->code = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
    process->finished_at = now_realtime();
    process->events->exited(process);
}

void process_reap(void)
{
    int status;
    pid_t pid;
    while ((pid = waitpid(-1, &status, WNOHANG | __WALL)) > 0)
        process_ended(pid, status);
}
