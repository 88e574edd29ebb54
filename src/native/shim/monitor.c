#include "monitor.h"
#include "protocol.h"
#include "sys.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define BACKLOG         512 /* port-forward opens many connections at once; a full one is an error at the agent */
#define SECOND          1000000000ll
#define END_PATIENCE_NS (10 * SECOND)

struct monitor monitor;
uint8_t *scratch;

/* ------------------------------------------------------------------------------------------------ sources */

int source_add(struct source *source, int fd, uint32_t events, void (*ready)(struct source *, uint32_t))
{
    struct epoll_event event = {.events = events, .data.ptr = source};
    source->ready = ready;
    if (events != 0 && epoll_ctl(monitor.epoll, EPOLL_CTL_ADD, fd, &event) < 0) {
        source->fd = -1;
        return -errno;
    }
    source->fd = fd;
    source->events = events;
    return 0;
}

/* No events means out of the set: a hang-up would be told again and again otherwise. */
void source_events(struct source *source, uint32_t events)
{
    if (source->fd < 0 || source->events == events)
        return;
    struct epoll_event event = {.events = events, .data.ptr = source};
    int how = events == 0 ? EPOLL_CTL_DEL : source->events == 0 ? EPOLL_CTL_ADD : EPOLL_CTL_MOD;
    if (epoll_ctl(monitor.epoll, how, source->fd, &event) == 0)
        source->events = events;
}

void source_close(struct source *source)
{
    if (source->fd < 0)
        return;
    source_events(source, 0);
    close(source->fd);
    source->fd = -1;
}

/* -------------------------------------------------------------------------------------------- small things */

static int64_t now(clockid_t clock)
{
    struct timespec time;
    clock_gettime(clock, &time);
    return time.tv_sec * SECOND + time.tv_nsec;
}

int64_t now_monotonic(void)
{
    return now(CLOCK_MONOTONIC);
}

int64_t now_realtime(void)
{
    return now(CLOCK_REALTIME);
}

void *pages_alloc(size_t size)
{
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return memory == MAP_FAILED ? NULL : memory;
}

void pages_free(void *memory, size_t size)
{
    if (memory != NULL && size > 0)
        munmap(memory, size);
}

