/* What each request does. Those about starting things live with containers and execs. */
#include "plan.h"
#include "protocol.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#ifndef BERTH_VERSION
#define BERTH_VERSION "0.0.0"
#endif

static void bad_request(struct connection *connection, uint32_t request)
{
    answer_error(connection->serial, request, ERROR_BAD_REQUEST, EINVAL, "malformed request");
}

static void hello(struct connection *connection, uint32_t request, struct reader *reader)
{
    char release[64];
    uint32_t version = read_u32(reader);
    read_string(reader, release, sizeof release);
    uint32_t flags = read_u32(reader);
    if (reader->bad || version < 1) {
        bad_request(connection, request);
        return;
    }
    connection->greeted = true;
    connection->wants_events = flags & 1;
    struct reply reply;
    reply_begin(&reply, FRAME_OK | FRAME_HELLO, request);
    put_u32(&reply, version < PROTOCOL_VERSION ? version : PROTOCOL_VERSION);
    put_string(&reply, BERTH_VERSION);
    put_u32(&reply, (uint32_t)getpid());
    put_u64(&reply, monitor.start_time);
    put_string(&reply, monitor.sandbox_id);
    reply_send(&reply, connection);
    for (struct container *at = monitor.containers; at != NULL; at = at->next)
        if (at->process.phase == EXITED)
            container_report(at, connection);
}

/* ---------------------------------------------------------------------------------------------------- hold */

static uint32_t pause_pid(void)
{
    return monitor.pause_used && monitor.pause_stays && monitor.pause.phase == RUNNING ? (uint32_t)monitor.pause.pid
                                                                                       : 0;
}

static void held(struct process *process)
{
    struct reply reply;
    reply_begin(&reply, FRAME_OK | FRAME_HOLD, process->request);
    put_u32(&reply, pause_pid());
    put_u64(&reply, monitor.pause_stays ? process->start_time : 0);
    put_launch_details(&reply, &process->launch);
    reply_send(&reply, connection_find(process->requester));
}

static void hold_failed(struct process *process)
{
    answer_failure(process->requester, process->request, &process->launch.failure);
    process_close(process);
    monitor.pause_used = false;
    monitor_maybe_end();
}

static void pause_ended(struct process *process)
{
    process_close(process);
}

static const struct process_events pause_events = {held, hold_failed, pause_ended};

static void hold(struct connection *connection, uint32_t request, struct reader *reader)
{
    size_t plan_length, frame_size;
    const uint8_t *plan = read_plan(reader, &plan_length);
    if (reader->bad) {
        bad_request(connection, request);
        return;
    }
    if (monitor.pause_used) {
        answer_error(connection->serial, request, ERROR_EXISTS, EEXIST, "the namespaces are held already");
        return;
    }
    struct process *process = &monitor.pause;
    process_init(process, &pause_events, connection->serial, request);
    uint8_t *frame = connection_take_body(connection, &frame_size);
    if (!process_plan(process, frame, frame_size, plan, plan_length)) {
        process_close(process);
        return;
    }
    const struct plan *decoded = &process->plan;
    monitor.pause_used = true;
    monitor.pause_stays = decoded->inner_count > 0 && plan_inner(decoded)[decoded->inner_count - 1].op == OP_PAUSE;
    struct launch_io io = {-1, -1, -1, LAUNCH_CONSOLE_NONE, 0, 0};
    if (process_begin(process, &io) < 0)
        hold_failed(process);
}

/* ---------------------------------------------------------------------------------------------- containers */

/* The container a request names; answers for one that does not exist. */
static struct container *named(struct connection *connection, uint32_t request, struct reader *reader)
{
    char id[ID_MAX + 1];
    read_string(reader, id, sizeof id);
    if (reader->bad) {
        bad_request(connection, request);
        return NULL;
    }
    struct container *container = container_find(id);
    if (container == NULL)
        answer_error(connection->serial, request, ERROR_NOT_FOUND, ENOENT, "no such container");
    return container;
}

