/*
 * berth-shim: parses its arguments, leaves its parent, waits until it is told which pod is its own, and becomes that
 * pod's monitor. Agents keep one or two waiting: entering cgroups costs up to 15 ms on cgroup v1, which no pod's start
 * should have to wait for.
 */
#include "monitor.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef BERTH_VERSION
#define BERTH_VERSION "0.0.0"
#endif

/* The parent's end of the agreement: it reads one message from here, or the end of file when we died. */
#define READY_FD 3
/* "socket\0dir\0sandbox\0" comes from here in one piece; the end without it means that nobody needs us. */
#define ASSIGN_FD   4
#define ASSIGN_SIZE 1024
#define OOM_SCORE   "-998"
#define MAX_CGROUPS 16

struct options {
    const char *cgroups[MAX_CGROUPS]; /* cgroup.procs files to write ourselves into */
    int cgroup_count;
};

/* "E" errno text, or "R" pid start time. */
static void tell_failure(const char *what, int error)
{
    uint8_t message[256] = {'E'};
    uint32_t number = (uint32_t)-error;
    size_t length = strnlen(what, sizeof message - 5);
    memcpy(message + 1, &number, 4);
    memcpy(message + 5, what, length);
    if (write(READY_FD, message, 5 + length) < 0)
        _exit(71);
    _exit(70);
}

static void tell_ready(void)
{
    uint8_t message[13] = {'R'};
    uint32_t pid = (uint32_t)getpid();
    memcpy(message + 1, &pid, 4);
    memcpy(message + 5, &monitor.start_time, 8);
    if (write(READY_FD, message, sizeof message) < 0)
        _exit(71); /* nobody waits for us any more */
    close(READY_FD);
}

static bool parse(int argc, char **argv, struct options *options)
{
    for (int i = 1; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "--cgroup") == 0 && options->cgroup_count < MAX_CGROUPS)
            options->cgroups[options->cgroup_count++] = argv[i + 1];
        else if (strcmp(argv[i], "--waiting") != 0)
            return false;
    }
    return argc % 2 == 1;
}

struct assignment {
    char text[ASSIGN_SIZE];
    const char *socket, *dir, *sandbox;
};

/* Blocks until the agent says which pod it is, or goes away. */
static void await_assignment(struct assignment *assignment)
{
    ssize_t length;
    do
        length = read(ASSIGN_FD, assignment->text, sizeof assignment->text - 1);
    while (length < 0 && errno == EINTR);
    if (length <= 0)
        _exit(0);
    close(ASSIGN_FD);
    assignment->text[length] = 0;
    const char *end = assignment->text + length;
    assignment->socket = assignment->text;
    assignment->dir = assignment->socket + strlen(assignment->socket) + 1;
    if (assignment->dir >= end)
        tell_failure("assignment", -EINVAL);
    assignment->sandbox = assignment->dir + strlen(assignment->dir) + 1;
    if (assignment->sandbox >= end)
        tell_failure("assignment", -EINVAL);
}

/* People and `berth doctor` find out whose shim it is by its command line: it is written over the arguments. */
static void show_assignment(int argc, char **argv, const struct assignment *assignment)
{
    size_t room = (size_t)(argv[argc - 1] + strlen(argv[argc - 1]) - argv[0]);
    const char *words[] = {"berth-shim", "--sandbox", assignment->sandbox, "--dir", assignment->dir};
    size_t used = 0;
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        size_t length = strlen(words[i]) + 1;
        if (used + length > room)
            break;
        memcpy(argv[0] + used, words[i], length);
        used += length;
    }
    memset(argv[0] + used, 0, room - used);
}

static int write_file(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    int error = write(fd, text, strlen(text)) < 0 ? -errno : 0;
    close(fd);
    return error;
}

static void join_cgroups(const struct options *options)
{
    for (int i = 0; i < options->cgroup_count; i++) {
        int error = write_file(options->cgroups[i], "0");
        if (error < 0)
            tell_failure(options->cgroups[i], error);
    }
}

static void settle(const struct options *options)
{
    umask(0022);
    if (chdir("/") < 0)
        tell_failure("chdir /", -errno);
    join_cgroups(options);
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    prctl(PR_SET_NAME, "berth-shim");
    write_file("/proc/self/oom_score_adj", OOM_SCORE); /* refused without CAP_SYS_RESOURCE: we stay as we were */
}

int main(int argc, char **argv)
{
    struct options options = {0};
    if (argc == 2 && strcmp(argv[1], "--version") == 0)
        return puts("berth-shim " BERTH_VERSION) == EOF;
    if (argc == 2 && strcmp(argv[1], "--user-namespace") == 0)
        return hold_user_namespace();
    if (argc >= 2 && strcmp(argv[1], "--keep-namespaces") == 0)
        return keep_namespaces(argc - 2, argv + 2);
    if (argc >= 2 && strcmp(argv[1], "--join") == 0)
        return join_namespaces(argc - 2, argv + 2);
    if (argc >= 2 && strcmp(argv[1], "--socket") == 0)
        return namespace_socket(argc - 2, argv + 2);
    if (!parse(argc, argv, &options)) {
        fputs("usage: berth-shim [--cgroup FILE]... [--waiting ROOM]   (descriptor 3: readiness, 4: assignment)\n",
              stderr);
        return 64;
    }
    syscall(SYS_close_range, ASSIGN_FD + 1, ~0u, 0);
    fcntl(READY_FD, F_SETFD, FD_CLOEXEC);
    fcntl(ASSIGN_FD, F_SETFD, FD_CLOEXEC);
    pid_t child = fork();
    if (child < 0)
        tell_failure("fork", -errno);
    if (child > 0)
        _exit(0); /* the monitor belongs to nobody who could forget to reap it */
    setsid();
    settle(&options);
    struct assignment assignment;
    await_assignment(&assignment);
    show_assignment(argc, argv, &assignment);
    int error = monitor_open(assignment.socket, assignment.dir, assignment.sandbox);
    if (error < 0)
        tell_failure(assignment.socket, error);
    tell_ready();
    return monitor_run() < 0;
}
