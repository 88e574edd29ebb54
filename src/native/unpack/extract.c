/* The first pass: writes the archive's entries below the root, alone, without looking at lower layers. */
#include "ids.h"
#include "tar.h"
#include "tree.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

struct place {
    int dir;
    const char *canonical; /* of dir */
    const char *name;
};

static uint64_t used_bytes, used_inodes;
static char *links; /* "LINK\0TARGET\0" of hard links whose target is not in this layer */
static size_t links_length, links_room;

static void put_xattrs(int fd, const struct entry *entry)
{
    for (size_t i = 0; i < entry->xattr_count; i++) {
        const struct xattr *xattr = &entry->xattrs[i];
        /* Labels and signatures belong to the host that set them; file capabilities travel with the file. */
        if (!strncmp(xattr->name, "security.", 9) && strcmp(xattr->name, "security.capability"))
            continue;
        if (fsetxattr(fd, xattr->name, xattr->value, xattr->length, 0) == 0)
            continue;
        if (errno == ENOTSUP || (errno == EPERM && user_xattrs))
            continue;
        if (errno == EPERM || errno == EINVAL || errno == ERANGE)
            bad_image("%s: set %s: %s", entry->path, xattr->name, strerror(errno));
        host_error("set extended attribute of", entry->path);
    }
}

static void set_owner(int fd, const struct entry *entry, const char *what)
{
    if (fchown(fd, entry->uid, entry->gid) < 0)
        host_error("change owner of", what);
    ids_note(entry);
}

static struct timespec sane_time(struct timespec time)
{
    if (time.tv_nsec == UTIME_NOW || time.tv_nsec == UTIME_OMIT)
        time.tv_nsec = 0;
    return time;
}

/* Owner, then mode (chown drops setuid), then attributes (chown drops capabilities), then time (all of them touch it).
 */
static void finish_file(int fd, const struct entry *entry)
{
    struct timespec times[2] = {sane_time(entry->mtime), sane_time(entry->mtime)};
    set_owner(fd, entry, entry->path);
    if (fchmod(fd, entry->mode) < 0)
        host_error("change mode of", entry->path);
    put_xattrs(fd, entry);
    if (futimens(fd, times) < 0)
        call_error("set time of", entry->path);
}

static void finish_node(const struct place *at, const struct entry *entry)
{
    struct timespec times[2] = {sane_time(entry->mtime), sane_time(entry->mtime)};
    if (fchownat(at->dir, at->name, entry->uid, entry->gid, AT_SYMLINK_NOFOLLOW) < 0)
        host_error("change owner of", entry->path);
    ids_note(entry);
    /* The name is ours since a moment and no link: this chmod cannot follow anything. */
    if (entry->type != '2' && fchmodat(at->dir, at->name, entry->mode, 0) < 0)
        host_error("change mode of", entry->path);
    if (utimensat(at->dir, at->name, times, AT_SYMLINK_NOFOLLOW) < 0)
        call_error("set time of", entry->path);
}

/* ------------------------------------------------------------------------------------- files */

static void write_run(int fd, uint64_t length, const struct entry *entry)
{
    const char *bytes;
    size_t run;
    while ((run = tar_data(&bytes, length))) {
        length -= run;
        while (run) {
            ssize_t put = write(fd, bytes, run);
            if (put < 0 && errno == EINTR)
                continue;
            if (put < 0)
                host_error("write", entry->path);
            bytes += put;
            run -= (size_t)put;
        }
    }
}

static void write_data(int fd, const struct entry *entry)
{
    if (!entry->sparse) {
        write_run(fd, entry->size, entry);
        return;
    }
    if (ftruncate(fd, (off_t)entry->size) < 0)
        call_error("set size of", entry->path);
    for (size_t i = 0; i < entry->extent_count; i++) {
        if (lseek(fd, (off_t)entry->extents[i].offset, SEEK_SET) < 0)
            call_error("seek in", entry->path);
        write_run(fd, entry->extents[i].length, entry);
    }
}

static void make_file(const struct place *at, const struct entry *entry)
{
    const int flags = O_WRONLY | O_CREAT | O_EXCL;
    int fd = open_name(at->dir, at->name, flags, 0600);
    if (fd < 0 && (errno == EEXIST || errno == ELOOP)) {
        tree_remove(at->dir, at->canonical, at->name);
        fd = open_name(at->dir, at->name, flags, 0600);
    }
    if (fd < 0)
        call_error("create", entry->path);
    uint64_t stored = tar_left();
    write_data(fd, entry);
    finish_file(fd, entry);
    if (close(fd) < 0)
        host_error("close", entry->path);
    used_bytes += (stored + 4095) & ~(uint64_t)4095;
    used_inodes++;
}

/* ------------------------------------------------------------------------------------- directories */

static void list_dir(const char *path, const struct entry *entry)
{
    struct dir *dir = tree_dir(path);
    dir->listed = true;
    dir->mode = entry->mode;
    dir->mtime = sane_time(entry->mtime);
}

