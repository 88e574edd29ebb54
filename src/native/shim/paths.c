/*
 * Paths of a container, resolved the way the kernel would resolve them inside it: beneath a root descriptor, symbolic
 * links included, never through a link of /proc (openat2, Linux 5.6). Whoever owns the image owns these paths.
 */
#include "execute.h"

#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#define MAX_LINKS   40
#define MAX_RETRIES 128
#define INSIDE      (RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)

/* The kernel answers EAGAIN when a rename somewhere made it unsure about a "..". */
static int open_inside(int root, const char *path, uint64_t flags, uint64_t resolve)
{
    int fd = -EAGAIN;
    for (int i = 0; i < MAX_RETRIES && fd == -EAGAIN; i++)
        fd = sys_open(root, path, flags, 0, resolve);
    return fd;
}

int path_open(int root, const char *path, uint64_t flags)
{
    return open_inside(root, path, flags, INSIDE);
}

/* A directory no part of which is a symbolic link: what /proc and /sys must be (CVE-2023-27561). */
int path_open_real_dir(int root, const char *path)
{
    return open_inside(root, path, O_PATH | O_DIRECTORY, INSIDE | RESOLVE_NO_SYMLINKS);
}

/*
 * Puts what the dangling link path[start..end) in `dir` says in its place. path[end] is 0 and was `after`. A link that
 * is none any more was made by somebody else meanwhile: look again.
 */
static int follow_link(int dir, char path[PATH_MAX], size_t start, size_t end, char after)
{
    char made[PATH_MAX], link[PATH_MAX];
    ssize_t length = readlinkat(dir, path + start, link, sizeof link - 1);
    int error = length < 0 ? errno : 0;
    size_t kept = length > 0 && link[0] == '/' ? 0 : start;
    path[end] = after;
    if (length < 0)
        return error == EINVAL || error == ENOENT ? 0 : -error;
    link[length] = 0;
    memcpy(made, path, kept);
    made[kept] = 0;
    if (append(made, sizeof made, link) < 0 || append(made, sizeof made, path + end) < 0)
        return -ENAMETOOLONG;
    memcpy(path, made, strlen(made) + 1);
    return 0;
}

static int make_part(int dir, const char *name, int file, unsigned mode)
{
    if (!file)
        return sys(mkdirat(dir, name, mode));
    int fd = sys_open(dir, name, O_CREAT | O_EXCL | O_NOFOLLOW | O_WRONLY, mode, 0);
    close_quietly(fd);
    return fd < 0 ? fd : 0;
}

/* Makes the first missing part of `path`: 1 when there is more to do, 0 when nothing was missing. */
static int make_next(int root, char path[PATH_MAX], int file, unsigned mode)
{
    int dir = path_open(root, "/", O_PATH | O_DIRECTORY), result = 0;
    if (dir < 0)
        return dir;
    for (size_t end = 0; path[end] && result == 0;) {
        size_t start = end + strspn(path + end, "/");
        end = start + strcspn(path + start, "/");
        if (start == end)
            break;
        int last = path[end + strspn(path + end, "/")] == 0;
        char after = path[end];
        path[end] = 0;
        int fd = path_open(root, path, O_PATH | (last ? 0 : O_DIRECTORY));
        if (fd >= 0) {
            close(dir);
            dir = fd;
        } else if (fd != -ENOENT) {
            result = fd;
        } else {
            result = make_part(dir, path + start, file && last, last ? mode : 0755);
            if (result == -EEXIST) {
                result = follow_link(dir, path, start, end, after);
                close(dir);
                return result < 0 ? result : 1;
            }
            if (result == 0)
                result = 1;
        }
        path[end] = after;
    }
    close(dir);
    return result;
}

/* O_PATH of `path`, made as a directory or an empty file when it is missing, with all directories above it. */
int path_make(int root, const char *path, int file, unsigned mode)
{
    char work[PATH_MAX] = "";
    int fd = path_open(root, path, O_PATH);
    if (fd != -ENOENT)
        return fd;
    if (append(work, sizeof work, path) < 0)
        return -ENAMETOOLONG;
    /* Every round makes one part or follows one link. */
    for (int rounds = 0; rounds < PATH_MAX / 2 + MAX_LINKS; rounds++) {
        int more = make_next(root, work, file, mode);
        if (more < 0)
            return more;
        if (!more)
            return path_open(root, work, O_PATH);
    }
    return -ELOOP;
}

/* O_PATH of the directory that holds the last part of `path`, made when missing; the last part in *name. */
int path_parent(int root, const char *path, const char **name)
{
    char parent[PATH_MAX] = "/";
    const char *slash = strrchr(path, '/');
    *name = slash + 1;
    if (**name == 0 || !strcmp(*name, ".") || !strcmp(*name, ".."))
        return -EINVAL;
    if (slash == path)
        return path_open(root, "/", O_PATH | O_DIRECTORY);
    if ((size_t)(slash - path) >= sizeof parent)
        return -ENAMETOOLONG;
    memcpy(parent, path, (size_t)(slash - path));
    parent[slash - path] = 0;
    return path_make(root, parent, 0, 0755);
}

int path_is_null_device(int fd)
{
    struct stat st;
    return fstat(fd, &st) == 0 && S_ISCHR(st.st_mode) && st.st_rdev == makedev(1, 3);
}
