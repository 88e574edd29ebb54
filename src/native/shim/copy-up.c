/* Copies what a mount's target holds into a file system that is about to hide it (tmpcopyup). */
#include "execute.h"

#include <dirent.h>
#include <limits.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>

#define MAX_DEPTH 64

struct entry { /* linux_dirent64 */
    uint64_t inode;
    int64_t offset;
    uint16_t length;
    uint8_t type;
    char name[];
};

static int copy_owner(int to, const char *name, const struct stat *st)
{
    int result = sys(fchownat(to, name, st->st_uid, st->st_gid, AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH));
    struct timespec times[2] = {st->st_atim, st->st_mtim};
    if (result >= 0 && *name)
        result = sys(utimensat(to, name, times, AT_SYMLINK_NOFOLLOW));
    return result;
}

static int copy_bytes(int in, int out)
{
    ssize_t got;
    do
        got = sendfile(out, in, NULL, 1 << 20);
    while (got > 0);
    return got < 0 ? -errno : 0;
}

static int copy_file(int from, int to, const char *name, const struct stat *st)
{
    int in = sys_open(from, name, O_RDONLY | O_NOFOLLOW, 0, 0), out, result;
    if (in < 0)
        return in;
    out = sys_open(to, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0600, 0);
    result = out < 0 ? out : copy_bytes(in, out);
    if (result >= 0)
        result = copy_owner(to, name, st);
    if (result >= 0) /* after chown, which takes away setuid and setgid */
        result = sys(fchmod(out, st->st_mode & 07777));
    close(in);
    close_quietly(out);
    return result;
}

static int copy_link(int from, int to, const char *name, const struct stat *st)
{
    char target[PATH_MAX];
    ssize_t length = readlinkat(from, name, target, sizeof target - 1);
    if (length < 0)
        return -errno;
    target[length] = 0;
    int result = sys(symlinkat(target, to, name));
    return result < 0 ? result : copy_owner(to, name, st);
}

static int copy_dir(int from, int to, int depth);

static int copy_subdir(int from, int to, const char *name, const struct stat *st, int depth)
{
    int in = sys_open(from, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0, 0), out, result;
    if (in < 0)
        return in;
    result = sys(mkdirat(to, name, 0700));
    out = result < 0 ? result : sys_open(to, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0, 0);
    result = out < 0 ? out : copy_dir(in, out, depth + 1);
    if (result >= 0)
        result = copy_owner(to, name, st);
    if (result >= 0)
        result = sys(fchmod(out, st->st_mode & 07777));
    close(in);
    close_quietly(out);
    return result;
}

static int copy_entry(int from, int to, const char *name, int depth)
{
    struct stat st;
    if (!strcmp(name, ".") || !strcmp(name, ".."))
        return 0;
    if (fstatat(from, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return -errno;
    if (S_ISDIR(st.st_mode))
        return copy_subdir(from, to, name, &st, depth);
    if (S_ISLNK(st.st_mode))
        return copy_link(from, to, name, &st);
    if (S_ISREG(st.st_mode))
        return copy_file(from, to, name, &st);
    int result = sys(mknodat(to, name, st.st_mode, st.st_rdev));
    return result < 0 ? result : copy_owner(to, name, &st);
}

static int copy_dir(int from, int to, int depth)
{
    _Alignas(struct entry) char buffer[4096];
    if (depth > MAX_DEPTH)
        return -ELOOP;
    for (;;) {
        int got = sys(syscall(SYS_getdents64, from, buffer, sizeof buffer));
        if (got <= 0)
            return got;
        for (int at = 0; at < got; at += ((struct entry *)(buffer + at))->length) {
            int result = copy_entry(from, to, ((struct entry *)(buffer + at))->name, depth);
            if (result < 0)
                return result;
        }
    }
}

/* `from` is an O_PATH directory, `to` a detached mount. */
int copy_up(int from, int to)
{
    int in = sys_open(from, ".", O_RDONLY | O_DIRECTORY, 0, 0);
    int result = in < 0 ? in : copy_dir(in, to, 0);
    close_quietly(in);
    return result;
}
