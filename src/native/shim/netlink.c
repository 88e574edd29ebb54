/*
 * Netlink messages for the pod's network namespace. The agent encodes and decodes them; here they are only sent from
 * the right place: a socket belongs for ever to the namespace it was made in, so one visit makes it.
 */
#include "protocol.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <sched.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define ANSWER_MAX 65536

/* Where nobody could come back: a child that shares our descriptors puts it in the place of one of them. */
static int socket_by_child(int namespace, int family, int type, int protocol)
{
    int place = fcntl(namespace, F_DUPFD_CLOEXEC, 3), status = 0;
    pid_t child = place < 0 ? -1 : (pid_t)syscall(SYS_clone, CLONE_FILES | SIGCHLD, 0, 0, 0, 0);
    if (child == 0) {
        int fd = setns(namespace, CLONE_NEWNET) < 0 ? -1 : socket(family, type, protocol);
        if (fd < 0 || dup3(fd, place, O_CLOEXEC) < 0)
            _exit(errno);
        close(fd);
        _exit(0);
    }
    int error = child < 0 ? errno : 0;
    while (child > 0 && waitpid(child, &status, __WALL) < 0 && errno == EINTR)
        ;
    if (error == 0 && status != 0)
        error = WIFEXITED(status) ? WEXITSTATUS(status) : ECHILD;
    if (error != 0 && place >= 0)
        close(place);
    return error != 0 ? -error : place;
}

int pod_socket(int family, int type, int protocol)
{
    int namespace = monitor.held.held[NAMESPACE_NET];
    type |= SOCK_CLOEXEC | SOCK_NONBLOCK;
    if (namespace < 0) {
        int outside = socket(family, type, protocol);
        return outside < 0 ? -errno : outside;
    }
    if (monitor.held.one_way)
        return socket_by_child(namespace, family, type, protocol);
    int own = openat(monitor.held.proc, "thread-self/ns/net", O_RDONLY | O_CLOEXEC);
    if (own < 0)
        return -errno;
    int fd = -EPERM;
    if (setns(namespace, CLONE_NEWNET) < 0) {
        fd = -errno;
    } else {
        fd = socket(family, type, protocol);
        fd = fd < 0 ? -errno : fd;
        if (setns(own, CLONE_NEWNET) < 0)
            _exit(70); /* a shim in its pod's network would be a hole; the agent sees it gone */
    }
    close(own);
    return fd;
}

/* Everything the kernel has to say: it answers within the send, and each receive brings the next part of a dump. */
static int receive_all(int fd, struct reply *reply, uint8_t *buffer)
{
    size_t mark = reply->length;
    put_u32(reply, 0);
    for (;;) {
        ssize_t length = recv(fd, buffer, ANSWER_MAX, MSG_DONTWAIT);
        if (length < 0 && errno == EINTR)
            continue;
        if (length < 0 && errno != EAGAIN)
            return -errno;
        if (length <= 0)
            break;
        put_raw(reply, buffer, (size_t)length);
    }
    put_u32_at(reply, mark, (uint32_t)(reply->length - mark - 4));
    return 0;
}

static int exchange(int fd, struct reader *messages, uint32_t count, struct reply *reply, uint8_t *buffer)
{
    for (uint32_t i = 0; i < count; i++) {
        uint32_t length;
        const uint8_t *message = read_bytes(messages, &length);
        if (messages->bad)
            return -EINVAL;
        struct sockaddr_nl kernel = {.nl_family = AF_NETLINK};
        if (sendto(fd, message, length, 0, (struct sockaddr *)&kernel, sizeof kernel) < 0)
            return -errno;
        int error = receive_all(fd, reply, buffer);
        if (error < 0)
            return error;
    }
    return 0;
}

int netlink_exchange(struct reader *messages, uint32_t count, struct reply *reply)
{
    if (monitor.held.held[NAMESPACE_NET] < 0)
        return -ENONET; /* the pod uses the host's network: that is the agent's to change */
    if (monitor.netlink_fd < 0) {
        monitor.netlink_fd = pod_socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE);
        if (monitor.netlink_fd < 0)
            return monitor.netlink_fd;
    }
    uint8_t *buffer = pages_alloc(ANSWER_MAX);
    if (buffer == NULL)
        return -ENOMEM;
    int error = exchange(monitor.netlink_fd, messages, count, reply, buffer);
    pages_free(buffer, ANSWER_MAX);
    return error;
}
