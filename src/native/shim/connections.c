/* Connections of agents: frames in, frames out, never waiting for either. */
#include "protocol.h"

#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

struct connection *connection_find(uint64_t serial)
{
    for (struct connection *at = monitor.connections; at != NULL; at = at->next)
        if (at->serial == serial)
            return at;
    return NULL;
}

static void connection_watch(struct connection *connection)
{
    uint32_t events = connection->held ? EPOLLRDHUP : EPOLLIN;
    /* A held frame that may go on is handled by the loop: whoever freed its way may be in the middle of something. */
    if (connection->out_length > 0 || (connection->held && !connection->input_waits))
        events |= EPOLLOUT;
    source_events(&connection->source, events);
}

void connection_input_waits(struct connection *connection, bool waits)
{
    connection->input_waits = waits;
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

static uint16_t frame_type(const struct connection *connection)
{
    return (uint16_t)(header_u32(connection, 4) & 0xffff);
}

static void connection_handle(struct connection *connection)
{
    uint64_t serial = connection->serial;
    connection->have = 0;
    struct reader reader = {connection->body, connection->body + connection->body_length, false};
    request_handle(connection, frame_type(connection), header_u32(connection, 8), &reader);
    if (connection_find(serial) == connection)
        drop_body(connection);
}

static void connection_ready(struct source *source, uint32_t events)
{
    struct connection *connection = container_of(source, struct connection, source);
    if ((events & EPOLLOUT) && connection->out_length > 0 && !connection_flush(connection))
        return;
    if (connection->held) {
        if (events & (EPOLLHUP | EPOLLERR)) {
            connection_close(connection);
        } else if (!connection->input_waits) {
            connection->held = false;
            connection_watch(connection);
            connection_handle(connection);
        }
        return;
    }
    if (!(events & (EPOLLIN | EPOLLHUP | EPOLLERR)))
        return;
    int filled = connection_fill(connection);
    if (filled < 0) {
        connection_close(connection);
        return;
    }
    if (filled == 0)
        return;
    uint16_t type = frame_type(connection);
    if (connection->input_waits && (type == FRAME_INPUT || type == FRAME_CLOSE_INPUT)) {
        connection->held = true;
        connection_watch(connection);
        return;
    }
    connection_handle(connection);
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
