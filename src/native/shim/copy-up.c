/*
 * Copies what a mount's target holds into a file system that is about to hide it: tmpcopyup, and the volumes an image
 * declares. The tree is the image's: links are copied and never followed, nothing but regular files is opened for
 * reading, and nothing is written but beneath the new directory. Hard links become files of their own.
 */
#include "execute.h"

#include <dirent.h>
#include <limits.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/xattr.h>

/* Each level of a tree takes two descriptors and a page of stack. */
#define MAX_DEPTH 200

/* Of linux/limits.h; too much for the stack, and untouched pages cost the shim nothing. */
static char attribute_names[65536], attribute_value[65536];

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

/* Others are the file system's own (trusted.overlay), or for the host to give (labels). */
static int is_copied(const char *attribute)
{
    return !strncmp(attribute, "user.", 5) || !strcmp(attribute, "security.capability") ||
           !strncmp(attribute, "system.posix_acl_", 17);
}

static int copy_attributes(int in, int out)
{
    ssize_t length = flistxattr(in, attribute_names, sizeof attribute_names);
    if (length < 0)
        return errno == EOPNOTSUPP ? 0 : -errno;
    for (const char *name = attribute_names; name < attribute_names + length; name += strlen(name) + 1) {
        if (!is_copied(name))
            continue;
        ssize_t size = fgetxattr(in, name, attribute_value, sizeof attribute_value);
        if (size < 0 || fsetxattr(out, name, attribute_value, (size_t)size, 0) < 0)
            if (errno != EOPNOTSUPP)
                return -errno;
    }
    return 0;
}

/* Owner, then mode, which chown takes setuid from, then the file capabilities, which it takes away. */
static int copy_inode(int in, int out, int to, const char *name, const struct stat *st)
{
    int result = copy_owner(to, name, st);
    if (result >= 0)
        result = sys(fchmod(out, st->st_mode & 07777));
    return result < 0 ? result : copy_attributes(in, out);
}

static int copy_range(int in, int out, off_t at, off_t end)
{
    if (lseek(out, at, SEEK_SET) < 0)
        return -errno;
    while (at < end) {
        ssize_t got = sendfile(out, in, &at, (size_t)(end - at < 1 << 20 ? end - at : 1 << 20));
        if (got <= 0)
            return got < 0 ? -errno : 0;
    }
    return 0;
}

/* Holes stay holes: a file may claim more than the disk has. */
static int copy_bytes(int in, int out, off_t size)
{
    for (off_t at = 0, end; (at = lseek(in, at, SEEK_DATA)) >= 0; at = end) {
        end = lseek(in, at, SEEK_HOLE);
        int result = end < 0 ? -errno : copy_range(in, out, at, end);
        if (result < 0)
            return result;
    }
    return errno == ENXIO ? sys(ftruncate(out, size)) : -errno;
}

static int copy_file(int from, int to, const char *name, const struct stat *st)
{
    int in = sys_open(from, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK, 0, 0), out, result;
    if (in < 0)
        return in;
    out = sys_open(to, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0600, 0);
    result = out < 0 ? out : copy_bytes(in, out, st->st_size);
    if (result >= 0)
        result = copy_inode(in, out, to, name, st);
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

/* In a user namespace devices cannot be made, and those of an image are of no use there either. */
static int copy_node(int to, const char *name, const struct stat *st)
{
    int result = sys(mknodat(to, name, st->st_mode, st->st_rdev));
    if (result == -EPERM && (S_ISCHR(st->st_mode) || S_ISBLK(st->st_mode)))
        return 0;
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
        result = copy_inode(in, out, to, name, st);
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
    return S_ISREG(st.st_mode) ? copy_file(from, to, name, &st) : copy_node(to, name, &st);
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

int copy_up_whole(int from, int to)
{
    struct stat st;
    int in = sys_open(from, ".", O_RDONLY | O_DIRECTORY, 0, 0);
    int out = in < 0 ? in : sys_open(to, ".", O_RDONLY | O_DIRECTORY, 0, 0);
    int result = out < 0 ? out : copy_dir(in, out, 0);
    if (result >= 0)
        result = sys(fstat(in, &st));
    if (result >= 0)
        result = copy_inode(in, out, out, "", &st);
    close_quietly(in);
    close_quietly(out);
    return result;
}
