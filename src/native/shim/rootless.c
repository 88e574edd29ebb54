/*
 * What an agent of an ordinary user needs of other processes: namespaces are kept by one that does nothing else, and
 * entered by one that has a single thread. Started by the agent's program, or by a process inside the namespaces.
 *
 *     berth-shim --keep-namespaces [user] [net]     makes them and keeps them until it is killed
 *     berth-shim --join PID START PROGRAM ARG...    runs a program in the user and mount namespace of a process
 *     berth-shim --socket PID PROTOCOL              a netlink socket (descriptor 3) in the network namespace of another
 */
#include "monitor.h"
#include "sys.h"

#include <grp.h>
#include <linux/netlink.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define NETLINK_FD 3

/* One answer on standard output: a letter, then numbers; or "E" errno text. */
static _Noreturn void fail(const char *what, int error)
{
    uint8_t message[128] = {'E'};
    uint32_t number = (uint32_t)error;
    size_t length = strnlen(what, sizeof message - 5);
    memcpy(message + 1, &number, 4);
    memcpy(message + 5, what, length);
    (void)!write(1, message, 5 + length);
    _exit(70);
}

static void check(const char *what, long result)
{
    if (result < 0)
        fail(what, errno);
}

static void answer(char letter, uint64_t number)
{
    uint8_t message[9] = {(uint8_t)letter};
    memcpy(message + 1, &number, 8);
    if (write(1, message, sizeof message) != sizeof message)
        _exit(71); /* nobody waits for us any more */
}

/* Field 22 of /proc/PID/stat. 0 when there is no such process. */
static uint64_t start_time_of(pid_t pid)
{
    char path[40], text[1024];
    unsigned long long start = 0;
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t length = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
    if (fd >= 0)
        close(fd);
    text[length < 0 ? 0 : length] = '\0';
    const char *field = strrchr(text, ')');
    for (int i = 2; field != NULL && i < 22; i++)
        field = strchr(field + 1, ' ');
    if (field != NULL)
        sscanf(field, " %llu", &start);
    return start;
}

/* Groups of the user are nobody inside; a namespace that may not drop them keeps them. */
static void become_root(void)
{
    if (setgroups(0, NULL) < 0 && errno != EPERM)
        fail("setgroups", errno);
    check("become gid 0", setresgid(0, 0, 0));
    check("become uid 0", setresuid(0, 0, 0));
}

/* ------------------------------------------------------------------------------------------------ keeping */

/* A kernel without the family has no file for it. */
static void set_parameter(const char *path, bool needed)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0 && !needed)
        return;
    check(path, fd);
    check(path, write(fd, "1", 1));
    close(fd);
}

/* The agent is not in this namespace and cannot write its parameters; new bridges take route_localnet from here. */
static void prepare_network(void)
{
    struct ifreq request = {.ifr_name = "lo", .ifr_flags = IFF_UP};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    check("socket", fd);
    check("raise lo", ioctl(fd, SIOCSIFFLAGS, &request));
    close(fd);
    set_parameter("/proc/sys/net/ipv4/ip_forward", true);
    set_parameter("/proc/sys/net/ipv6/conf/all/forwarding", false);
}

/* The parent writes the id maps and says so with one byte. */
static void make_user_namespace(void)
{
    char byte;
    check("make user namespace", unshare(CLONE_NEWUSER));
    answer('U', (uint64_t)getpid());
    if (read(0, &byte, 1) != 1)
        _exit(0);
    become_root();
}

static _Noreturn void keep(void)
{
    sigset_t all;
    siginfo_t info;
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, NULL);
    syscall(SYS_close_range, 0, ~0u, 0);
    for (;;)
        if (sigwaitinfo(&all, &info) == SIGTERM)
            _exit(0);
}

int keep_namespaces(int argc, char **argv)
{
    int kinds = CLONE_NEWNS;
    bool user = false;
    for (int i = 0; i < argc; i++) {
        user |= !strcmp(argv[i], "user");
        kinds |= strcmp(argv[i], "net") ? 0 : CLONE_NEWNET;
    }
    pid_t child = fork();
    check("fork", child);
    if (child > 0)
        return 0; /* the keeper is nobody's child */
    setsid();
    prctl(PR_SET_NAME, "berth-rootless");
    check("chdir /", chdir("/"));
    if (user)
        make_user_namespace();
    check("make namespaces", unshare(kinds));
    check("receive mounts only", mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL));
    if (kinds & CLONE_NEWNET)
        prepare_network();
    answer('P', (uint64_t)getpid());
    answer('R', start_time_of(getpid()));
    keep();
}

/* ------------------------------------------------------------------------------------------------ joining */

static bool same_namespace(pid_t pid, const char *kind)
{
    struct stat own, other;
    char path[48];
    snprintf(path, sizeof path, "/proc/self/ns/%s", kind);
    check(path, stat(path, &own));
    snprintf(path, sizeof path, "/proc/%d/ns/%s", (int)pid, kind);
    check(path, stat(path, &other));
    return own.st_ino == other.st_ino;
}

static _Noreturn void complain(const char *what, int error)
{
    fprintf(stderr, "berth: join namespaces: %s: %s\n", what, strerror(error));
    _exit(70);
}

int join_namespaces(int argc, char **argv)
{
    char cwd[4096];
    if (argc < 3)
        return 64;
    pid_t pid = (pid_t)atoi(argv[0]);
    int pidfd = sys_pidfd_open(pid);
    if (pidfd < 0 || start_time_of(pid) != strtoull(argv[1], NULL, 10))
        complain("the process that keeps them is gone", ESRCH);
    bool placed = getcwd(cwd, sizeof cwd) != NULL;
    int kinds = CLONE_NEWNS | (same_namespace(pid, "user") ? 0 : CLONE_NEWUSER);
    if (setns(pidfd, kinds) < 0)
        complain("setns", errno);
    close(pidfd);
    become_root();
    if (!placed || chdir(cwd) < 0) /* a place of this mount namespace only */
        (void)!chdir("/");
    execv(argv[2], argv + 2);
    complain(argv[2], errno);
}

int namespace_socket(int argc, char **argv)
{
    char path[40], byte;
    if (argc != 2)
        return 64;
    snprintf(path, sizeof path, "/proc/%d/ns/net", atoi(argv[0]));
    int namespace = open(path, O_RDONLY | O_CLOEXEC);
    check(path, namespace);
    check("setns", setns(namespace, CLONE_NEWNET));
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, atoi(argv[1]));
    check("socket", fd);
    check("dup3", fd == NETLINK_FD ? fd : dup3(fd, NETLINK_FD, O_CLOEXEC));
    answer('S', NETLINK_FD);
    return read(0, &byte, 1) > 0; /* until it has been taken */
}
