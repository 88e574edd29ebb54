#include "protocol.h"

#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

/* ------------------------------------------------------------------------------------------------ reading */

static const uint8_t *reader_take(struct reader *reader, size_t length)
{
    if (reader->bad || (size_t)(reader->end - reader->at) < length) {
        reader->bad = true;
        return NULL;
    }
    const uint8_t *at = reader->at;
    reader->at += length;
    return at;
}

uint8_t read_u8(struct reader *reader)
{
    const uint8_t *at = reader_take(reader, 1);
    return at == NULL ? 0 : *at;
}

uint16_t read_u16(struct reader *reader)
{
    uint16_t value = 0;
    const uint8_t *at = reader_take(reader, sizeof value);
    if (at != NULL)
        memcpy(&value, at, sizeof value);
    return le16toh(value);
}

uint32_t read_u32(struct reader *reader)
{
    uint32_t value = 0;
    const uint8_t *at = reader_take(reader, sizeof value);
    if (at != NULL)
        memcpy(&value, at, sizeof value);
    return le32toh(value);
}

uint64_t read_u64(struct reader *reader)
{
    uint64_t value = 0;
    const uint8_t *at = reader_take(reader, sizeof value);
    if (at != NULL)
        memcpy(&value, at, sizeof value);
    return le64toh(value);
}

const uint8_t *read_bytes(struct reader *reader, uint32_t *length)
{
    *length = read_u32(reader);
    const uint8_t *at = reader_take(reader, *length);
    if (at == NULL)
        *length = 0;
    return at;
}

const uint8_t *read_plan(struct reader *reader, size_t *length)
{
    *length = read_u32(reader);
    read_u32(reader);
    return reader_take(reader, *length);
}

void read_string(struct reader *reader, char *out, size_t size)
{
    uint32_t length;
    const uint8_t *at = read_bytes(reader, &length);
    out[0] = '\0';
    if (at == NULL)
        return;
    if (length >= size || memchr(at, 0, length) != NULL) {
        reader->bad = true;
        return;
    }
    memcpy(out, at, length);
    out[length] = '\0';
}

char *read_string_copy(struct reader *reader)
{
    uint32_t length;
    const uint8_t *at = read_bytes(reader, &length);
    if (at == NULL || length == 0)
        return NULL;
    if (memchr(at, 0, length) != NULL) {
        reader->bad = true;
        return NULL;
    }
    char *copy = malloc((size_t)length + 1);
    if (copy == NULL) {
        reader->bad = true;
        return NULL;
    }
    memcpy(copy, at, length);
    copy[length] = '\0';
    return copy;
}

/* ------------------------------------------------------------------------------------------------ writing */

static uint8_t *reply_room(struct reply *reply, size_t length)
{
    if (reply->bad)
        return NULL;
    if (reply->capacity - reply->length < length) {
        size_t capacity = reply->capacity * 2 + length;
        uint8_t *grown = reply->data == reply->inline_data ? malloc(capacity) : realloc(reply->data, capacity);
        if (grown == NULL) {
            reply->bad = true;
            return NULL;
        }
        if (reply->data == reply->inline_data)
            memcpy(grown, reply->inline_data, reply->length);
        reply->data = grown;
        reply->capacity = capacity;
    }
    uint8_t *at = reply->data + reply->length;
    reply->length += length;
    return at;
}

void put_raw(struct reply *reply, const void *data, size_t length)
{
    uint8_t *at = reply_room(reply, length);
    if (at != NULL && length > 0)
        memcpy(at, data, length);
}

void put_u8(struct reply *reply, uint8_t value)
{
    put_raw(reply, &value, sizeof value);
}

void put_u16(struct reply *reply, uint16_t value)
{
    value = htole16(value);
    put_raw(reply, &value, sizeof value);
}

void put_u32(struct reply *reply, uint32_t value)
{
    value = htole32(value);
    put_raw(reply, &value, sizeof value);
}

void put_u64(struct reply *reply, uint64_t value)
{
    value = htole64(value);
    put_raw(reply, &value, sizeof value);
}

void put_bytes(struct reply *reply, const void *data, size_t length)
{
    put_u32(reply, (uint32_t)length);
    put_raw(reply, data, length);
}

void put_u32_at(struct reply *reply, size_t at, uint32_t value)
{
    value = htole32(value);
    if (!reply->bad)
        memcpy(reply->data + at, &value, sizeof value);
}

void put_string(struct reply *reply, const char *text)
{
    put_bytes(reply, text, strlen(text));
}

