/*
 * berth-remap: makes one layer of an overlay that holds the whole tree of an image, every owner mapped from the ids of
 * a container to those of the host. For kernels and file systems that cannot mount the image's own layers idmapped.
 *
 *   berth-remap metacopy|copy [-u] COUNT   < maps > report    descriptor 3: the empty directory; 4 …: the COUNT
 *                                                             layers, topmost first
 *   berth-remap check         [-u] COUNT   < maps > report    descriptors 3 …: the COUNT layers, topmost first
 *
 * metacopy writes metadata only: the result is mounted on top of the same layers with metacopy=on, and overlayfs takes
 * file data from below. copy writes data too, and the result stands alone. check makes nothing: it only looks whether
 * the maps hold every id. -u reads user.overlay.* in the place of trusted.overlay.* and does not go with metacopy,
 * since overlayfs (userxattr) has none then.
 *
 * Maps, one line a range, then the end: "u CONTAINER HOST SIZE" for users, "g CONTAINER HOST SIZE" for groups. The
 * report: "p ENTRIES BYTES" (directory entries read, bytes of file data copied) several times a second, and at last
 * "done BYTES INODES", what was added below the directory and takes place on disk.
 *
 * Exit codes: 0; 2 when the image is at fault, as with an id no line holds; 3 when the host is. Standard error says
 * why in one line. Whoever wants no result any more kills the process and removes the directory.
 *
 * Names, links and attributes of the layers are somebody else's. No call goes by more than one name from an open
 * directory, none follows a link, and everything the program does not need is given up before it looks at a layer.
 */
#include "remap.h"
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { MAX_THREADS = 4 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static int ready; /* helpers */
static bool started;

static void *help(void *unused)
{
    (void)unused;
    if (unshare(CLONE_FS) < 0)
        host_error("leave", "shared working directory");
    pthread_mutex_lock(&lock);
    ready++;
    pthread_cond_broadcast(&changed);
    while (!started)
        pthread_cond_wait(&changed, &lock);
    pthread_mutex_unlock(&lock);
    walk();
    return NULL;
}

/* Gives how many there are: they have all they need, and wait. */
static int start_helpers(pthread_t *helpers)
{
    long processors = sysconf(_SC_NPROCESSORS_ONLN);
    int wanted = processors > MAX_THREADS ? MAX_THREADS : (int)processors, count = 0;
    while (count < wanted - 1 && pthread_create(&helpers[count], NULL, help, NULL) == 0)
        count++;
    pthread_mutex_lock(&lock);
    while (ready < count)
        pthread_cond_wait(&changed, &lock);
    pthread_mutex_unlock(&lock);
    return count;
}

static void let_help(void)
{
    pthread_mutex_lock(&lock);
    started = true;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
}

static void run(int count)
{
    static int layers[MAX_LAYERS];
    static const int also[] = {SYS_fchdir, SYS_llistxattr, SYS_lgetxattr, SYS_lsetxattr};
    pthread_t helpers[MAX_THREADS];
    destination = inherited_dir(3); /* in a check the topmost layer, and only a place to be locked into */
    for (int i = 0; i < count; i++)
        layers[i] = inherited_dir((mode == CHECK ? 3 : 4) + i);
    make_root_of(destination);
    drop_rights();
    int helping = start_helpers(helpers);
    filter_syscalls(also, sizeof also / sizeof *also);
    read_maps();
    walk_from(layers, count);
    let_help();
    walk();
    for (int i = 0; i < helping; i++)
        pthread_join(helpers[i], NULL);
    report_done();
}

static bool read_mode(const char *word)
{
    static const char *const words[] = {[METACOPY] = "metacopy", [COPY] = "copy", [CHECK] = "check"};
    for (mode = METACOPY; mode <= CHECK; mode++)
        if (!strcmp(word, words[mode]))
            return true;
    return false;
}

int main(int argc, char **argv)
{
    int next = 2;
    umask(0);
    if (argc > next && !strcmp(argv[next], "-u"))
        user_xattrs = true, next++;
    int count = argc == next + 1 && read_mode(argv[1]) ? atoi(argv[next]) : 0;
    if (count < 1 || count > MAX_LAYERS) {
        static const char usage[] = "usage: berth-remap metacopy|copy|check [-u] COUNT (of 1 to 500 layers)\n";
        (void)!write(2, usage, sizeof usage - 1);
        return 1;
    }
    if (user_xattrs && mode == METACOPY) {
        errno = EOPNOTSUPP;
        host_error("use metacopy with", "user.overlay attributes");
    }
    run(count);
    return 0;
}