uint64_t process_start_time(pid_t pid)
{
    char path[32], text[1024];
    snprintf(path, sizeof path, "%d/stat", (int)pid);
    int fd = openat(monitor.held.proc, path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    ssize_t length = read(fd, text, sizeof text - 1);
    close(fd);
    if (length <= 0)
        return 0;
    text[length] = '\0';
    char *at = strrchr(text, ')'); /* the name in field 2 may hold anything */
    for (int field = 2; at != NULL && field < 22; field++)
        at = strchr(at + 1, ' ');
    return at == NULL ? 0 : strtoull(at + 1, NULL, 10);
}

/* ------------------------------------------------------------------------------------------------- the end */

void monitor_shutdown(uint64_t requester, uint32_t request)
{
    monitor.ending = true;
    monitor.end_by = now_monotonic() + END_PATIENCE_NS;
    monitor.end_requester = requester;
    monitor.end_request = request;
    for (struct exec *at = monitor.execs; at != NULL; at = at->next)
        process_kill(&at->process, SIGKILL);
    for (struct container *at = monitor.containers; at != NULL; at = at->next) {
        process_kill(&at->process, SIGKILL);
        if (at->cgroup != NULL)
            kill_cgroup(at->cgroup, SIGKILL);
    }
    if (monitor.pause_used)
        process_kill(&monitor.pause, SIGKILL);
    monitor_maybe_end();
}

static bool something_lives(void)
{
    if (monitor.pause_used && monitor.pause.phase != EXITED)
        return true;
    for (struct container *at = monitor.containers; at != NULL; at = at->next)
        if (at->process.phase != EXITED)
            return true;
    return monitor.execs != NULL;
}

void monitor_maybe_end(void)
{
    if (!monitor.ending || (something_lives() && now_monotonic() < monitor.end_by))
        return;
    unlink(monitor.socket_path); /* before the answer: whoever hears it may start another shim here */
    answer_ok(monitor.end_requester, monitor.end_request, FRAME_SHUTDOWN);
    monitor.done = true;
}

/* ------------------------------------------------------------------------------------------------ the loop */

static void signals_ready(struct source *source, uint32_t events)
{
    (void)events;
    struct signalfd_siginfo info;
    while (read(source->fd, &info, sizeof info) == sizeof info) {
        /* Only children matter; SIGTERM and its like are for the agent, pods outlive them. */
    }
    process_reap();
    monitor_maybe_end();
}

static int signals_open(void)
{
    sigset_t all;
    sigfillset(&all); /* blocked and not ignored: an ignored signal would stay ignored in containers */
    sigprocmask(SIG_SETMASK, &all, NULL);
    int fd = signalfd(-1, &all, SFD_CLOEXEC | SFD_NONBLOCK);
    return fd < 0 ? -errno : source_add(&monitor.signals, fd, EPOLLIN, signals_ready);
}

static int listener_open(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof address.sun_path)
        return -ENAMETOOLONG;
    strcpy(address.sun_path, path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -errno;
    unlink(path);
    mode_t before = umask(0177);
    int bound = bind(fd, (struct sockaddr *)&address, sizeof address);
    umask(before);
    if (bound < 0 || listen(fd, BACKLOG) < 0) {
        int error = -errno;
        close(fd);
        return error;
    }
    return source_add(&monitor.listener, fd, EPOLLIN, connection_accept);
}

static int directories_open(const char *dir)
{
    monitor.pod_dir = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (monitor.pod_dir < 0)
        return -errno;
    if (mkdirat(monitor.pod_dir, "exits", 0700) < 0 && errno != EEXIST)
        return -errno;
    monitor.exits_dir = openat(monitor.pod_dir, "exits", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    return monitor.exits_dir < 0 ? -errno : 0;
}

int monitor_open(const char *socket_path, const char *dir, const char *sandbox_id)
{
    monitor.netlink_fd = -1;
    scratch = pages_alloc(SCRATCH_SIZE);
    monitor.socket_path = strdup(socket_path);
    monitor.sandbox_id = strdup(sandbox_id);
    if (scratch == NULL || monitor.socket_path == NULL || monitor.sandbox_id == NULL)
        return -ENOMEM;
    monitor.epoll = epoll_create1(EPOLL_CLOEXEC);
    if (monitor.epoll < 0)
        return -errno;
    int error = launch_init(&monitor.held);
    if (error < 0)
        return error;
    monitor.held.container_pidfd = container_pidfd;
    monitor.start_time = process_start_time(getpid());
    if ((error = directories_open(dir)) < 0 || (error = signals_open()) < 0)
        return error;
    return listener_open(socket_path);
}

/* Milliseconds until something is due, -1 for never. */
static int patience(void)
{
    int64_t due = execs_deadline();
    if (monitor.ending && (due == 0 || monitor.end_by < due))
        due = monitor.end_by;
    if (due == 0)
        return monitor.scratch_used ? 1000 : -1;
    int64_t left = due - now_monotonic();
    if (left <= 0)
        return 0;
    left = (left + 999999) / 1000000;
    return left > 3600000 ? 3600000 : (int)left;
}

int monitor_run(void)
{
    while (!monitor.done) {
        struct epoll_event event;
        int count = epoll_wait(monitor.epoll, &event, 1, patience());
        if (count < 0)
            perror("epoll");
        if (count < 0 && errno != EINTR)
            return -errno;
        if (count == 1) {
            struct source *source = event.data.ptr;
            source->ready(source, event.events);
        } else if (count == 0 && monitor.scratch_used) {
            madvise(scratch, SCRATCH_SIZE, MADV_DONTNEED); /* idle: a pod costs what it must and no more */
            monitor.scratch_used = false;
        }
        execs_expire(now_monotonic());
        if (monitor.ending)
            monitor_maybe_end();
    }
    return 0;
}
