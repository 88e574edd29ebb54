/*
 * Entries of the image, made once more: owner, then attributes and mode (chown drops setuid and capabilities), then
 * time (all of them touch it).
 */
#include "remap.h"
#include "data.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/limits.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/xattr.h>
#include <unistd.h>

enum mode mode;

/* `now` is what it has become. The mode it was made with stays, unless special bits or a list came or went. */
static void finish_open(const struct place *place, const char *name, const struct object *made, const struct stat *st,
                        struct stat *now)
{
    set_owner(place, made, st);
    copy_attributes(place, name, made);
    if (fstat(made->fd, now) < 0)
        host_error("look at", path_of(place, name));
    if (now->st_mode != st->st_mode && fchmod(made->fd, st->st_mode & 07777) < 0)
        host_error("change mode of", path_of(place, name));
    struct timespec times[2] = {st->st_atim, st->st_mtim};
    if (futimens(made->fd, times) < 0)
        host_error("set time of", path_of(place, name));
}

static void finish_named(const struct place *place, const char *name, const struct stat *st)
{
    struct object made = {.fd = -1, .name = name};
    set_owner(place, &made, st);
    copy_attributes(place, name, &made);
    /* The name is ours since a moment and no link: this chmod cannot follow anything. */
    if (!S_ISLNK(st->st_mode) && fchmodat(place->to, name, st->st_mode & 07777, 0) < 0)
        host_error("change mode of", path_of(place, name));
    struct timespec times[2] = {st->st_atim, st->st_mtim};
    if (utimensat(place->to, name, times, AT_SYMLINK_NOFOLLOW) < 0)
        host_error("set time of", path_of(place, name));
}

/* ------------------------------------------------------------------------------------- files */

static void take_data(const struct place *place, const char *name, int to)
{
    int from = open_name(place->from, name, O_RDONLY, 0);
    if (from < 0)
        call_error("open", path_of(place, name));
    char *path = join_path(place->path, name);
    copy_data(from, to, path, count_bytes);
    free(path);
    close(from);
}

/*
 * The size is here and the data is below: overlayfs (metacopy=on) looks for it under the same name in the layers
 * beneath, through the directories that are merged with ours, which is where it was found. An empty value is version 0
 * of the mark, which every kernel with metacopy knows.
 */
static void refer_to_data(const struct place *place, const char *name, int to, off_t size)
{
    if (ftruncate(to, size) < 0)
        host_error("set size of", path_of(place, name));
    if (fsetxattr(to, "trusted.overlay.metacopy", "", 0, 0) < 0)
        host_error("mark as metadata", path_of(place, name));
}

static void make_file(const struct place *place, const char *name, const struct stat *st)
{
    const int flags = O_WRONLY | O_CREAT | O_EXCL;
    struct object made = {.fd = open_name(place->to, name, flags, st->st_mode & 0777), .name = name};
    if (made.fd < 0)
        call_error("create", path_of(place, name));
    if (st->st_size && mode == COPY)
        take_data(place, name, made.fd);
    else if (st->st_size)
        refer_to_data(place, name, made.fd, st->st_size);
    struct stat now;
    finish_open(place, name, &made, st, &now);
    count_inode(&now);
    if (close(made.fd) < 0)
        host_error("close", path_of(place, name));
}

/* ------------------------------------------------------------------------------------- the other types */

static void make_symlink(const struct place *place, const char *name)
{
    char target[PATH_MAX];
    ssize_t length = readlinkat(place->from, name, target, sizeof target - 1);
    if (length < 0)
        host_error("read link", path_of(place, name));
    target[length] = 0;
    if (symlinkat(target, place->to, name) < 0)
        call_error("create link", path_of(place, name));
}

static void make_named(const struct place *place, const char *name, const struct stat *st)
{
    if (S_ISLNK(st->st_mode))
        make_symlink(place, name);
    else if (mknodat(place->to, name, (st->st_mode & S_IFMT) | 0600, st->st_rdev) < 0)
        call_error("create device", path_of(place, name));
    finish_named(place, name, st);
    struct stat now;
    if (fstatat(place->to, name, &now, AT_SYMLINK_NOFOLLOW) < 0)
        host_error("look at", path_of(place, name));
    count_inode(&now);
}

static void make_inode(const struct place *place, const char *name, const struct stat *st)
{
    if (S_ISREG(st->st_mode))
        make_file(place, name, st);
    else
        make_named(place, name, st);
}

/* What has several names is made by one thread at a time: the others must find it whole. */
void make_entry(const struct place *place, const char *name, const struct stat *st)
{
    static pthread_mutex_t linking = PTHREAD_MUTEX_INITIALIZER;
    if (mode == CHECK) {
        check_ids(place, name, st);
        return;
    }
    if (st->st_nlink == 1) {
        make_inode(place, name, st);
        return;
    }
    pthread_mutex_lock(&linking);
    if (!link_known(place, name, st)) {
        make_inode(place, name, st);
        remember_link(place, name, st);
    }
    pthread_mutex_unlock(&linking);
}

void finish_dir(const struct place *place, const struct stat *st)
{
    if (mode == CHECK) {
        check_ids(place, ".", st);
        return;
    }
    struct object made = {.fd = place->to, .name = "."};
    struct stat now;
    finish_open(place, ".", &made, st, &now);
    if (*place->path)
        count_inode(&now);
}
