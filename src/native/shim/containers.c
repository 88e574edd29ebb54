/* Containers of the pod: their start, their streams, their end. */
#include "monitor.h"
#include "protocol.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#define EXIT_DRAIN  (1u << 20) /* bytes per stream that are read before an exit is told */
#define TAP_BACKLOG (256u << 10)

struct container *container_find(const char *id)
{
    for (struct container *at = monitor.containers; at != NULL; at = at->next)
        if (strcmp(at->id, id) == 0)
            return at;
    return NULL;
}

int container_pidfd(void *context, const char *id)
{
    (void)context;
    struct container *container = container_find(id);
    if (container == NULL || container->process.phase != RUNNING)
        return -ENOENT;
    return container->process.pidfd;
}

int container_signal(struct container *container, int signal, bool all)
{
    if (all && container->cgroup != NULL)
        return kill_cgroup(container->cgroup, signal);
    if (all && container->process.phase != EXITED)
        kill_tree(container->process.pid, signal);
    else
        process_kill(&container->process, signal);
    return 0;
}

/* ------------------------------------------------------------------------------------------------ streams */

static void tap(struct connection *connection, uint8_t stream, const uint8_t *data, size_t length)
{
    if (connection_backlog(connection) > TAP_BACKLOG)
        return; /* a slow reader loses output; the container never waits for it */
    struct reply event;
    reply_begin(&event, EVENT_OUTPUT, connection->attach_request);
    put_u8(&event, stream);
    put_bytes(&event, data, length);
    reply_send(&event, connection);
}

static void streams_end(struct connection *connection)
{
    struct reply event;
    reply_begin(&event, EVENT_STREAMS_END, connection->attach_request);
    reply_send(&event, connection);
}

static void take_output(struct container *container, struct pump *pump, uint8_t *data, size_t length)
{
    if (container->log != NULL)
        log_write(container->log, pump->stream, data, length);
    for (struct connection *at = monitor.connections; at != NULL; at = at->next)
        if (at->attached == container)
            tap(at, pump->stream, data, length);
}

static bool streams_open(const struct container *container)
{
    return container->out.source.fd >= 0 || container->err.source.fd >= 0;
}

static void output_ended(struct container *container, struct pump *pump)
{
    if (container->log != NULL)
        log_flush(container->log, pump->stream);
    if (streams_open(container))
        return;
    for (struct connection *at = monitor.connections; at != NULL; at = at->next)
        if (at->attached == container)
            streams_end(at);
}

static void take_out(struct pump *pump, uint8_t *data, size_t length)
{
    take_output(container_of(pump, struct container, out), pump, data, length);
}

static void take_err(struct pump *pump, uint8_t *data, size_t length)
{
    take_output(container_of(pump, struct container, err), pump, data, length);
}

static void out_ended(struct pump *pump)
{
    output_ended(container_of(pump, struct container, out), pump);
}

static void err_ended(struct pump *pump)
{
    output_ended(container_of(pump, struct container, err), pump);
}

/* --------------------------------------------------------------------------------------------- life cycle */

void container_free(struct container *container)
{
    for (struct container **at = &monitor.containers; *at != NULL; at = &(*at)->next) {
        if (*at == container) {
            *at = container->next;
            break;
        }
    }
    for (struct connection *at = monitor.connections; at != NULL; at = at->next) {
        if (at->attached == container) {
            streams_end(at);
            at->attached = NULL;
        }
    }
    process_close(&container->process);
    pump_close(&container->out);
    pump_close(&container->err);
    input_close(&container->input);
    log_close(container->log);
    free(container->oom_file);
    free(container->cgroup);
    free(container);
}

static void put_exit(struct reply *reply, const struct container *container)
{
    put_u32(reply, (uint32_t)container->process.code);
    put_u8(reply, container->oom_killed);
    put_u64(reply, (uint64_t)container->process.finished_at);
}

void container_report(struct container *container, struct connection *only)
{
    for (struct connection *at = monitor.connections; at != NULL; at = at->next) {
        if (!at->wants_events || (only != NULL && at != only))
            continue;
        struct reply event;
        reply_begin(&event, EVENT_EXIT, 0);
        put_string(&event, container->id);
        put_exit(&event, container);
        reply_send(&event, at);
    }
}

void container_state(struct reply *reply, const struct container *container)
{
    const struct process *process = &container->process;
    put_string(reply, container->id);
    put_u32(reply, (uint32_t)process->pid);
    put_u64(reply, process->start_time);
    put_u64(reply, (uint64_t)process->started_at);
    put_u64(reply, container->log == NULL ? 0 : log_dropped(container->log));
    put_u8(reply, process->phase == EXITED);
    put_exit(reply, container);
}

static void exited(struct process *process)
{
    struct container *container = container_of(process, struct container, process);
    /* What it wrote before its end belongs into the log before the end is told. Others may hold the pipe for ever. */
    pump_drain(&container->out, EXIT_DRAIN);
    pump_drain(&container->err, EXIT_DRAIN);
    container->oom_killed = oom_count(container->oom_file) > container->oom_before;
    exit_record_write(container);
    if (process->pidfd >= 0)
        close(process->pidfd);
    process->pidfd = -1;
    input_close(&container->input);
    container_report(container, NULL);
}

static int terminal_open(struct container *container, int master)
{
    int duplicate = fcntl(master, F_DUPFD_CLOEXEC, 3);
    fcntl(master, F_SETFL, fcntl(master, F_GETFL) | O_NONBLOCK);
    container->out.terminal = true;
    int error = pump_open(&container->out, master, 1);
    if (error < 0)
        close(master);
    if (duplicate >= 0 && input_open(&container->input, duplicate) < 0)
        close(duplicate);
    return error;
}

