/*
 * Container logs in the CRI format: `2026-11-21T22:30:00.123456789Z stdout F text`, one record a line. A line longer
 * than the bound is split into records tagged P (more follows) and a last one tagged F. What a stream ends with and no
 * newline follows is tagged P, so that a reader who joins records gets exactly the bytes that were written.
 *
 * A record is built from three pieces (head, bytes, newline) that are written where they are: nothing is copied but
 * the rest of a line whose end has not come yet.
 */
#include "monitor.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define PIECES    192
#define HEAD_SIZE 48

struct rest {
    uint8_t *data;
    uint32_t length, capacity;
};

struct log {
    int fd;
    uint32_t line_bytes;
    struct rest rest[2];
    uint64_t dropped; /* bytes a failing disk has cost */
    char path[];
};

static int open_file(const char *path, int *error)
{
    int flags = O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC;
    int fd = open(path, flags, 0640);
    struct stat stat;
    if (fd < 0) {
        *error = -errno;
        return -1;
    }
    if (fstat(fd, &stat) < 0 || !S_ISREG(stat.st_mode)) {
        *error = -EINVAL; /* a FIFO there could block us, a device could do worse */
        close(fd);
        return -1;
    }
    return fd;
}

struct log *log_open(const char *path, uint32_t line_bytes, int *error)
{
    struct log *log = calloc(1, sizeof *log + strlen(path) + 1);
    if (log == NULL) {
        *error = -ENOMEM;
        return NULL;
    }
    strcpy(log->path, path);
    log->line_bytes = line_bytes == 0 ? DEFAULT_LINE_BYTES : line_bytes;
    log->fd = open_file(path, error);
    if (log->fd < 0) {
        free(log);
        return NULL;
    }
    return log;
}

int log_reopen(struct log *log)
{
    int error = 0;
    int fd = open_file(log->path, &error);
    if (fd < 0)
        return error;
    close(log->fd);
    log->fd = fd;
    return 0;
}

uint64_t log_dropped(const struct log *log)
{
    return log->dropped;
}

void log_close(struct log *log)
{
    if (log == NULL)
        return;
    close(log->fd);
    free(log->rest[0].data);
    free(log->rest[1].data);
    free(log);
}

/* Days since 1970 to a date of the proleptic Gregorian calendar; eras of 400 years, years that begin in March. */
static void civil_date(int64_t days, int *year, int *month, int *day)
{
    days += 719468;
    int64_t era = days / 146097;
    int64_t in_era = days - era * 146097;
    int64_t year_in_era = (in_era - in_era / 1460 + in_era / 36524 - in_era / 146096) / 365;
    int64_t in_year = in_era - (365 * year_in_era + year_in_era / 4 - year_in_era / 100);
    int64_t shifted = (5 * in_year + 2) / 153;
    *day = (int)(in_year - (153 * shifted + 2) / 5 + 1);
    *month = (int)(shifted < 10 ? shifted + 3 : shifted - 9);
    *year = (int)(year_in_era + era * 400 + (*month <= 2));
}

/* "2026-11-21T22:30:00.123456789Z stdout F " */
static size_t format_head(char head[HEAD_SIZE], uint8_t stream, char tag)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    int year, month, day;
    civil_date(now.tv_sec / 86400, &year, &month, &day);
    int second = (int)(now.tv_sec % 86400);
    int length =
        snprintf(head, HEAD_SIZE, "%04d-%02d-%02dT%02d:%02d:%02d.%09ldZ %s %c ", year, month, day, second / 3600,
                 second / 60 % 60, second % 60, now.tv_nsec, stream == 1 ? "stdout" : "stderr", tag);
    return (size_t)length;
}

struct batch {
    struct log *log;
    char full[HEAD_SIZE], partial[HEAD_SIZE];
    size_t head_length;
    struct iovec pieces[PIECES];
    int count;
    size_t payload;
};

