/*
 * Loads a filter and reports what system calls answer under it.
 *
 *   seccomp-probe FILTER FLAGS NUMBER[:ARG…]…
 *
 * FILTER is a file of struct sock_filter records. Prints one line a call: 0 for success, else errno.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

static struct sock_filter records[4096];

static int load(const char *path, unsigned int flags)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t size = fd < 0 ? -1 : read(fd, records, sizeof records);
    if (size <= 0)
        return -1;
    struct sock_fprog program = {.len = (unsigned short)(size / 8), .filter = records};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
        return -1;
    return (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &program);
}

static int ask(const char *text)
{
    long words[7] = {0};
    char *end = NULL;
    for (int i = 0; i < 7; i++) {
        words[i] = (long)strtoul(text, &end, 0);
        if (*end != ':')
            break;
        text = end + 1;
    }
    errno = 0;
    long result = syscall(words[0], words[1], words[2], words[3], words[4], words[5], words[6]);
    return result == -1 ? errno : 0;
}

int main(int argc, char **argv)
{
    if (argc < 3 || load(argv[1], (unsigned int)atoi(argv[2])) != 0) {
        perror("load filter");
        return 1;
    }
    for (int i = 3; i < argc; i++) {
        printf("%d\n", ask(argv[i]));
        fflush(stdout);
    }
    return 0;
}
