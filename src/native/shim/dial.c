/*
 * Connections into the pod's network, for port-forward. The agent's connection becomes the connection itself: after
 * the answer to DIAL it carries bytes, both ways, and each side's end of sending is passed on.
 */
#include "protocol.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define RELAY_BYTES 65536 /* in flight each way */
#define RELAY_TURN  16    /* buffers moved before others get their turn */

enum side_name { AGENT, POD };

struct side {
    struct source source;
    uint8_t *buffer; /* bytes from this side, on their way to the other */
    size_t start, length;
    bool ended;  /* sends no more */
    bool passed; /* and the other side knows */
    bool hung_up;
};

struct relay {
    struct side sides[2];
    uint64_t requester;
    uint32_t request;
    uint16_t port;
    bool tried_v6;
    int first_error;
};

static void relay_free(struct relay *relay)
{
    for (int i = 0; i < 2; i++) {
        source_close(&relay->sides[i].source);
        pages_free(relay->sides[i].buffer, RELAY_BYTES);
    }
    free(relay);
}

/* ------------------------------------------------------------------------------------------------- the bytes */

/* 1: more may be there, 0: one of the two has to wait, -1: a connection broke. */
static int move_once(struct side *from, struct side *to)
{
    if (from->length == 0 && !from->ended) {
        ssize_t got = recv(from->source.fd, from->buffer, RELAY_BYTES, MSG_DONTWAIT);
        if (got < 0)
            return errno == EAGAIN ? 0 : -1;
        from->ended = got == 0;
        from->start = 0;
        from->length = (size_t)got;
    }
    if (from->length > 0) {
        ssize_t sent = send(to->source.fd, from->buffer + from->start, from->length, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0)
            return errno == EAGAIN ? 0 : -1;
        from->start += (size_t)sent;
        from->length -= (size_t)sent;
        return from->length == 0;
    }
    if (!from->passed) {
        from->passed = true;
        shutdown(to->source.fd, SHUT_WR);
    }
    return 0;
}

static bool over(const struct side *side)
{
    return side->ended && side->length == 0 && side->hung_up;
}

/* Events come once for each change, so both ways are worked off; what is left after a turn is asked for again. */
static void relay_run(struct relay *relay)
{
    struct side *agent = &relay->sides[AGENT], *pod = &relay->sides[POD];
    int up = 1, down = 1;
    for (int turn = 0; turn < RELAY_TURN && (up == 1 || down == 1); turn++) {
        up = move_once(agent, pod);
        down = move_once(pod, agent);
        if (up < 0 || down < 0) {
            relay_free(relay);
            return;
        }
    }
    if ((agent->passed && pod->passed) || over(agent) || over(pod)) {
        relay_free(relay);
        return;
    }
    if (up == 1 || down == 1) {
        uint32_t events = agent->source.events;
        source_events(&agent->source, 0);
        source_events(&agent->source, events);
    }
}

static void agent_ready(struct source *source, uint32_t events)
{
    struct relay *relay = container_of(source, struct relay, sides[AGENT].source);
    relay->sides[AGENT].hung_up |= (events & (EPOLLHUP | EPOLLERR)) != 0;
    relay_run(relay);
}

static void pod_ready(struct source *source, uint32_t events)
{
    struct relay *relay = container_of(source, struct relay, sides[POD].source);
    relay->sides[POD].hung_up |= (events & (EPOLLHUP | EPOLLERR)) != 0;
    relay_run(relay);
}

/* --------------------------------------------------------------------------------------------------- the call */

static void refuse(struct relay *relay, int error)
{
    answer_error(relay->requester, relay->request, ERROR_SYSTEM, error, "connect to the port");
    relay_free(relay);
}

/* From here on the agent's descriptor is the relay's. */
static void relay_begin(struct relay *relay)
{
    struct connection *connection = connection_find(relay->requester);
    struct side *agent = &relay->sides[AGENT], *pod = &relay->sides[POD];
    const uint32_t events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET;
    if (connection == NULL || connection->source.fd < 0) {
        relay_free(relay);
        return;
    }
    agent->buffer = pages_alloc(RELAY_BYTES);
    pod->buffer = pages_alloc(RELAY_BYTES);
    int fd = fcntl(connection->source.fd, F_DUPFD_CLOEXEC, 3);
    if (agent->buffer == NULL || pod->buffer == NULL || fd < 0) {
        if (fd >= 0)
            close(fd);
        refuse(relay, ENOMEM);
        return;
    }
    answer_ok(relay->requester, relay->request, FRAME_DIAL);
    bool told = connection_backlog(connection) == 0;
    connection_close(connection);
    int socket = pod->source.fd;
    source_events(&pod->source, 0);
    if (!told || source_add(&pod->source, socket, events, pod_ready) < 0) {
        close(socket);
        pod->source.fd = -1;
        close(fd);
        relay_free(relay);
    } else if (source_add(&agent->source, fd, events, agent_ready) < 0) {
        close(fd);
        relay_free(relay);
    }
}

static void connected(struct source *source, uint32_t events);

/* Begins a connection to the pod's own address; 0 or a negative errno. */
static int dial(struct relay *relay, int family)
{
    struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons(relay->port)};
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = htons(relay->port)};
    v4.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    v6.sin6_addr = in6addr_loopback;
    const struct sockaddr *address = family == AF_INET ? (struct sockaddr *)&v4 : (struct sockaddr *)&v6;
    int fd = pod_socket(family, SOCK_STREAM, 0);
    if (fd < 0)
        return fd;
    if (connect(fd, address, family == AF_INET ? sizeof v4 : sizeof v6) < 0 && errno != EINPROGRESS) {
        int error = -errno;
        close(fd);
        return error;
    }
    int error = source_add(&relay->sides[POD].source, fd, EPOLLOUT, connected);
    if (error < 0)
        close(fd);
    return error;
}

static void dial_next(struct relay *relay, int error)
{
    if (relay->first_error == 0)
        relay->first_error = error;
    if (relay->tried_v6) {
        refuse(relay, relay->first_error);
        return;
    }
    relay->tried_v6 = true;
    if (dial(relay, AF_INET6) < 0)
        refuse(relay, relay->first_error);
}

static void connected(struct source *source, uint32_t events)
{
    (void)events;
    struct relay *relay = container_of(source, struct relay, sides[POD].source);
    int error = 0;
    socklen_t length = sizeof error;
    if (getsockopt(source->fd, SOL_SOCKET, SO_ERROR, &error, &length) < 0)
        error = errno;
    if (error == 0) {
        relay_begin(relay);
        return;
    }
    source_close(source);
    dial_next(relay, error);
}

void request_dial(struct connection *connection, uint32_t request, struct reader *reader)
{
    uint16_t port = read_u16(reader);
    struct relay *relay = calloc(1, sizeof *relay);
    if (reader->bad || port == 0 || relay == NULL) {
        free(relay);
        answer_error(connection->serial, request, ERROR_BAD_REQUEST, EINVAL, "malformed DIAL");
        return;
    }
    relay->sides[AGENT].source.fd = relay->sides[POD].source.fd = -1;
    relay->requester = connection->serial;
    relay->request = request;
    relay->port = port;
    int error = dial(relay, AF_INET);
    if (error < 0)
        dial_next(relay, -error);
}