static void signal_container(struct connection *connection, uint32_t request, struct reader *reader)
{
    struct container *container = named(connection, request, reader);
    if (container == NULL)
        return;
    uint32_t signal = read_u32(reader);
    bool all = read_u8(reader);
    int error = reader->bad || signal > 64 ? -EINVAL : container_signal(container, (int)signal, all);
    if (error < 0)
        answer_error(connection->serial, request, ERROR_SYSTEM, error, "signal container");
    else
        answer_ok(connection->serial, request, FRAME_SIGNAL);
}

static void reopen_log(struct connection *connection, uint32_t request, struct reader *reader)
{
    struct container *container = named(connection, request, reader);
    if (container == NULL)
        return;
    int error = container->log == NULL ? 0 : log_reopen(container->log);
    if (error < 0)
        answer_error(connection->serial, request, ERROR_SYSTEM, error, "reopen container log");
    else
        answer_ok(connection->serial, request, FRAME_REOPEN_LOG);
}

static void forget(struct connection *connection, uint32_t request, struct reader *reader)
{
    char id[ID_MAX + 1];
    read_string(reader, id, sizeof id);
    struct container *container = container_find(id);
    if (reader->bad || strchr(id, '/') != NULL || id[0] == '.') {
        bad_request(connection, request);
        return;
    }
    if (container != NULL && container->process.phase != EXITED) {
        answer_error(connection->serial, request, ERROR_WRONG_STATE, EBUSY, "the container is running");
        return;
    }
    if (container != NULL) {
        pump_drain(&container->out, READ_CHUNK);
        pump_drain(&container->err, READ_CHUNK);
        if (container->log != NULL) {
            log_flush(container->log, 1);
            log_flush(container->log, 2);
        }
        container_free(container);
    }
    exit_record_remove(id);
    answer_ok(connection->serial, request, FRAME_FORGET);
}

static void state(struct connection *connection, uint32_t request)
{
    uint32_t count = 0;
    for (struct container *at = monitor.containers; at != NULL; at = at->next)
        count += at->process.phase != LAUNCHING;
    struct reply reply;
    reply_begin(&reply, FRAME_OK | FRAME_STATE, request);
    put_string(&reply, BERTH_VERSION);
    put_u32(&reply, pause_pid());
    put_u32(&reply, count);
    for (struct container *at = monitor.containers; at != NULL; at = at->next)
        if (at->process.phase != LAUNCHING)
            container_state(&reply, at);
    reply_send(&reply, connection);
}

/* ------------------------------------------------------------------------------------------------- streams */

/* Target 0 is the container this connection is attached to, another number the exec of that request. */
static struct input *input_of(struct connection *connection, uint32_t target)
{
    if (target == 0)
        return connection->attached == NULL ? NULL : &connection->attached->input;
    struct exec *exec = exec_find(connection->serial, target);
    return exec == NULL ? NULL : &exec->input;
}

static void input(struct connection *connection, uint32_t request, struct reader *reader)
{
    struct input *target = input_of(connection, read_u32(reader));
    uint32_t length;
    const uint8_t *data = read_bytes(reader, &length);
    if (reader->bad) {
        bad_request(connection, request);
        return;
    }
    size_t frame_size;
    uint8_t *start = connection->body;
    uint8_t *frame = connection_take_body(connection, &frame_size);
    if (target == NULL) {
        pages_free(frame, frame_size);
        answer_error(connection->serial, request, ERROR_NOT_FOUND, ENOENT, "no such program");
    } else if (!input_give(target, frame, frame_size, (size_t)(data - start), length, connection, request)) {
        answer_error(connection->serial, request, ERROR_WRONG_STATE, EPIPE, "stdin is closed");
    }
}

static void close_input(struct connection *connection, uint32_t request, struct reader *reader)
{
    uint32_t target = read_u32(reader);
    struct input *input = input_of(connection, target);
    bool may_close = target != 0 || (connection->attached != NULL && connection->attached->stdin_once);
    if (input != NULL && may_close)
        input_close(input);
    answer_ok(connection->serial, request, FRAME_CLOSE_INPUT);
}