static void make_dir(const struct place *at, const struct entry *entry)
{
    char *path = join_path(at->canonical, at->name);
    struct stat st;
    bool cut = false;
    if (mkdirat(at->dir, at->name, 0700) < 0) {
        if (errno != EEXIST)
            call_error("create directory", entry->path);
        if (fstatat(at->dir, at->name, &st, AT_SYMLINK_NOFOLLOW) < 0)
            host_error("look at", entry->path);
        if (!S_ISDIR(st.st_mode)) {
            /* What stood there, a whiteout or a file of this layer, had hidden the lower layers' directory. */
            tree_remove(at->dir, at->canonical, at->name);
            if (mkdirat(at->dir, at->name, 0700) < 0)
                call_error("create directory", entry->path);
            cut = true;
        }
    }
    int fd = open_name(at->dir, at->name, O_RDONLY | O_DIRECTORY, 0);
    if (fd < 0)
        call_error("open", entry->path);
    set_owner(fd, entry, entry->path);
    put_xattrs(fd, entry);
    close(fd);
    if (cut)
        set_opaque(at->dir, at->name);
    list_dir(path, entry);
    if (cut)
        tree_dir(path)->cut = true;
    free(path);
    used_bytes += 4096;
    used_inodes++;
}

/* The archive's own entry for the root. */
static void make_root(const struct entry *entry)
{
    if (entry->type != '5')
        bad_image("the root is no directory in the archive");
    int fd = open_beneath(tree_root, "", O_RDONLY | O_DIRECTORY);
    if (fd < 0)
        host_error("open", "layer");
    set_owner(fd, entry, "layer");
    put_xattrs(fd, entry);
    close(fd);
    list_dir("", entry);
}

/* Modes and times of directories come last: writing in one changes its time, and a mode may forbid it. */
static void finish_dirs(void)
{
    size_t count;
    struct dir **dirs = tree_sorted(&count);
    while (count--) {
        if (!dirs[count]->listed)
            continue;
        int fd = open_beneath(tree_root, dirs[count]->path, O_RDONLY | O_DIRECTORY);
        if (fd < 0)
            host_error("open", dirs[count]->path);
        struct timespec times[2] = {dirs[count]->mtime, dirs[count]->mtime};
        if (fchmod(fd, dirs[count]->mode) < 0)
            host_error("change mode of", dirs[count]->path);
        if (futimens(fd, times) < 0)
            call_error("set time of", dirs[count]->path);
        close(fd);
    }
    free(dirs);
}

/* ------------------------------------------------------------------------------------- the other types */

static void make_symlink(const struct place *at, const struct entry *entry)
{
    if (!*entry->link)
        bad_image("%s: link without a target", entry->path);
    if (symlinkat(entry->link, at->dir, at->name) < 0) {
        if (errno != EEXIST)
            call_error("create link", entry->path);
        tree_remove(at->dir, at->canonical, at->name);
        if (symlinkat(entry->link, at->dir, at->name) < 0)
            call_error("create link", entry->path);
    }
    finish_node(at, entry);
    used_bytes += 4096;
    used_inodes++;
}

static void make_device(const struct place *at, const struct entry *entry)
{
    mode_t type = entry->type == '3' ? S_IFCHR : entry->type == '4' ? S_IFBLK : S_IFIFO;
    if (user_xattrs && entry->type != '6')
        return; /* a user namespace may not make devices */
    dev_t device = entry->type == '6' ? 0 : makedev(entry->major, entry->minor);
    if (mknodat(at->dir, at->name, type | (entry->mode & 0777), device) < 0) {
        if (errno != EEXIST)
            call_error("create device", entry->path);
        tree_remove(at->dir, at->canonical, at->name);
        if (mknodat(at->dir, at->name, type | (entry->mode & 0777), device) < 0)
            call_error("create device", entry->path);
    }
    finish_node(at, entry);
    used_inodes++;
}

static void report_link(const struct place *at, const char *target)
{
    char *path = join_path(at->canonical, at->name);
    size_t length = strlen(path) + strlen(target) + 3;
    while (links_length + length > links_room) {
        links_room = links_room ? links_room * 2 : 65536;
        links = must_realloc(links, links_room);
    }
    links_length += (size_t)sprintf(links + links_length, "L%s", path) + 1;
    links_length += (size_t)sprintf(links + links_length, "%s", target) + 1;
    free(path);
}