static void launched(struct process *process)
{
    struct container *container = container_of(process, struct container, process);
    if (container->terminal && process->launch.console_master >= 0)
        terminal_open(container, process->launch.console_master);
    struct reply reply;
    reply_begin(&reply, FRAME_OK | FRAME_START, process->request);
    put_u32(&reply, (uint32_t)process->pid);
    put_u64(&reply, process->start_time);
    put_u64(&reply, (uint64_t)process->started_at);
    put_launch_details(&reply, &process->launch);
    reply_send(&reply, connection_find(process->requester));
}

static void failed(struct process *process)
{
    answer_failure(process->requester, process->request, &process->launch.failure);
    container_free(container_of(process, struct container, process));
    monitor_maybe_end();
}

/* --------------------------------------------------------------------------------------------------- start */

static int open_streams(struct container *container, bool with_input, struct launch_io *io)
{
    struct process *process = &container->process;
    int ours, error = 0;
    *io = (struct launch_io){-1, -1, -1, LAUNCH_CONSOLE_NONE, 0, 0};
    if (container->terminal) {
        io->console_master = LAUNCH_CONSOLE_INSIDE;
        return 0;
    }
    if (with_input) {
        if ((error = pipe_pair(&ours, &process->child_fds[0], false)) < 0)
            return error;
        input_open(&container->input, ours);
    }
    if ((error = pipe_pair(&ours, &process->child_fds[1], true)) < 0 ||
        (error = pump_open(&container->out, ours, 1)) < 0 ||
        (error = pipe_pair(&ours, &process->child_fds[2], true)) < 0 ||
        (error = pump_open(&container->err, ours, 2)) < 0)
        return error;
    io->stdin_fd = process->child_fds[0];
    io->stdout_fd = process->child_fds[1];
    io->stderr_fd = process->child_fds[2];
    return 0;
}

static const struct process_events events = {launched, failed, exited};

static struct container *container_new(struct connection *connection, uint32_t request)
{
    struct container *container = calloc(1, sizeof *container);
    if (container == NULL)
        return NULL;
    process_init(&container->process, &events, connection->serial, request);
    container->out = (struct pump){.source.fd = -1, .take = take_out, .ended = out_ended};
    container->err = (struct pump){.source.fd = -1, .take = take_err, .ended = err_ended};
    container->input.source.fd = -1;
    return container;
}

static bool valid_id(const char *id)
{
    return id[0] != '\0' && id[0] != '.' && strchr(id, '/') == NULL;
}

/* Opens the log and the streams, begins the launch. Answers the request itself on failure. */
static bool container_begin(struct container *container, const char *log_path, uint32_t line_bytes, bool with_input)
{
    struct process *process = &container->process;
    struct launch_io io;
    int error = 0;
    if (log_path != NULL && (container->log = log_open(log_path, line_bytes, &error)) == NULL) {
        answer_error(process->requester, process->request, ERROR_SYSTEM, error, "open container log");
        return false;
    }
    if ((error = open_streams(container, with_input, &io)) < 0) {
        answer_error(process->requester, process->request, ERROR_SYSTEM, error, "open container streams");
        return false;
    }
    container->oom_before = oom_count(container->oom_file);
    if (process_begin(process, &io) < 0) {
        answer_failure(process->requester, process->request, &process->launch.failure);
        return false;
    }
    return true;
}

void request_start(struct connection *connection, uint32_t request, struct reader *reader)
{
    struct container *container = container_new(connection, request);
    size_t plan_length, frame_size;
    const uint8_t *plan = read_plan(reader, &plan_length);
    if (container == NULL) {
        answer_error(connection->serial, request, ERROR_SYSTEM, ENOMEM, "start container");
        return;
    }
    read_string(reader, container->id, sizeof container->id);
    char *log_path = read_string_copy(reader);
    uint32_t line_bytes = read_u32(reader);
    uint8_t flags = read_u8(reader);
    container->stdin_once = flags & 2;
    container->terminal = flags & 4;
    container->oom_file = read_string_copy(reader);
    container->cgroup = read_string_copy(reader);
    bool good = false;
    if (reader->bad || !valid_id(container->id)) {
        answer_error(connection->serial, request, ERROR_BAD_REQUEST, EINVAL, "malformed START");
    } else if (container_find(container->id) != NULL) {
        answer_error(connection->serial, request, ERROR_EXISTS, EEXIST, "this container was started before");
    } else {
        uint8_t *frame = connection_take_body(connection, &frame_size);
        good = process_plan(&container->process, frame, frame_size, plan, plan_length) &&
               container_begin(container, log_path, line_bytes, flags & 1);
    }
    free(log_path);
    if (!good) {
        container_free(container);
        return;
    }
    container->next = monitor.containers;
    monitor.containers = container;
}

/* -------------------------------------------------------------------------------------------------- attach */

void request_attach(struct connection *connection, uint32_t request, struct reader *reader)
{
    char id[ID_MAX + 1];
    read_string(reader, id, sizeof id);
    struct container *container = container_find(id);
    if (reader->bad || container == NULL) {
        answer_error(connection->serial, request, reader->bad ? ERROR_BAD_REQUEST : ERROR_NOT_FOUND, ENOENT, "attach");
        return;
    }
    connection->attached = container;
    connection->attach_request = request;
    struct reply reply;
    reply_begin(&reply, FRAME_OK | FRAME_ATTACH, request);
    put_u8(&reply, container->terminal);
    put_u8(&reply, container->input.source.fd >= 0);
    reply_send(&reply, connection);
    if (!streams_open(container))
        streams_end(connection);
}
