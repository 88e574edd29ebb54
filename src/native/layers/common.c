#include "common.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/limits.h>
#include <linux/openat2.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

bool user_xattrs;

/* A path and what is said of it. */
enum { TEXT_MAX = PATH_MAX + 512 };

/* Of the threads that fail, the first says why and ends them all. */
static pthread_mutex_t last_word = PTHREAD_MUTEX_INITIALIZER;

/* Names in archives may hold anything: what is not printable must not reach a log or a terminal. */
static void say(const char *text)
{
    char safe[4 * TEXT_MAX + 1];
    size_t used = 0;
    for (; *text && used + 5 < sizeof safe; text++) {
        unsigned char c = (unsigned char)*text;
        if (c >= 0x20 && c < 0x7f)
            safe[used++] = (char)c;
        else
            used += (size_t)snprintf(safe + used, 5, "\\x%02x", c);
    }
    safe[used++] = '\n';
    pthread_mutex_lock(&last_word);
    (void)!write(2, safe, used);
}

void bad_image(const char *format, ...)
{
    char text[TEXT_MAX];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    say(text);
    _exit(EXIT_IMAGE);
}

void host_error(const char *what, const char *path)
{
    char text[TEXT_MAX];
    snprintf(text, sizeof text, "%s %s: %s", what, *path ? path : "/", strerror(errno));
    say(text);
    _exit(EXIT_HOST);
}

void call_error(const char *what, const char *path)
{
    if (errno == ENAMETOOLONG || errno == EINVAL || errno == ELOOP || errno == ENOTDIR || errno == EFBIG ||
        errno == EEXIST || errno == ENOTEMPTY)
        bad_image("%s %s: %s", what, *path ? path : "/", strerror(errno));
    host_error(what, path);
}

void *must_alloc(size_t size)
{
    void *memory = calloc(1, size ? size : 1);
    if (!memory)
        host_error("allocate memory", "");
    return memory;
}

void *must_realloc(void *old, size_t size)
{
    void *memory = realloc(old, size ? size : 1);
    if (!memory)
        host_error("allocate memory", "");
    return memory;
}

char *must_strdup(const char *text)
{
    size_t size = strlen(text) + 1;
    return memcpy(must_alloc(size), text, size);
}

char *join_path(const char *dir, const char *name)
{
    size_t size = strlen(dir) + strlen(name) + 2;
    char *path = must_alloc(size);
    snprintf(path, size, *dir ? "%s/%s" : "%s%s", dir, name);
    return path;
}

static int open_how(int dir, const char *path, int flags, mode_t mode, uint64_t resolve)
{
    struct open_how how = {.flags = (uint64_t)(flags | O_CLOEXEC | O_NOFOLLOW), .mode = mode, .resolve = resolve};
    return (int)syscall(SYS_openat2, dir, path, &how, sizeof how);
}

enum { MAX_AT_ONCE = 4000 }; /* bytes; the kernel's PATH_MAX is 4096 */

#define BENEATH (RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV)

int open_name(int dir, const char *name, int flags, mode_t mode)
{
    if (!*name || strchr(name, '/') || !strcmp(name, "..")) {
        errno = EINVAL;
        return -1;
    }
    return open_how(dir, name, flags, mode, BENEATH);
}

/* The length of what of a path the kernel takes at once, up to a slash; 0 for no such thing. */
static size_t first_part(const char *path)
{
    size_t length = MAX_AT_ONCE;
    while (length && path[length] != '/')
        length--;
    return length;
}

static int open_part(int dir, const char *path)
{
    char part[MAX_AT_ONCE + 1];
    size_t length = first_part(path);
    memcpy(part, path, length);
    part[length] = 0;
    return open_how(dir, part, O_PATH | O_DIRECTORY, 0, BENEATH);
}

/* Paths longer than the kernel's limit are opened a part at a time. */
int open_beneath(int root, const char *path, int flags)
{
    int at = root;
    while (at >= 0) {
        bool last = strnlen(path, MAX_AT_ONCE + 1) <= MAX_AT_ONCE;
        int next = last ? open_how(at, *path ? path : ".", flags, 0, BENEATH) : open_part(at, path);
        int saved = errno;
        if (at != root)
            close(at);
        errno = saved;
        at = next;
        if (last)
            break;
        path += first_part(path) + 1;
    }
    return at;
}

bool is_whiteout(const struct stat *st)
{
    return S_ISCHR(st->st_mode) && major(st->st_rdev) == 0 && minor(st->st_rdev) == 0;
}

bool is_overlay_xattr(const char *name)
{
    return !strncmp(name, "trusted.overlay.", 16) || !strncmp(name, "user.overlay.", 13);
}

void drain_input(void)
{
    static char buffer[65536];
    for (;;) {
        ssize_t got = read(0, buffer, sizeof buffer);
        if (got == 0)
            return;
        if (got < 0 && errno != EINTR)
            host_error("read", "archive");
    }
}

const char *opaque_xattr(void)
{
    return user_xattrs ? "user.overlay.opaque" : "trusted.overlay.opaque";
}

void set_opaque(int dir, const char *name)
{
    int fd = *name ? open_name(dir, name, O_RDONLY | O_DIRECTORY, 0) : open_beneath(dir, "", O_RDONLY | O_DIRECTORY);
    if (fd < 0)
        host_error("open", name);
    if (fsetxattr(fd, opaque_xattr(), "y", 1, 0) < 0)
        host_error("mark as opaque", name);
    close(fd);
}

bool is_opaque(int dir_fd)
{
    char value[8];
    ssize_t length = fgetxattr(dir_fd, opaque_xattr(), value, sizeof value);
    return length >= 1 && value[0] == 'y';
}
