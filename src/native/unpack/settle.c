/*
 * The second pass, once all lower layers are complete: gives directories that the archive took for granted the
 * metadata they have below, moves what was written under a directory that is a link below to where the link leads,
 * and copies up the targets of hard links into lower layers. Reads the first pass's report on standard input.
 */
#include "data.h"
#include "tree.h"
#include "view.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>
#include <unistd.h>

static struct view lower; /* the layers below */
static struct view whole; /* and this one on top */

struct moved {
    char *from, *to;
};
static struct moved *moves;
static size_t move_count;

/* Where a path of the report is by now. */
static char *current_path(const char *path)
{
    char *now = must_strdup(path);
    for (size_t i = 0; i < move_count; i++) {
        size_t length = strlen(moves[i].from);
        if (strncmp(now, moves[i].from, length) || (now[length] && now[length] != '/'))
            continue;
        char *fresh = now[length] ? join_path(moves[i].to, now + length + 1) : must_strdup(moves[i].to);
        free(now);
        now = fresh;
    }
    return now;
}

/* ------------------------------------------------------------------------------------- copying metadata */

static void copy_xattrs(int from, int to, const char *path)
{
    static char names[65536], value[65536];
    ssize_t length = flistxattr(from, names, sizeof names);
    if (length < 0 && errno == ENOTSUP)
        return;
    if (length < 0)
        host_error("list attributes of", path);
    for (char *name = names; name < names + length; name += strlen(name) + 1) {
        if (is_overlay_xattr(name))
            continue;
        ssize_t size = fgetxattr(from, name, value, sizeof value);
        if (size < 0)
            host_error("read attribute of", path);
        if (fsetxattr(to, name, value, (size_t)size, 0) < 0 && errno != ENOTSUP && !(errno == EPERM && user_xattrs))
            host_error("set attribute of", path);
    }
}

static void copy_metadata(int from, int to, const char *path)
{
    struct stat st;
    if (fstat(from, &st) < 0)
        call_error("look at", path);
    if (fchown(to, st.st_uid, st.st_gid) < 0)
        host_error("change owner of", path);
    if (fchmod(to, st.st_mode & 07777) < 0)
        host_error("change mode of", path);
    copy_xattrs(from, to, path);
    struct timespec times[2] = {st.st_atim, st.st_mtim};
    if (futimens(to, times) < 0)
        host_error("set time of", path);
}

static int open_or_fail(int root, const char *path, int flags)
{
    int fd = open_beneath(root, path, flags);
    if (fd < 0)
        call_error("open", path);
    return fd;
}

static void copy_dir_metadata(int from_root, const char *path)
{
    int from = open_or_fail(from_root, path, O_RDONLY | O_DIRECTORY);
    int to = open_or_fail(tree_root, path, O_RDONLY | O_DIRECTORY);
    copy_metadata(from, to, path);
    close(from);
    close(to);
}

/* ------------------------------------------------------------------------------------- a parent that keeps its time */

struct parent {
    int fd;
    struct timespec times[2];
    char *path;
    const char *name;
};

static struct parent open_parent(const char *path)
{
    struct parent parent = {.path = must_strdup(path)};
    char *slash = strrchr(parent.path, '/');
    parent.name = path + (slash ? slash - parent.path + 1 : 0);
    parent.path[slash ? slash - parent.path : 0] = 0;
    parent.fd = open_or_fail(tree_root, parent.path, O_RDONLY | O_DIRECTORY);
    struct stat st;
    if (fstat(parent.fd, &st) < 0)
        call_error("look at", parent.path);
    parent.times[0] = st.st_atim;
    parent.times[1] = st.st_mtim;
    return parent;
}

static void close_parent(struct parent *parent)
{
    if (futimens(parent->fd, parent->times) < 0)
        host_error("set time of", parent->path);
    close(parent->fd);
    free(parent->path);
}

/* Makes the directory `path`, which the view shows, exist in this layer too. */
static void ensure_dir(const char *path)
{
    int fd = open_beneath(tree_root, path, O_PATH | O_DIRECTORY);
    if (fd >= 0) {
        close(fd);
        return;
    }
    char *up = must_strdup(path), *slash = strrchr(up, '/');
    up[slash ? slash - up : 0] = 0;
    ensure_dir(up);
    free(up);
    int layer;
    if (view_look(&lower, path, &layer) != DIRECTORY)
        bad_image("%s is not a directory below", path);
    struct parent parent = open_parent(path);
    if (mkdirat(parent.fd, parent.name, 0700) < 0)
        call_error("create directory", path);
    copy_dir_metadata(lower.roots[layer], path);
    close_parent(&parent);
}

