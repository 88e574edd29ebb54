/* Killing more than one process. */
#include "monitor.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAX_PROCESSES 65536
#define ROUNDS        16
#define CGROUP_DEPTH  16

struct member {
    pid_t pid, parent, group, session;
};

static bool read_member(pid_t pid, struct member *out)
{
    char path[32], text[512];
    snprintf(path, sizeof path, "%d/stat", (int)pid);
    int fd = openat(monitor.held.proc, path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    ssize_t length = read(fd, text, sizeof text - 1);
    close(fd);
    if (length <= 0)
        return false;
    text[length] = '\0';
    const char *after_name = strrchr(text, ')');
    out->pid = pid;
    return after_name != NULL && sscanf(after_name + 1, " %*c %d %d %d", &out->parent, &out->group, &out->session) == 3;
}

static size_t read_members(struct member *members)
{
    size_t count = 0;
    int fd = openat(monitor.held.proc, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *directory = fd < 0 ? NULL : fdopendir(fd);
    if (directory == NULL) {
        if (fd >= 0)
            close(fd);
        return 0;
    }
    struct dirent *entry;
    while (count < MAX_PROCESSES && (entry = readdir(directory)) != NULL) {
        pid_t pid = (pid_t)strtol(entry->d_name, NULL, 10);
        if (pid > 1 && pid != getpid() && read_member(pid, &members[count]))
            count++;
    }
    closedir(directory);
    return count;
}

/* Moves those that belong to the tree to the front and tells how many they are. */
static size_t gather_tree(struct member *members, size_t count, pid_t root)
{
    size_t inside = 0, before;
    do {
        before = inside;
        for (size_t i = inside; i < count; i++) {
            struct member candidate = members[i];
            bool belongs = candidate.pid == root || candidate.session == root || candidate.group == root;
            for (size_t j = 0; !belongs && j < inside; j++)
                belongs = candidate.parent == members[j].pid;
            if (belongs) {
                members[i] = members[inside];
                members[inside++] = candidate;
            }
        }
    } while (inside != before);
    return inside;
}

void kill_tree(pid_t root, int signal)
{
    size_t size = MAX_PROCESSES * sizeof(struct member);
    struct member *members = pages_alloc(size);
    if (members == NULL) {
        kill(root, signal);
        return;
    }
    size_t inside = 0, before;
    int round = 0;
    do { /* what is stopped cannot fork away from under us */
        before = inside;
        inside = gather_tree(members, read_members(members), root);
        if (signal != SIGKILL)
            break;
        for (size_t i = 0; i < inside; i++)
            kill(members[i].pid, SIGSTOP);
    } while (inside != before && ++round < ROUNDS);
    for (size_t i = 0; i < inside; i++)
        kill(members[i].pid, signal);
    pages_free(members, size);
}

/* ------------------------------------------------------------------------------------------------- cgroups */

static int kill_listed(int directory, int signal)
{
    int killed = 0;
    int fd = openat(directory, "cgroup.procs", O_RDONLY | O_CLOEXEC);
    FILE *file = fd < 0 ? NULL : fdopen(fd, "r");
    if (file == NULL) {
        if (fd >= 0)
            close(fd);
        return 0;
    }
    int pid;
    while (fscanf(file, "%d", &pid) == 1)
        if (pid > 1 && pid != getpid() && kill(pid, signal) == 0)
            killed++;
    fclose(file);
    return killed;
}

static int kill_below(int parent, const char *name, int signal, int depth)
{
    int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    int killed = kill_listed(fd, signal);
    DIR *directory = fdopendir(fd);
    struct dirent *entry;
    while (directory != NULL && depth < CGROUP_DEPTH && (entry = readdir(directory)) != NULL) {
        if (entry->d_type != DT_DIR || entry->d_name[0] == '.')
            continue;
        int below = kill_below(dirfd(directory), entry->d_name, signal, depth + 1);
        killed += below > 0 ? below : 0;
    }
    if (directory != NULL)
        closedir(directory);
    else
        close(fd);
    return killed;
}

int kill_cgroup(const char *directory, int signal)
{
    if (signal == SIGKILL) {
        char path[PATH_MAX];
        int fd = -1;
        if (snprintf(path, sizeof path, "%s/cgroup.kill", directory) < (int)sizeof path)
            fd = open(path, O_WRONLY | O_CLOEXEC);
        bool done = fd >= 0 && write(fd, "1", 1) == 1;
        if (fd >= 0)
            close(fd);
        if (done)
            return 0;
    }
    int killed = kill_below(AT_FDCWD, directory, signal, 0);
    for (int round = 1; signal == SIGKILL && killed > 0 && round < ROUNDS; round++)
        killed = kill_below(AT_FDCWD, directory, signal, 0); /* children forked meanwhile */
    return killed == -ENOENT ? 0 : killed < 0 ? killed : 0;
}