static void resize(struct connection *connection, uint32_t request, struct reader *reader)
{
    char id[ID_MAX + 1];
    uint32_t target = read_u32(reader);
    read_string(reader, id, sizeof id);
    struct winsize size = {0};
    size.ws_row = read_u16(reader);
    size.ws_col = read_u16(reader);
    struct exec *exec = target == 0 ? NULL : exec_find(connection->serial, target);
    struct container *container = target == 0 ? container_find(id) : NULL;
    struct pump *terminal = exec != NULL ? &exec->out : container != NULL ? &container->out : NULL;
    if (reader->bad)
        bad_request(connection, request);
    else if (terminal == NULL || terminal->source.fd < 0)
        answer_error(connection->serial, request, ERROR_NOT_FOUND, ENOENT, "no such terminal");
    else if (ioctl(terminal->source.fd, TIOCSWINSZ, &size) < 0)
        answer_error(connection->serial, request, ERROR_SYSTEM, errno, "resize terminal");
    else
        answer_ok(connection->serial, request, FRAME_RESIZE);
}

static void cancel(struct connection *connection, uint32_t request, struct reader *reader)
{
    struct exec *exec = exec_find(connection->serial, read_u32(reader));
    if (exec != NULL && exec->process.phase != EXITED)
        kill_tree(exec->process.pid, 9);
    answer_ok(connection->serial, request, FRAME_CANCEL);
}

static void netlink(struct connection *connection, uint32_t request, struct reader *reader)
{
    uint32_t count = read_u32(reader);
    struct reply reply;
    if (reader->bad) {
        bad_request(connection, request);
        return;
    }
    reply_begin(&reply, FRAME_OK | FRAME_NETLINK, request);
    put_u32(&reply, count);
    int error = netlink_exchange(reader, count, &reply);
    if (error == -ENONET) {
        reply_free(&reply);
        answer_error(connection->serial, request, ERROR_WRONG_STATE, ENOTSUP, "the pod has no network of its own");
        return;
    }
    if (error < 0) {
        reply_free(&reply);
        answer_error(connection->serial, request, ERROR_SYSTEM, error, "netlink in the pod's network namespace");
        return;
    }
    reply_send(&reply, connection);
}

void request_handle(struct connection *connection, uint16_t type, uint32_t request, struct reader *reader)
{
    if (!connection->greeted && type != FRAME_HELLO) {
        answer_error(connection->serial, request, ERROR_BAD_REQUEST, EPROTO, "HELLO comes first");
        return;
    }
    switch (type) {
    case FRAME_HELLO:
        hello(connection, request, reader);
        break;
    case FRAME_HOLD:
        hold(connection, request, reader);
        break;
    case FRAME_START:
        request_start(connection, request, reader);
        break;
    case FRAME_EXEC:
        request_exec(connection, request, reader);
        break;
    case FRAME_SIGNAL:
        signal_container(connection, request, reader);
        break;
    case FRAME_REOPEN_LOG:
        reopen_log(connection, request, reader);
        break;
    case FRAME_NETLINK:
        netlink(connection, request, reader);
        break;
    case FRAME_STATE:
        state(connection, request);
        break;
    case FRAME_FORGET:
        forget(connection, request, reader);
        break;
    case FRAME_SHUTDOWN:
        monitor_shutdown(connection->serial, request);
        break;
    case FRAME_ATTACH:
        request_attach(connection, request, reader);
        break;
    case FRAME_INPUT:
        input(connection, request, reader);
        break;
    case FRAME_CLOSE_INPUT:
        close_input(connection, request, reader);
        break;
    case FRAME_RESIZE:
        resize(connection, request, reader);
        break;
    case FRAME_CANCEL:
        cancel(connection, request, reader);
        break;
    case FRAME_DIAL:
        request_dial(connection, request, reader);
        break;
    default:
        answer_error(connection->serial, request, ERROR_BAD_REQUEST, ENOSYS, "unknown request");
    }
}
