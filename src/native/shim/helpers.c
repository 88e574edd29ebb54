/* Small things the parts of the executor share. */
#include "execute.h"

#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>

uint64_t now_nanos(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

void warn(struct execution *e, enum launch_warning_kind kind, int64_t wanted, int64_t got)
{
    if (e->report->warning_count < LAUNCH_MAX_WARNINGS)
        e->report->warnings[e->report->warning_count++] =
            (struct launch_warning){.step = e->step, .kind = kind, .wanted = wanted, .got = got};
}

int append(char *out, size_t size, const char *part)
{
    size_t used = strlen(out), length = strlen(part);
    if (used + length >= size)
        return -ENAMETOOLONG;
    memcpy(out + used, part, length + 1);
    return 0;
}

size_t format_number(char *out, int64_t value)
{
    char digits[24];
    size_t count = 0, length = 0;
    uint64_t rest = value < 0 ? -(uint64_t)value : (uint64_t)value;
    do
        digits[count++] = (char)('0' + rest % 10);
    while (rest /= 10);
    if (value < 0)
        out[length++] = '-';
    while (count)
        out[length++] = digits[--count];
    out[length] = 0;
    return length;
}

int write_proc(struct execution *e, const char *path, const char *value, size_t length)
{
    int fd = sys_open(e->held->proc, path, O_WRONLY, 0, RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV);
    if (fd < 0)
        return fd;
    ssize_t written = write(fd, value, length);
    int result = written < 0 ? -errno : (size_t)written == length ? 0 : -EIO;
    close(fd);
    return result;
}

void reap(int pidfd)
{
    int result;
    do
        result =
            sys(syscall(SYS_waitid, 3 /* P_PIDFD */, pidfd, NULL, 4 /* WEXITED */ | 0x40000000 /* __WALL */, NULL));
    while (result == -EINTR);
}

int send_fd(int socket, int fd)
{
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(sizeof fd)];
    } control = {0};
    char byte = 'f';
    struct iovec data = {.iov_base = &byte, .iov_len = 1};
    struct msghdr message = {
        .msg_iov = &data, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    control.header.cmsg_level = SOL_SOCKET;
    control.header.cmsg_type = SCM_RIGHTS;
    control.header.cmsg_len = CMSG_LEN(sizeof fd);
    memcpy(CMSG_DATA(&control.header), &fd, sizeof fd);
    return sys(sendmsg(socket, &message, MSG_NOSIGNAL));
}

int receive_fd(int socket, int flags)
{
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(sizeof(int))];
    } control = {0};
    char byte;
    struct iovec data = {.iov_base = &byte, .iov_len = 1};
    struct msghdr message = {
        .msg_iov = &data, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    ssize_t got;
    do
        got = recvmsg(socket, &message, flags | MSG_CMSG_CLOEXEC);
    while (got < 0 && errno == EINTR);
    if (got <= 0)
        return got < 0 ? -errno : -EPIPE;
    const struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    int fd = -EBADMSG;
    if (header && header->cmsg_type == SCM_RIGHTS && header->cmsg_len == CMSG_LEN(sizeof fd))
        memcpy(&fd, CMSG_DATA(header), sizeof fd);
    return fd;
}

static _Noreturn void helper_main(struct execution *e, int socket, int result)
{
    if (result >= 0)
        result = send_fd(socket, result);
    e->report->helper_result = result;
    e->report->helper_detail = e->detail;
    _exit(0);
}

int run_helper(struct execution *e, int (*work)(struct execution *, const struct plan_step *, void *),
               const struct plan_step *step, void *argument)
{
    int ends[2], pidfd = -1;
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0)
        return -errno;
    struct clone_args args = {.flags = CLONE_VFORK | CLONE_PIDFD | CLONE_CLEAR_SIGHAND, .pidfd = (uintptr_t)&pidfd};
    e->report->helper_result = -ECHILD;
    int pid = sys_clone3(&args), result = pid;
    if (pid == 0) {
        guard_child();
        helper_main(e, ends[1], work(e, step, argument));
    }
    if (pid > 0) {
        reap(pidfd);
        close(pidfd);
        result = e->report->helper_result;
        e->detail = result < 0 ? e->report->helper_detail : e->detail;
    }
    if (result >= 0)
        result = receive_fd(ends[0], MSG_DONTWAIT);
    close(ends[0]);
    close(ends[1]);
    return result;
}

/* Credentials that change clear the parent-death signal and may make the process dumpable again. */
int guard_child(void)
{
    int result = sys(prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0));
    return result < 0 ? result : sys(prctl(PR_SET_DUMPABLE, 0, 0, 0, 0));
}
