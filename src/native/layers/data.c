/* The bytes of a file, once more: shared by the file system where it can, else copied by the kernel, holes kept. */
#include "data.h"
#include <errno.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum { PIECE = 1 << 23 }; /* bytes between two reports of progress */

static off_t seek(int fd, off_t offset, int whence, const char *path)
{
    off_t at = lseek(fd, offset, whence);
    if (at < 0 && errno != ENXIO)
        host_error("seek in", path);
    return at;
}

static size_t by_hand(int from, int to, size_t length, const char *path)
{
    static _Thread_local char buffer[1 << 18];
    ssize_t got;
    do
        got = read(from, buffer, length < sizeof buffer ? length : sizeof buffer);
    while (got < 0 && errno == EINTR);
    if (got < 0)
        host_error("read", path);
    for (ssize_t put = 0, n; put < got; put += n)
        if ((n = write(to, buffer + put, (size_t)(got - put))) < 0)
            host_error("write", path);
    return (size_t)got;
}

/* From the offsets of both descriptors on, which are the same. */
static void copy_run(int from, int to, off_t length, const char *path, void (*copied)(uint64_t))
{
    static _Thread_local bool by_kernel = true;
    while (length > 0) {
        size_t piece = length < PIECE ? (size_t)length : PIECE;
        ssize_t done = by_kernel ? copy_file_range(from, NULL, to, NULL, piece, 0) : 0;
        if (done < 0 && (errno == ENOSPC || errno == EDQUOT || errno == EIO))
            host_error("write", path);
        if (done <= 0) {
            by_kernel = by_kernel && done == 0;
            done = (ssize_t)by_hand(from, to, piece, path);
        }
        if (done == 0) {
            errno = EIO;
            host_error("read the whole of", path);
        }
        length -= done;
        copied((uint64_t)done);
    }
}

void copy_data(int from, int to, const char *path, void (*copied)(uint64_t bytes))
{
    static _Thread_local bool by_clone = true;
    struct stat st;
    if (fstat(from, &st) < 0)
        host_error("look at", path);
    if (by_clone && st.st_size && ioctl(to, FICLONE, from) == 0) {
        copied((uint64_t)st.st_size);
        return;
    }
    by_clone = by_clone && (!st.st_size || errno == EINVAL); /* of this file only */
    if (st.st_blocks >= (st.st_size + 511) / 512) {
        copy_run(from, to, st.st_size, path, copied);
        return;
    }
    if (ftruncate(to, st.st_size) < 0)
        host_error("set size of", path);
    for (off_t at = 0, end; at < st.st_size; at = end) {
        if ((at = seek(from, at, SEEK_DATA, path)) < 0)
            return;
        end = seek(from, at, SEEK_HOLE, path);
        if (end < 0)
            return;
        seek(from, at, SEEK_SET, path);
        seek(to, at, SEEK_SET, path);
        copy_run(from, to, end - at, path, copied);
    }
}
