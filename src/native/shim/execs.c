/* Processes run inside a container on request, their output passed on as it comes. */
#include "monitor.h"
#include "protocol.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#define MILLISECOND 1000000ll
#define EXIT_DRAIN  (1u << 20)
#define BACKLOG     (256u << 10) /* bytes the agent may be behind before the program has to wait */

struct exec *exec_find(uint64_t requester, uint32_t request)
{
    for (struct exec *at = monitor.execs; at != NULL; at = at->next)
        if (at->process.requester == requester && at->process.request == request)
            return at;
    return NULL;
}

void exec_free(struct exec *exec)
{
    for (struct exec **at = &monitor.execs; *at != NULL; at = &(*at)->next) {
        if (*at == exec) {
            *at = exec->next;
            break;
        }
    }
    process_close(&exec->process);
    pump_close(&exec->out);
    pump_close(&exec->err);
    input_close(&exec->input);
    free(exec);
}

static bool streams_open(const struct exec *exec)
{
    return exec->out.source.fd >= 0 || exec->err.source.fd >= 0;
}

static void answer(const struct exec *exec, int code)
{
    struct connection *connection = connection_find(exec->process.requester);
    if (connection == NULL)
        return;
    struct reply reply;
    reply_begin(&reply, FRAME_OK | FRAME_EXEC, exec->process.request);
    put_u32(&reply, (uint32_t)code);
    put_u8(&reply, exec->timed_out);
    put_u64(&reply, exec->dropped);
    reply_send(&reply, connection);
}

static void finish(struct exec *exec)
{
    answer(exec, exec->process.code);
    exec_free(exec);
    monitor_maybe_end();
}

static void pause_pumps(struct exec *exec, bool paused)
{
    exec->paused = paused;
    source_events(&exec->out.source, paused ? 0 : EPOLLIN);
    source_events(&exec->err.source, paused ? 0 : EPOLLIN);
}

/* Whoever sat at the other end has gone: nobody will ever end this program, or read what it says. */
static void abandon(struct exec *exec)
{
    if (exec->process.phase == RUNNING)
        kill_tree(exec->process.pid, SIGKILL);
    exec->deadline = 0;
    if (exec->process.phase == EXITED)
        exec->drain_until = 1;
}

void execs_resume(uint64_t requester)
{
    bool gone = connection_find(requester) == NULL;
    for (struct exec *at = monitor.execs; at != NULL; at = at->next) {
        if (at->process.requester != requester)
            continue;
        if (at->paused)
            pause_pumps(at, false);
        if (gone && at->streamed)
            abandon(at);
    }
}

/* The frame's head is written in front of the data, so that both leave in one call and nothing is copied. */
static void pass_on(struct exec *exec, struct pump *pump, uint8_t *data, size_t length)
{
    struct connection *connection = connection_find(exec->process.requester);
    if (connection == NULL)
        return;
    uint64_t *passed = &exec->passed[pump->stream];
    if (exec->limit > 0 && *passed + length > exec->limit) {
        uint64_t fits = exec->limit - *passed;
        exec->dropped += length - fits;
        length = (size_t)fits;
    }
    if (length == 0)
        return;
    *passed += length;
    struct reply head;
    reply_begin(&head, EVENT_OUTPUT, exec->process.request);
    put_u8(&head, pump->stream);
    put_u32(&head, (uint32_t)length);
    uint32_t frame_length = (uint32_t)(head.length - 4 + length);
    memcpy(head.data, &frame_length, sizeof frame_length);
    memcpy(data - head.length, head.data, head.length);
    connection_send(connection, data - head.length, head.length + length);
    if (connection_backlog(connection) > BACKLOG)
        pause_pumps(exec, true);
}

static void take_out(struct pump *pump, uint8_t *data, size_t length)
{
    pass_on(container_of(pump, struct exec, out), pump, data, length);
}

static void take_err(struct pump *pump, uint8_t *data, size_t length)
{
    pass_on(container_of(pump, struct exec, err), pump, data, length);
}

