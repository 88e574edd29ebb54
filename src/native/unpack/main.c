/*
 * berth-unpack: turns one image layer into one directory of an overlay, whatever the layer holds.
 *
 *   berth-unpack extract [-u]        < archive > report    descriptor 3: the empty directory
 *   berth-unpack settle  [-u] COUNT  < report              descriptor 3: the directory, 4 …: the COUNT lower layers,
 *                                                          topmost first
 *
 * The archive is a tar, not compressed. -u marks opaque directories with user.overlay.* in the place of
 * trusted.overlay.*. Exit codes: 0, 2 when the archive is at fault, 3 when the host is; standard error says why.
 *
 * It cannot leave its directory: no path of the archive is ever given to the kernel as a path. They are cut into names,
 * each opened beneath the one before with openat2 (no links, no crossing of file systems), and `extract` has made the
 * directory its root besides and given up every capability and system call it does not need.
 */
#include "common.h"
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void extract(int root);
void settle(int root, const int *below, int count);

int main(int argc, char **argv)
{
    int next = 2;
    umask(0);
    if (argc > next && !strcmp(argv[next], "-u"))
        user_xattrs = true, next++;
    if (argc == next && !strcmp(argv[1], "extract")) {
        int root = inherited_dir(3);
        make_root_of(root);
        drop_rights();
        filter_syscalls(NULL, 0);
        extract(root);
        return 0;
    }
    if (argc == next + 1 && !strcmp(argv[1], "settle")) {
        int count = atoi(argv[next]);
        int *below = must_alloc((size_t)(count > 0 ? count : 1) * sizeof *below);
        for (int i = 0; i < count; i++)
            below[i] = inherited_dir(4 + i);
        drop_rights();
        filter_syscalls(NULL, 0);
        settle(inherited_dir(3), below, count);
        return 0;
    }
    static const char usage[] = "usage: berth-unpack extract [-u] | settle [-u] COUNT\n";
    (void)!write(2, usage, sizeof usage - 1);
    return 1;
}