/* ------------------------------------------------------------------------------------- implied directories */

static void merge(int from, int to, const char *path);

static void merge_entry(int from, int to, const char *name, const char *path)
{
    struct stat a, b;
    if (fstatat(from, name, &a, AT_SYMLINK_NOFOLLOW) < 0)
        call_error("look at", path);
    bool exists = fstatat(to, name, &b, AT_SYMLINK_NOFOLLOW) == 0;
    if (exists && is_whiteout(&a)) {
        /* What the layer has at the place itself outlives its whiteout, but hides what is below. */
        if (S_ISDIR(b.st_mode))
            set_opaque(to, name);
        if (unlinkat(from, name, 0) < 0)
            call_error("remove whiteout", path);
    } else if (exists && S_ISDIR(a.st_mode) && S_ISDIR(b.st_mode)) {
        int below_from = open_name(from, name, O_RDONLY | O_DIRECTORY, 0);
        int below_to = open_name(to, name, O_RDONLY | O_DIRECTORY, 0);
        if (below_from < 0 || below_to < 0)
            call_error("open", path);
        merge(below_from, below_to, path);
        close(below_from);
        close(below_to);
        if (unlinkat(from, name, AT_REMOVEDIR) < 0)
            call_error("remove", path);
    } else if (exists && (S_ISDIR(a.st_mode) || S_ISDIR(b.st_mode))) {
        bad_image("%s is both a directory and not", path);
    } else if (renameat(from, name, to, name) < 0)
        call_error("move", path);
}

static void merge(int from, int to, const char *path)
{
    int again = fcntl(from, F_DUPFD_CLOEXEC, 3);
    DIR *list = again < 0 ? NULL : fdopendir(again);
    if (!list)
        host_error("list", path);
    struct dirent *entry;
    while ((entry = readdir(list))) {
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
            continue;
        char *below = join_path(path, entry->d_name);
        merge_entry(from, to, entry->d_name, below);
        free(below);
    }
    closedir(list);
    if (is_opaque(from))
        set_opaque(to, "");
}

/* The lower layers have a link where the archive took a directory for granted: what it wrote belongs at its end. */
static void move_to_link_target(const char *path)
{
    char *target = view_resolve(&lower, path, true);
    int layer;
    if (!target || (*target && view_look(&lower, target, &layer) != DIRECTORY)) {
        free(target);
        return; /* leads nowhere: the directory takes its place */
    }
    size_t length = strlen(path);
    if (!strncmp(target, path, length) && (target[length] == '/' || !target[length]))
        bad_image("%s: link into itself", path);
    ensure_dir(target);
    struct parent parent = open_parent(path);
    int from = open_or_fail(tree_root, path, O_RDONLY | O_DIRECTORY);
    int to = open_or_fail(tree_root, target, O_RDONLY | O_DIRECTORY);
    struct stat st;
    if (fstat(to, &st) < 0)
        call_error("look at", target);
    merge(from, to, target);
    struct timespec times[2] = {st.st_atim, st.st_mtim};
    if (futimens(to, times) < 0)
        host_error("set time of", target);
    close(from);
    close(to);
    if (unlinkat(parent.fd, parent.name, AT_REMOVEDIR) < 0)
        call_error("remove", path);
    close_parent(&parent);
    moves = must_realloc(moves, (move_count + 1) * sizeof *moves);
    moves[move_count++] = (struct moved){must_strdup(path), target};
}

static void settle_dir(const char *reported)
{
    char *path = current_path(reported);
    int layer, fd = open_beneath(tree_root, path, O_PATH | O_DIRECTORY);
    if (fd < 0) {
        free(path);
        return; /* replaced or merged since */
    }
    close(fd);
    enum kind kind = view_look(&lower, path, &layer);
    if (kind == DIRECTORY)
        copy_dir_metadata(lower.roots[layer], path);
    else if (kind == LINK)
        move_to_link_target(path);
    free(path);
}

/* ------------------------------------------------------------------------------------- hard links into lower layers */