void reply_begin(struct reply *reply, uint16_t type, uint32_t request)
{
    reply->data = reply->inline_data;
    reply->capacity = sizeof reply->inline_data;
    reply->length = 0;
    reply->bad = false;
    put_u32(reply, 0);
    put_u16(reply, type);
    put_u16(reply, 0);
    put_u32(reply, request);
}

void reply_free(struct reply *reply)
{
    if (reply->data != reply->inline_data)
        free(reply->data);
    reply->data = reply->inline_data;
}

void reply_send(struct reply *reply, struct connection *connection)
{
    if (connection != NULL && reply->bad) {
        shutdown(connection->source.fd, SHUT_RDWR); /* a missing answer must not look like one that is late */
    } else if (connection != NULL) {
        uint32_t length = htole32((uint32_t)(reply->length - 4));
        memcpy(reply->data, &length, sizeof length);
        connection_send(connection, reply->data, reply->length);
    }
    reply_free(reply);
}

void answer_ok(uint64_t requester, uint32_t request, uint16_t type)
{
    struct reply reply;
    reply_begin(&reply, FRAME_OK | type, request);
    reply_send(&reply, connection_find(requester));
}

static void answer(uint64_t requester, uint32_t request, enum error_kind kind, uint32_t step, int error,
                   uint32_t detail, const char *what)
{
    struct reply reply;
    reply_begin(&reply, FRAME_ERROR, request);
    put_u32(&reply, kind);
    put_u32(&reply, step);
    put_u32(&reply, (uint32_t)error);
    put_u32(&reply, detail);
    put_string(&reply, what);
    reply_send(&reply, connection_find(requester));
}

void answer_error(uint64_t requester, uint32_t request, enum error_kind kind, int error, const char *what)
{
    answer(requester, request, kind, UINT32_MAX, error < 0 ? -error : error, 0, what);
}

void answer_failure(uint64_t requester, uint32_t request, const struct launch_failure *failure)
{
    answer(requester, request, ERROR_PLAN_FAILED, failure->step, failure->error, failure->detail, "");
}

void put_launch_details(struct reply *reply, const struct launch *launch)
{
    put_u32(reply, launch->warning_count);
    for (uint32_t i = 0; i < launch->warning_count; i++) {
        const struct launch_warning *warning = &launch->warnings[i];
        put_u32(reply, warning->step);
        put_u32(reply, warning->kind);
        put_u64(reply, (uint64_t)warning->wanted);
        put_u64(reply, (uint64_t)warning->got);
    }
    put_u32(reply, launch->step_count);
    for (uint32_t i = 0; i < launch->step_count; i++)
        put_u64(reply, launch->step_nanos[i]);
}

/* -------------------------------------------------------------------------------------------- connections */

struct connection *connection_find(uint64_t serial)
{
    for (struct connection *at = monitor.connections; at != NULL; at = at->next)
        if (at->serial == serial)
            return at;
    return NULL;
}

static void connection_watch(struct connection *connection)
{
    uint32_t events = connection->input_stalled ? 0 : EPOLLIN;
    if (connection->out_length > 0)
        events |= EPOLLOUT;
    source_events(&connection->source, events);
}

void connection_stall(struct connection *connection, bool stalled)
{
    connection->input_stalled = stalled;
    connection_watch(connection);
}

static void drop_body(struct connection *connection)
{
    pages_free(connection->body, connection->body_length);
    connection->body = NULL;
    connection->body_length = 0;
}

void connection_close(struct connection *connection)
{
    if (connection->source.fd < 0)
        return;
    source_close(&connection->source);
    for (struct connection **at = &monitor.connections; *at != NULL; at = &(*at)->next) {
        if (*at == connection) {
            *at = connection->next;
            break;
        }
    }
    uint64_t serial = connection->serial;
    drop_body(connection);
    free(connection->out);
    free(connection);
    execs_resume(serial);
}

size_t connection_backlog(const struct connection *connection)
{
    return connection->out_length;
}

static bool connection_keep(struct connection *connection, const uint8_t *data, size_t length)
{
    if (connection->out_offset > 0 &&
        connection->out_offset + connection->out_length + length > connection->out_capacity) {
        memmove(connection->out, connection->out + connection->out_offset, connection->out_length);
        connection->out_offset = 0;
    }
    size_t needed = connection->out_offset + connection->out_length + length;
    if (needed > connection->out_capacity) {
        size_t capacity = needed + needed / 2;
        uint8_t *grown = realloc(connection->out, capacity);
        if (grown == NULL)
            return false;
        connection->out = grown;
        connection->out_capacity = capacity;
    }
    memcpy(connection->out + connection->out_offset + connection->out_length, data, length);
    connection->out_length += length;
    connection_watch(connection);
    return true;
}