/* The target's directory is looked up first: the descriptors of a walk live until the next one. */
static void make_link(const struct entry *entry, const char *path)
{
    char *target = clean_path(entry->link);
    if (!*target)
        bad_image("%s: hard link to nothing", entry->path);
    const char *canonical, *target_name;
    struct stat st, existing;
    bool found = false;
    int target_dir = tree_parent(target, false, &canonical, &target_name);
    if (target_dir >= 0) {
        target_dir = fcntl(target_dir, F_DUPFD_CLOEXEC, 3);
        if (target_dir < 0)
            host_error("duplicate descriptor for", entry->path);
        found = fstatat(target_dir, target_name, &st, AT_SYMLINK_NOFOLLOW) == 0;
        if (!found && errno != ENOENT)
            call_error("look at", target);
    } else if (errno != ENOENT)
        call_error("look at", target);
    struct place at;
    at.dir = tree_parent(path, true, &at.canonical, &at.name);
    if (found && S_ISDIR(st.st_mode))
        bad_image("%s: hard link to directory %s", entry->path, target);
    if (found && is_whiteout(&st))
        bad_image("%s: hard link to %s, which the layer removes", entry->path, target);
    if (fstatat(at.dir, at.name, &existing, AT_SYMLINK_NOFOLLOW) == 0) {
        bool same = found && existing.st_ino == st.st_ino && existing.st_dev == st.st_dev;
        if (!same)
            tree_remove(at.dir, at.canonical, at.name);
        else
            found = same = true;
        if (same)
            goto done;
    }
    if (!found)
        report_link(&at, target);
    else if (linkat(target_dir, target_name, at.dir, at.name, 0) < 0) {
        if (errno == ENOENT)
            bad_image("%s: hard link takes the place of its own target", entry->path);
        call_error("create hard link", entry->path);
    }
done:
    if (target_dir >= 0)
        close(target_dir);
    free(target);
}

/* ------------------------------------------------------------------------------------- whiteouts */

/* `.wh.NAME`: NAME of the lower layers is gone. What this layer has there itself stays, alone. */
static void make_whiteout(const struct place *at, const struct entry *entry)
{
    struct place hidden = *at;
    hidden.name += 4;
    if (!*hidden.name || !strcmp(hidden.name, ".") || !strcmp(hidden.name, ".."))
        bad_image("%s: whiteout of nothing", entry->path);
    struct stat st;
    if (fstatat(at->dir, hidden.name, &st, AT_SYMLINK_NOFOLLOW) < 0) {
        if (errno != ENOENT)
            call_error("look at", entry->path);
        if (mknodat(at->dir, hidden.name, S_IFCHR, 0) < 0)
            call_error("create whiteout", entry->path);
        used_inodes++;
    } else if (S_ISDIR(st.st_mode)) {
        char *path = join_path(at->canonical, hidden.name);
        tree_dir(path)->cut = true;
        set_opaque(at->dir, hidden.name);
        free(path);
    }
}

static void make_opaque(const struct place *at)
{
    set_opaque(at->dir, "");
}

/* ------------------------------------------------------------------------------------- all of it */

static bool is_aufs_metadata(const char *path)
{
    const char *at = !strncmp(path, ".wh..wh.", 8) ? path : strstr(path, "/.wh..wh.");
    if (!at)
        return false;
    return strcmp(*at == '/' ? at + 1 : at, ".wh..wh..opq") != 0;
}

static void apply(const struct entry *entry)
{
    char *path = clean_path(entry->path);
    if (entry->type == 'V' || is_aufs_metadata(path))
        goto done;
    if (!*path) {
        make_root(entry);
        goto done;
    }
    if (entry->type == '1' && strncmp(strrchr(path, '/') ? strrchr(path, '/') + 1 : path, ".wh.", 4)) {
        make_link(entry, path);
        goto done;
    }
    struct place at;
    at.dir = tree_parent(path, true, &at.canonical, &at.name);
    if (!strcmp(at.name, ".wh..wh..opq"))
        make_opaque(&at);
    else if (!strncmp(at.name, ".wh.", 4))
        make_whiteout(&at, entry);
    else if (entry->type == '0')
        make_file(&at, entry);
    else if (entry->type == '5')
        make_dir(&at, entry);
    else if (entry->type == '2')
        make_symlink(&at, entry);
    else
        make_device(&at, entry);
done:
    free(path);
}

/*
 * The report, records ended by zero bytes: "PPATH" for a directory that was needed but not listed and whose metadata
 * the lower layers may know, "LLINK" "TARGET" for a hard link to a file of a lower layer, "SBYTES INODES UIDS GIDS" for
 * the sum, with the ids of ids.h.
 */
static void report(void)
{
    size_t count;
    struct dir **dirs = tree_sorted(&count);
    for (size_t i = 0; i < count; i++) {
        if (!dirs[i]->listed && !dirs[i]->cut)
            printf("P%s%c", dirs[i]->path, 0);
        if (!dirs[i]->listed)
            used_inodes++;
    }
    if (links)
        fwrite(links, 1, links_length, stdout);
    printf("S%llu %llu %s %s%c", (unsigned long long)used_bytes, (unsigned long long)used_inodes, ids_text(false),
           ids_text(true), 0);
    if (fflush(stdout))
        host_error("write", "report");
}

void extract(int root)
{
    struct entry entry;
    tree_open(root);
    while (tar_next(&entry)) {
        apply(&entry);
        entry_free(&entry);
    }
    drain_input();
    finish_dirs();
    report();
}