static void not_told(uint64_t bytes)
{
    (void)bytes;
}

static void copy_node(int from_root, const char *path, const struct stat *st, const struct parent *parent)
{
    if (S_ISLNK(st->st_mode)) {
        char target[4097];
        int fd = open_or_fail(from_root, path, O_PATH);
        ssize_t length = readlinkat(fd, "", target, sizeof target - 1);
        if (length < 0)
            host_error("read link", path);
        close(fd);
        target[length] = 0;
        if (symlinkat(target, parent->fd, parent->name) < 0)
            call_error("create link", path);
    } else if (mknodat(parent->fd, parent->name, st->st_mode, st->st_rdev) < 0)
        call_error("create device", path);
    if (fchownat(parent->fd, parent->name, st->st_uid, st->st_gid, AT_SYMLINK_NOFOLLOW) < 0)
        host_error("change owner of", path);
    if (!S_ISLNK(st->st_mode) && fchmodat(parent->fd, parent->name, st->st_mode & 07777, 0) < 0)
        host_error("change mode of", path);
    struct timespec times[2] = {st->st_atim, st->st_mtim};
    if (utimensat(parent->fd, parent->name, times, AT_SYMLINK_NOFOLLOW) < 0)
        host_error("set time of", path);
}

static void copy_up(int from_root, const char *path)
{
    struct parent parent = open_parent(path);
    int look = open_or_fail(from_root, path, O_PATH);
    struct stat st;
    if (fstat(look, &st) < 0)
        call_error("look at", path);
    close(look);
    if (S_ISREG(st.st_mode)) {
        int from = open_or_fail(from_root, path, O_RDONLY);
        int to = open_name(parent.fd, parent.name, O_WRONLY | O_CREAT | O_EXCL, 0600);
        if (to < 0)
            call_error("create", path);
        copy_data(from, to, path, not_told);
        copy_metadata(from, to, path);
        close(from);
        close(to);
    } else
        copy_node(from_root, path, &st, &parent);
    close_parent(&parent);
}

static void settle_link(const char *reported, const char *target)
{
    char *path = current_path(reported), *source = view_resolve(&whole, target, false);
    int layer;
    enum kind kind = source ? view_look(&whole, source, &layer) : NOTHING;
    if (kind == NOTHING)
        bad_image("hard link %s: target %s does not exist", path, target);
    if (kind == DIRECTORY)
        bad_image("hard link %s: target %s is a directory", path, target);
    if (layer > 0) {
        char *slash = strrchr(source, '/'), *up = must_strdup(source);
        up[slash ? slash - source : 0] = 0;
        ensure_dir(up);
        free(up);
        copy_up(whole.roots[layer], source);
    }
    struct parent from = open_parent(source), to = open_parent(path);
    /* Something of the archive came to stand there later: it stays. */
    if (linkat(from.fd, from.name, to.fd, to.name, 0) < 0 && errno != EEXIST)
        call_error("create hard link", path);
    close_parent(&to);
    close_parent(&from);
    free(path);
    free(source);
}

/* ------------------------------------------------------------------------------------- the report */

static char *read_report(size_t *length)
{
    size_t room = 65536;
    char *text = must_alloc(room);
    *length = 0;
    for (;;) {
        if (room - *length < 4096)
            text = must_realloc(text, room *= 2);
        ssize_t got = read(0, text + *length, room - *length - 1);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            host_error("read", "report");
        if (got == 0)
            break;
        *length += (size_t)got;
    }
    text[*length] = 0;
    return text;
}

void settle(int root, const int *below, int count)
{
    tree_open(root);
    if (count > MAX_LAYERS - 1)
        bad_image("more than %d layers", MAX_LAYERS - 1);
    lower.count = count;
    memcpy(lower.roots, below, (size_t)count * sizeof *below);
    whole.count = count + 1;
    whole.roots[0] = root;
    memcpy(whole.roots + 1, below, (size_t)count * sizeof *below);
    size_t length;
    char *text = read_report(&length);
    for (char *record = text; record < text + length; record += strlen(record) + 1) {
        if (*record == 'P')
            settle_dir(record + 1);
        if (*record != 'L')
            continue;
        const char *link = record + 1;
        record += strlen(record) + 1;
        settle_link(link, record);
    }
    free(text);
}