/* Takes back what a full disk let through of a batch: half a record would spoil the next one too. */
static void take_back(struct log *log, size_t written)
{
    struct stat stat;
    if (written > 0 && fstat(log->fd, &stat) == 0 && (size_t)stat.st_size >= written &&
        ftruncate(log->fd, stat.st_size - (off_t)written) < 0)
        return;
}

static void batch_write(struct batch *batch)
{
    struct iovec *at = batch->pieces;
    int left = batch->count;
    size_t written = 0;
    while (left > 0) {
        ssize_t taken = writev(batch->log->fd, at, left);
        if (taken < 0 && errno == EINTR)
            continue;
        if (taken <= 0) {
            take_back(batch->log, written);
            batch->log->dropped += batch->payload;
            break;
        }
        written += (size_t)taken;
        for (; left > 0 && (size_t)taken >= at->iov_len; at++, left--)
            taken -= (ssize_t)at->iov_len;
        if (left > 0) {
            at->iov_base = (uint8_t *)at->iov_base + taken;
            at->iov_len -= (size_t)taken;
        }
    }
    batch->count = 0;
    batch->payload = 0;
}

static void batch_piece(struct batch *batch, const void *data, size_t length)
{
    if (length == 0)
        return;
    batch->pieces[batch->count++] = (struct iovec){(void *)data, length};
}

static void batch_record(struct batch *batch, struct rest *rest, const uint8_t *data, size_t length, bool full)
{
    if (batch->count + 4 > PIECES)
        batch_write(batch);
    batch_piece(batch, full ? batch->full : batch->partial, batch->head_length);
    batch_piece(batch, rest->data, rest->length);
    batch_piece(batch, data, length);
    batch_piece(batch, "\n", 1);
    batch->payload += rest->length + length + (full ? 1 : 0);
    rest->length = 0; /* its bytes stay in place until the batch is written */
}

static void batch_begin(struct batch *batch, struct log *log, uint8_t stream)
{
    batch->log = log;
    batch->count = 0;
    batch->payload = 0;
    batch->head_length = format_head(batch->full, stream, 'F');
    memcpy(batch->partial, batch->full, batch->head_length);
    batch->partial[batch->head_length - 2] = 'P';
}

static void rest_drop(struct rest *rest)
{
    free(rest->data);
    *rest = (struct rest){NULL, 0, 0};
}

static bool rest_add(struct rest *rest, const uint8_t *data, size_t length)
{
    if (rest->length + length > rest->capacity) {
        uint32_t capacity = (uint32_t)(rest->length + length + 255) & ~255u;
        uint8_t *grown = realloc(rest->data, capacity);
        if (grown == NULL)
            return false;
        rest->data = grown;
        rest->capacity = capacity;
    }
    memcpy(rest->data + rest->length, data, length);
    rest->length += (uint32_t)length;
    return true;
}

void log_write(struct log *log, uint8_t stream, const uint8_t *data, size_t length)
{
    struct rest *rest = &log->rest[stream - 1];
    struct batch batch;
    batch_begin(&batch, log, stream);
    while (length > 0) {
        size_t room = log->line_bytes - rest->length;
        const uint8_t *newline = memchr(data, '\n', length < room + 1 ? length : room + 1);
        size_t used;
        if (newline != NULL) {
            used = (size_t)(newline - data);
            batch_record(&batch, rest, data, used, true);
            used++;
        } else if (length > room) {
            used = room;
            batch_record(&batch, rest, data, used, false);
        } else {
            break;
        }
        data += used;
        length -= used;
    }
    if (batch.count > 0)
        batch_write(&batch);
    if (rest->length == 0 && rest->data != NULL)
        rest_drop(rest);
    if (length > 0 && !rest_add(rest, data, length))
        log->dropped += length;
}

void log_flush(struct log *log, uint8_t stream)
{
    struct rest *rest = &log->rest[stream - 1];
    if (rest->length == 0)
        return;
    struct batch batch;
    batch_begin(&batch, log, stream);
    batch_record(&batch, rest, NULL, 0, false);
    batch_write(&batch);
    rest_drop(rest);
}
