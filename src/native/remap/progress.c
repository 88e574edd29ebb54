#include "remap.h"
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { INTERVAL_MS = 100 };

static _Atomic uint64_t entries, data_bytes, disk_bytes, inodes;

static void say(const char *word, uint64_t first, uint64_t second)
{
    char line[64];
    int length =
        snprintf(line, sizeof line, "%s%llu %llu\n", word, (unsigned long long)first, (unsigned long long)second);
    if (write(1, line, (size_t)length) != length)
        host_error("write", "report");
}

static void tell(void)
{
    static _Atomic int64_t last;
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    int64_t ms = now.tv_sec * 1000 + now.tv_nsec / 1000000, before = last;
    if (ms - before >= INTERVAL_MS && atomic_compare_exchange_strong(&last, &before, ms))
        say("p ", entries, data_bytes);
}

void count_inode(const struct stat *st)
{
    inodes++;
    disk_bytes += (uint64_t)st->st_blocks * 512;
}

void count_entry(void)
{
    entries++;
    tell();
}

void count_bytes(uint64_t bytes)
{
    data_bytes += bytes;
    tell();
}

void report_done(void)
{
    say("done ", disk_bytes, inodes);
}