bool connection_send(struct connection *connection, const uint8_t *data, size_t length)
{
    if (connection->out_length == 0) {
        ssize_t sent = send(connection->source.fd, data, length, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0 && errno != EAGAIN) {
            /* Closed by the loop when it sees the hang-up: our caller may still be using the connection. */
            shutdown(connection->source.fd, SHUT_RDWR);
            return false;
        }
        if (sent > 0) {
            data += sent;
            length -= (size_t)sent;
        }
    }
    if (length == 0 || connection_keep(connection, data, length))
        return true;
    shutdown(connection->source.fd, SHUT_RDWR);
    return false;
}

/* False: the connection is gone. */
static bool connection_flush(struct connection *connection)
{
    ssize_t sent = send(connection->source.fd, connection->out + connection->out_offset, connection->out_length,
                        MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent < 0 && errno != EAGAIN) {
        connection_close(connection);
        return false;
    }
    if (sent > 0) {
        connection->out_offset += (size_t)sent;
        connection->out_length -= (size_t)sent;
    }
    if (connection->out_length == 0) {
        free(connection->out);
        connection->out = NULL;
        connection->out_offset = connection->out_capacity = 0;
        connection_watch(connection);
        execs_resume(connection->serial);
    }
    return true;
}

uint8_t *connection_take_body(struct connection *connection, size_t *size)
{
    uint8_t *body = connection->body;
    *size = connection->body_length;
    connection->body = NULL;
    connection->body_length = 0;
    return body;
}

static uint32_t header_u32(const struct connection *connection, size_t at)
{
    uint32_t value;
    memcpy(&value, connection->header + at, sizeof value);
    return le32toh(value);
}

/* Reads more of the current frame. 1: it is whole, 0: more is to come, -1: the connection must be closed. */
static int connection_fill(struct connection *connection)
{
    bool in_header = connection->have < FRAME_HEADER;
    uint8_t *into =
        in_header ? connection->header + connection->have : connection->body + (connection->have - FRAME_HEADER);
    size_t wanted =
        in_header ? FRAME_HEADER - connection->have : connection->body_length - (connection->have - FRAME_HEADER);
    ssize_t got = recv(connection->source.fd, into, wanted, MSG_DONTWAIT);
    if (got < 0)
        return errno == EAGAIN ? 0 : -1;
    if (got == 0)
        return -1;
    connection->have += (size_t)got;
    if (in_header && connection->have == FRAME_HEADER) {
        uint32_t length = header_u32(connection, 0);
        if (length < FRAME_HEADER - 4 || length > FRAME_MAX)
            return -1;
        connection->body_length = length - (FRAME_HEADER - 4);
        if (connection->body_length > 0) {
            connection->body = pages_alloc(connection->body_length);
            if (connection->body == NULL)
                return -1;
            return connection_fill(connection); /* it mostly came in one piece */
        }
    }
    return connection->have == FRAME_HEADER + connection->body_length ? 1 : 0;
}

static void connection_ready(struct source *source, uint32_t events)
{
    struct connection *connection = container_of(source, struct connection, source);
    if ((events & EPOLLOUT) && !connection_flush(connection))
        return;
    if (!(events & (EPOLLIN | EPOLLHUP | EPOLLERR)))
        return;
    if (connection->input_stalled) {
        if (events & EPOLLERR)
            connection_close(connection);
        return;
    }
    int filled = connection_fill(connection);
    if (filled < 0) {
        connection_close(connection);
        return;
    }
    if (filled == 0)
        return;
    uint64_t serial = connection->serial;
    connection->have = 0;
    struct reader reader = {connection->body, connection->body + connection->body_length, false};
    request_handle(connection, (uint16_t)(header_u32(connection, 4) & 0xffff), header_u32(connection, 8), &reader);
    if (connection_find(serial) == connection)
        drop_body(connection);
}

void connection_accept(struct source *listener, uint32_t events)
{
    (void)events;
    int fd = accept4(listener->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0)
        return;
    struct ucred peer;
    socklen_t length = sizeof peer;
    struct connection *connection = NULL;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) == 0 && (peer.uid == 0 || peer.uid == geteuid()))
        connection = calloc(1, sizeof *connection);
    if (connection == NULL || source_add(&connection->source, fd, EPOLLIN, connection_ready) < 0) {
        free(connection);
        close(fd);
        return;
    }
    connection->serial = ++monitor.next_serial;
    connection->next = monitor.connections;
    monitor.connections = connection;
}