/* The drain after an exit finishes the exec itself; here the exec was only waiting for the streams. */
static void ended(struct exec *exec)
{
    if (exec->process.phase == EXITED && exec->drain_until != 0 && !streams_open(exec))
        exec->drain_until = 1; /* due at once; the pump's caller still uses it */
}

static void out_ended(struct pump *pump)
{
    ended(container_of(pump, struct exec, out));
}

static void err_ended(struct pump *pump)
{
    ended(container_of(pump, struct exec, err));
}

static void drain(struct pump *pump, const struct exec *exec)
{
    for (size_t total = 0; pump->source.fd >= 0 && !exec->paused && total < EXIT_DRAIN; total += READ_CHUNK) {
        uint64_t before = exec->passed[pump->stream] + exec->dropped;
        pump_drain(pump, 1);
        if (pump->source.fd >= 0 && exec->passed[pump->stream] + exec->dropped == before)
            return; /* nothing is there, or nobody wants it */
    }
}

static void exited(struct process *process)
{
    struct exec *exec = container_of(process, struct exec, process);
    drain(&exec->out, exec);
    drain(&exec->err, exec);
    if (connection_find(process->requester) == NULL || !streams_open(exec)) {
        finish(exec);
        return;
    }
    exec->deadline = 0;
    exec->drain_until = now_monotonic() + exec->drain_ns;
}

static void open_terminal(struct exec *exec, int master)
{
    fcntl(master, F_SETFL, fcntl(master, F_GETFL) | O_NONBLOCK);
    int duplicate = fcntl(master, F_DUPFD_CLOEXEC, 3);
    if (pump_open(&exec->out, master, 1) < 0)
        close(master);
    if (duplicate >= 0 && input_open(&exec->input, duplicate) < 0)
        close(duplicate);
}

static void launched(struct process *process)
{
    struct exec *exec = container_of(process, struct exec, process);
    if (exec->terminal && process->launch.console_master >= 0)
        open_terminal(exec, process->launch.console_master);
    if (!exec->streamed)
        return;
    struct connection *connection = connection_find(process->requester);
    if (connection == NULL) {
        abandon(exec);
        return;
    }
    struct reply event;
    reply_begin(&event, EVENT_STARTED, process->request);
    put_u32(&event, (uint32_t)process->pid);
    reply_send(&event, connection);
}

static void failed(struct process *process)
{
    answer_failure(process->requester, process->request, &process->launch.failure);
    exec_free(container_of(process, struct exec, process));
    monitor_maybe_end();
}

/* ----------------------------------------------------------------------------------------------- deadlines */

static int64_t due(const struct exec *exec)
{
    if (exec->process.phase == EXITED)
        return exec->paused ? 0 : exec->drain_until;
    return exec->deadline;
}

int64_t execs_deadline(void)
{
    int64_t first = 0;
    for (struct exec *at = monitor.execs; at != NULL; at = at->next) {
        int64_t when = due(at);
        if (when != 0 && (first == 0 || when < first))
            first = when;
    }
    return first;
}

/* Its time is over: the whole tree is killed and the caller told at once, whenever the kernel gets it buried. */
static void expire(struct exec *exec)
{
    exec->timed_out = true;
    exec->deadline = 0;
    kill_tree(exec->process.pid, SIGKILL);
    drain(&exec->out, exec);
    drain(&exec->err, exec);
    answer(exec, 128 + SIGKILL);
    exec->process.requester = 0;
    pump_close(&exec->out);
    pump_close(&exec->err);
    input_close(&exec->input);
}

void execs_expire(int64_t now)
{
    for (struct exec *at = monitor.execs, *next; at != NULL; at = next) {
        next = at->next;
        int64_t when = due(at);
        if (when == 0 || when > now)
            continue;
        if (at->process.phase == EXITED)
            finish(at);
        else
            expire(at);
    }
}

