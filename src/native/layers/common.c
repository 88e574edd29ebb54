#include "common.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

bool user_xattrs;

/* Names in archives may hold anything: what is not printable must not reach a log or a terminal. */
static void say(const char *text)
{
    char safe[2048];
    size_t used = 0;
    for (; *text && used + 5 < sizeof safe; text++) {
        unsigned char c = (unsigned char)*text;
        if (c >= 0x20 && c < 0x7f)
            safe[used++] = (char)c;
        else
            used += (size_t)snprintf(safe + used, 5, "\\x%02x", c);
    }
    safe[used++] = '\n';
    (void)!write(2, safe, used);
}

void bad_image(const char *format, ...)
{
    char text[1024];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    say(text);
    _exit(EXIT_IMAGE);
}

void host_error(const char *what, const char *path)
{
    char text[1024];
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

#define BENEATH (RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV)

int open_name(int dir, const char *name, int flags, mode_t mode)
{
    if (!*name || strchr(name, '/') || !strcmp(name, "..")) {
        errno = EINVAL;
        return -1;
    }
    return open_how(dir, name, flags, mode, BENEATH);
}

/* Paths longer than the kernel's limit are opened a name at a time. */
int open_beneath(int root, const char *path, int flags)
{
    if (strlen(path) < 4000)
        return open_how(root, *path ? path : ".", flags, 0, BENEATH);
    char *copy = must_strdup(path), *state = NULL;
    int at = open_how(root, ".", O_PATH | O_DIRECTORY, 0, BENEATH);
    char *name = strtok_r(copy, "/", &state);
    while (name && at >= 0) {
        char *next_name = strtok_r(NULL, "/", &state);
        int next = open_name(at, name, next_name ? O_PATH | O_DIRECTORY : flags, 0);
        int saved = errno;
        close(at);
        errno = saved;
        at = next;
        name = next_name;
    }
    free(copy);
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
