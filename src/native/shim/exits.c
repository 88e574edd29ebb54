/* Exit records: PODDIR/exits/ID, one line of text. They outlive the shim, for an agent that finds it dead. */
#include "monitor.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

int exit_record_write(const struct container *container)
{
    char name[ID_MAX + 8], text[128];
    snprintf(name, sizeof name, ".%s.new", container->id);
    int length = snprintf(text, sizeof text, "1 %d %d %lld\n", container->process.code, container->oom_killed,
                          (long long)container->process.finished_at);
    int fd = openat(monitor.exits_dir, name, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return -errno;
    int error = write(fd, text, (size_t)length) == length && fsync(fd) == 0 ? 0 : -EIO;
    close(fd);
    if (error == 0 && renameat(monitor.exits_dir, name, monitor.exits_dir, container->id) < 0)
        error = -errno;
    if (error < 0)
        unlinkat(monitor.exits_dir, name, 0);
    return error;
}

void exit_record_remove(const char *id)
{
    unlinkat(monitor.exits_dir, id, 0);
}