/* --------------------------------------------------------------------------------------------------- start */

static int open_streams(struct exec *exec, bool with_input, struct launch_io *io)
{
    struct process *process = &exec->process;
    int ours, error = 0;
    io->stdin_fd = io->stdout_fd = io->stderr_fd = -1;
    io->console_master = LAUNCH_CONSOLE_NONE;
    if (exec->terminal) {
        io->console_master = LAUNCH_CONSOLE_INSIDE;
        return 0;
    }
    if (with_input) {
        if ((error = pipe_pair(&ours, &process->child_fds[0], false)) < 0)
            return error;
        input_open(&exec->input, ours);
    }
    if ((error = pipe_pair(&ours, &process->child_fds[1], true)) < 0 || (error = pump_open(&exec->out, ours, 1)) < 0 ||
        (error = pipe_pair(&ours, &process->child_fds[2], true)) < 0 || (error = pump_open(&exec->err, ours, 2)) < 0)
        return error;
    io->stdin_fd = process->child_fds[0];
    io->stdout_fd = process->child_fds[1];
    io->stderr_fd = process->child_fds[2];
    return 0;
}

static const struct process_events events = {launched, failed, exited};

static struct exec *exec_new(struct connection *connection, uint32_t request)
{
    struct exec *exec = calloc(1, sizeof *exec);
    if (exec == NULL)
        return NULL;
    process_init(&exec->process, &events, connection->serial, request);
    exec->out = (struct pump){.source.fd = -1, .take = take_out, .ended = out_ended};
    exec->err = (struct pump){.source.fd = -1, .take = take_err, .ended = err_ended};
    exec->input.source.fd = -1;
    return exec;
}

static bool exec_begin(struct exec *exec, bool with_input, struct launch_io *io)
{
    struct process *process = &exec->process;
    int error = open_streams(exec, with_input, io);
    if (error < 0) {
        answer_error(process->requester, process->request, ERROR_SYSTEM, error, "open streams");
        return false;
    }
    if (process_begin(process, io) < 0) {
        answer_failure(process->requester, process->request, &process->launch.failure);
        return false;
    }
    return true;
}

void request_exec(struct connection *connection, uint32_t request, struct reader *reader)
{
    struct exec *exec = exec_new(connection, request);
    size_t plan_length, frame_size;
    const uint8_t *plan = read_plan(reader, &plan_length);
    if (exec == NULL) {
        answer_error(connection->serial, request, ERROR_SYSTEM, ENOMEM, "exec");
        return;
    }
    struct launch_io io = {0};
    read_string(reader, exec->id, sizeof exec->id);
    uint32_t timeout_ms = read_u32(reader);
    uint32_t drain_ms = read_u32(reader);
    exec->limit = read_u64(reader);
    uint8_t flags = read_u8(reader);
    io.rows = read_u16(reader);
    io.columns = read_u16(reader);
    exec->terminal = flags & 4;
    exec->streamed = flags & 8;
    exec->drain_ns = drain_ms * MILLISECOND;
    exec->deadline = timeout_ms == 0 ? 0 : now_monotonic() + timeout_ms * MILLISECOND;
    struct container *container = container_find(exec->id);
    bool good = false;
    if (reader->bad) {
        answer_error(connection->serial, request, ERROR_BAD_REQUEST, EINVAL, "malformed EXEC");
    } else if (container == NULL) {
        answer_error(connection->serial, request, ERROR_NOT_FOUND, ENOENT, "no such container");
    } else if (container->process.phase != RUNNING) {
        answer_error(connection->serial, request, ERROR_WRONG_STATE, ESRCH, "the container is not running");
    } else {
        uint8_t *frame = connection_take_body(connection, &frame_size);
        good = process_plan(&exec->process, frame, frame_size, plan, plan_length) && exec_begin(exec, flags & 1, &io);
    }
    if (!good) {
        exec_free(exec);
        return;
    }
    exec->next = monitor.execs;
    monitor.execs = exec;
}
